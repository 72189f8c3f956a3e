"""The command line: parse, call one public function, render. Standard output carries the result, the rest is stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aftertrain import __version__, refuse_foreign

if TYPE_CHECKING:
    from analysis.findings import Finding
    from analysis.norms import Norms
    from analysis.result import Result
    from analysis.rules import Rules
    from parsers.run import RunSet
    from parsers.settings import Settings

__all__ = ["entry", "main"]

FORMATS = ("table", "json", "markdown", "junit", "github")
EXIT_CODES = (
    "exit status: 0 nothing at or above the bar, 1 findings at or above it, 2 the call or the input was unusable"
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; nothing heavy is imported to build it."""
    parser = argparse.ArgumentParser(
        prog="aftertrain", description="Judge training runs from what they left behind.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"aftertrain {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ls = commands.add_parser("ls", help="what runs are here, in which format, how long")
    ls.add_argument("paths", nargs="+", metavar="PATH")
    ls.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    ls.add_argument("--no-cache", action="store_true", help="read every run again, and remember nothing")
    ls.add_argument("--roles", action="store_true", help="what the series of each run are taken for, and why")
    _add_config(ls)
    _add_dialects(ls)
    ls.set_defaults(call=_ls)

    report = commands.add_parser("report", help="one self-contained report (.html, .md, .json)")
    report.add_argument("paths", nargs="+", metavar="PATH")
    report.add_argument("-o", "--output", metavar="FILE", default="report.html", help="default: %(default)s")
    report.add_argument("--title", help="heading of the report")
    _add_norms(report)
    _add_plan(report)
    _add_config(report)
    _add_dialects(report)
    report.set_defaults(call=_report)

    check = commands.add_parser("check", help="findings of each run, for people and for CI", epilog=EXIT_CODES)
    check.add_argument("paths", nargs="+", metavar="PATH")
    check.add_argument("--format", choices=FORMATS, default="table")
    _add_fail_on(check)
    _add_norms(check)
    _add_plan(check)
    _add_config(check)
    _add_dialects(check)
    check.set_defaults(call=_check)

    saves = commands.add_parser(
        "checkpoints",
        help="what the weights of a checkpoint, or of a folder of them, say, and what changed between two",
        epilog=EXIT_CODES,
    )
    saves.add_argument("paths", nargs=1, metavar="PATH", help="a checkpoint, or a folder of saves")
    saves.add_argument("--against", metavar="PATH", help="a checkpoint to compare with: what changed from it to PATH")
    saves.add_argument(
        "--max-drift",
        type=float,
        metavar="RATIO",
        help="with --against: a tensor whose ||b-a|| / ||a|| is larger is critical, and so is one lost or broken",
    )
    saves.add_argument(
        "--tensors", action="store_true", help="list every tensor of the last save: type, shape, mean, norm, zeros, ..."
    )
    saves.add_argument("--run", metavar="LOG", help="the log of the run: loss, evaluation and rate at each save")
    saves.add_argument(
        "--spectra", action="store_true", help="singular values and the exponents of their tails too (takes longer)"
    )
    saves.add_argument(
        "--verify",
        action="store_true",
        help="compare checksums too: those of torch's and NumPy's zips, and what the log recorded (reads all twice)",
    )
    saves.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    _add_fail_on(saves)
    _add_config(saves)
    saves.set_defaults(call=_checkpoints)

    selftest = commands.add_parser(
        "selftest",
        help="which faults would have been caught in a run, from which size on, and which it cannot show",
        epilog="exit status: 0 the run was tested, 2 the call or the input was unusable",
    )
    selftest.add_argument("paths", nargs=1, metavar="RUN")
    selftest.add_argument(
        "--kinds", nargs="+", metavar="KIND", help="only these kinds (default: all; docs/selftest.md)"
    )
    selftest.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    selftest.add_argument("--run", metavar="NAME", help="which of several runs, by name, path or identifier")
    selftest.add_argument(
        "--seed", type=int, default=0, help="for what a fault leaves to chance (default: %(default)s)"
    )
    _add_norms(selftest)
    _add_plan(selftest)
    _add_config(selftest)
    _add_dialects(selftest)
    selftest.set_defaults(call=_selftest)

    explain = commands.add_parser("explain", help="what a kind of finding means, its limit, and what to try")
    explain.add_argument("kinds", nargs="*", metavar="KIND", help="default: a line for each of them")
    explain.set_defaults(call=_explain)

    convert = commands.add_parser("convert", help="write a run as Parquet, JSONL, CSV, TensorBoard events or a W&B run")
    convert.add_argument("path", metavar="PATH")
    convert.add_argument("-o", "--output", required=True, metavar="OUT")
    convert.add_argument(
        "--format",
        choices=("parquet", "jsonl", "csv", "tensorboard", "wandb"),
        help="default: by the suffix of OUT; a folder or a name without suffix means tensorboard; wandb is an offline "
        "run in the folder OUT",
    )
    convert.add_argument("--run", metavar="NAME", help="which of several runs, by name, path or identifier")
    _add_dialects(convert)
    convert.set_defaults(call=_convert)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings of the project; default: aftertrain.toml, or [tool.aftertrain] in pyproject.toml, in the "
        "current folder or the nearest one above that has one",
    )
    command.add_argument(
        "--checks",
        metavar="FILE.py",
        action="append",
        default=[],
        help="run this Python file, which registers checks of your own (docs/custom-checks.md); may be given more than "
        "once",
    )


def _add_fail_on(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fail-on",
        choices=("warning", "critical", "fatal", "never"),
        default="critical",
        help="lowest severity that makes the exit status 1 (default: %(default)s)",
    )


def _add_norms(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--norms",
        metavar="FILE",
        help="limits learned from healthy runs (at.norms(runs, path=FILE)), in place of the built-in ones",
    )


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plan",
        metavar="FILE",
        help="what the runs were meant to do, in TOML, JSON or YAML (docs/plan.md); goes before what logs and "
        "configurations say",
    )


def _add_dialects(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dialects",
        metavar="FILE",
        action="append",
        default=[],
        help="TOML file that says how a text log prints its numbers (docs/formats.md); may be given more than once",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Unusable input is a sentence on standard error and status 2."""
    given = build_parser().parse_args(argv)
    for package in ("eventstream", "parsers", "analysis"):
        refuse_foreign(package)
    from eventstream.errors import AftertrainError

    try:
        call: Callable[[argparse.Namespace], int] = given.call
        return call(given)
    except AftertrainError as error:
        # Sentences name files and tensors of strangers, which must not steer the terminal.
        told = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error))
        print(f"aftertrain: {told}", file=sys.stderr)
        return 2


def entry() -> None:
    """The console script: `main`, with a quiet end when the reader of a pipe leaves or the user interrupts."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        print("aftertrain: interrupted", file=sys.stderr)
        status = 130
    raise SystemExit(status)


def _load(given: argparse.Namespace) -> RunSet:
    from aftertrain.render import printable
    from parsers.loading import load_all

    settings = _settings(given)
    plan = getattr(given, "plan", None)  # `ls --roles` loads too, and takes none
    with _Progress("reading") as progress:
        runs = load_all(given.paths, progress=progress, dialects=given.dialects, plan=plan)
    _say_unread(runs.unread)
    runs, unused = settings.applied(runs)
    for told in unused:
        print(f"aftertrain: {printable(told)}", file=sys.stderr)
    return runs


def _settings(given: argparse.Namespace) -> Settings:
    from parsers.settings import find_settings, read_settings

    if "settings" not in given:  # one command asks for roles and for rules: the file is read once for both
        given.settings = find_settings() if given.config is None else read_settings(given.config)
    settings: Settings = given.settings
    return settings


def _rules(given: argparse.Namespace) -> Rules:
    """What the settings say of findings, checked before anything is read."""
    from analysis.check_sources import load_checks, load_declared
    from analysis.rules import rules_of

    settings = _settings(given)
    load_declared(settings, given.paths, named=given.config is not None)
    for path in given.checks:
        load_checks(path)
    return rules_of(settings.findings, f"{settings.path} [findings]")


def _norms(given: argparse.Namespace) -> Norms | None:
    """The norms that were named, read before anything else is."""
    if given.norms is None:
        return None
    from analysis.norms import read_norms

    return read_norms(given.norms)


def _say_unread(unread: Sequence[tuple[str, str]]) -> None:
    from aftertrain.render import printable

    for place, reason in unread:
        print(f"aftertrain: not read: {printable(place)}: {printable(reason)}", file=sys.stderr)


def _ls(given: argparse.Namespace) -> int:
    from aftertrain import render
    from parsers.listing import list_runs

    if given.roles:
        print(render.ROLES[given.format](_load(given)))
        return 0
    _rules(given)  # a file with mistakes is said here too
    with _Progress("reading") as progress:
        listed = list_runs(given.paths, progress=progress, cache=not given.no_cache, dialects=given.dialects)
    _say_unread(listed.unread)
    print(render.RUNS[given.format](listed))
    return 0


def _report(given: argparse.Namespace) -> int:
    from analysis.report import report

    rules, norms = _rules(given), _norms(given)
    runs = _load(given)
    with _Progress("judging and drawing") as progress:
        made = report(runs, given.output, title=given.title, rules=rules, norms=norms, progress=progress)
    for diagnosis in made.diagnoses:
        print(f"{diagnosis.status:9} {diagnosis.run}")
    print(made.path)
    return 0


def _check(given: argparse.Namespace) -> int:
    from aftertrain import render
    from analysis.diagnose import diagnose

    rules, norms = _rules(given), _norms(given)
    runs = _load(given)
    with _Progress("judging") as progress:
        diagnoses = []
        for number, run in enumerate(runs):
            progress(number, len(runs), run.name)
            diagnoses.append(diagnose(run, rules=rules, norms=norms))
    print(render.DIAGNOSES[given.format](diagnoses))
    return _failed(given, [f for d in diagnoses for f in d.findings])


def _failed(given: argparse.Namespace, findings: Sequence[Finding]) -> int:
    """The exit status that `--fail-on` makes of some findings."""
    from analysis.findings import SEVERITIES

    if given.fail_on == "never":
        return 0
    bar = SEVERITIES.index(given.fail_on)
    return int(any(SEVERITIES.index(one.severity) >= bar for one in findings))


def _checkpoints(given: argparse.Namespace) -> int:
    from aftertrain import render_checkpoints as render
    from analysis.checkpoints import checkpoints
    from analysis.diff import diff
    from eventstream.errors import InputError

    rules = _rules(given)
    for option, needed in (("max_drift", given.against is not None), ("run", given.against is None)):
        if getattr(given, option) is not None and not needed:
            other = "needs" if option == "max_drift" else "does not go with"
            raise InputError(f"--{option.replace('_', '-')} {other} --against")
    for option in ("tensors", "spectra", "verify"):
        if getattr(given, option) and given.against is not None:
            raise InputError(f"--{option} does not go with --against: run it on each of the two alone")
    with _Progress("reading weights") as progress:
        if given.against is not None:
            try:
                found: Result = diff(given.against, given.paths[0], max_drift=given.max_drift, progress=progress)
            except ValueError as error:
                raise InputError(f"--max-drift: {error}") from error
        else:
            found = checkpoints(
                given.paths[0],
                run=given.run,
                spectra=given.spectra,
                verify=given.verify,
                limits=rules.limits,
                progress=progress,
            )
    kept, _ = rules.applied(found.findings, ())
    found = replace(found, findings=tuple(kept))
    print(render.TOLD[given.format](found, given.tensors))
    return _failed(given, found.findings)


def _selftest(given: argparse.Namespace) -> int:
    from aftertrain.render_selftest import SELFTESTS
    from analysis.inject import fault_of
    from analysis.selftest import selftest
    from eventstream.errors import InputError
    from parsers.loading import load
    from parsers.run import RunSet

    try:
        kinds = None if given.kinds is None else [fault_of(kind).kind for kind in given.kinds]
    except ValueError as error:
        raise InputError(f"--kinds: {error}") from error
    rules, norms = _rules(given), _norms(given)
    run = load(given.paths[0], run=given.run, dialects=given.dialects, plan=given.plan)
    (run,), _ = _settings(given).applied(RunSet((run,)))
    with _Progress("planting faults") as progress:
        tested = selftest(run, kinds=kinds, rules=rules, norms=norms, seed=given.seed, progress=progress)
    print(SELFTESTS[given.format](tested))
    return 0


def _explain(given: argparse.Namespace) -> int:
    from analysis.findings_page import index, section

    print("\n\n".join(map(section, given.kinds)) if given.kinds else "\n".join(index()))
    return 0


def _convert(given: argparse.Namespace) -> int:
    from aftertrain.convert import convert
    from parsers.loading import load

    run = load(given.path, run=given.run, dialects=given.dialects)
    written = convert(run, given.output, format=given.format)
    print(written)
    return 0


class _Progress:
    """A bar on standard error for work longer than two seconds; nothing where standard error is no terminal.

    Called as `progress(done, total, what)` by the function that works.
    """

    def __init__(self, what: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=what, delay=2, disable=None, leave=False, file=sys.stderr)

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, done: int, total: int, what: str) -> None:
        self._bar.total = total
        self._bar.set_postfix_str("".join(c if c.isprintable() else "?" for c in what)[:40], refresh=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
