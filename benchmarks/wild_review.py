"""`python -m benchmarks.wild_review [FOLDER] [--write]`: every warning on logs of strangers, beside what an eye said.

`benchmarks/wild_verdicts.toml` holds the judgements: one a file, kind and metric. A warning that nobody has judged
makes the program fail, so that `docs/wild-review.md` never claims more than was looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aftertrain as at
from analysis.findings import Finding
from parsers.run import Run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "wild-review.md"
VERDICTS = Path(__file__).with_name("wild_verdicts.toml")
WILD = ROOT.parent / "shared" / "wild"
WORDS = ("right", "wrong", "undecided")
#: File, kind and metric: what a judgement is about.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody saw in the curve behind a warning; a wrong one has a figure, by its name beside the page."""

    word: str
    why: str
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """A fault that the curves show and that was not reported, and what that would need, or what mended it."""

    file: str
    what: str
    needs: str
    mended: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """A finding of warning or worse in a file, and the judgement on it, if there is one."""

    file: str
    finding: Finding
    verdict: Verdict | None

    @property
    def key(self) -> Key:
        return self.file, self.finding.kind, self.finding.metric or ""


def verdicts_of(text: str) -> tuple[dict[Key, Verdict], list[Missed]]:
    """Judgements and missed faults of the table; ValueError for a word that is none, and a judgement made twice."""
    table = tomllib.loads(text)
    found: dict[Key, Verdict] = {}
    for entry in table.get("verdict", []):
        key = (entry["file"], entry["kind"], entry.get("metric", ""))
        if entry["verdict"] not in WORDS:
            raise ValueError(f"{key}: the verdict is one of {', '.join(WORDS)}, not {entry['verdict']!r}")
        if key in found:
            raise ValueError(f"{key} is judged twice; keep one")
        if entry["verdict"] == "wrong" and not entry.get("figure"):
            raise ValueError(f"{key}: a wrong warning needs a figure beside the page")
        found[key] = Verdict(entry["verdict"], entry["why"], entry.get("figure", ""))
    return found, [Missed(e["file"], e["what"], e["needs"], e.get("mended", False)) for e in table.get("missed", [])]


def file_of(run: Run, folder: Path) -> str:
    """The run's path below the folder, which is the same on every machine."""
    path = Path(run.path).absolute()
    return path.relative_to(folder.absolute()).as_posix()


def warned(runs: Iterable[Run], folder: Path, verdicts: Mapping[Key, Verdict]) -> list[Warned]:
    """Every finding of warning or worse, in the order of files."""
    found = []
    for run in runs:
        file = file_of(run, folder)
        for finding in at.diagnose(run).findings:
            if finding.severity != "info":
                key = (file, finding.kind, finding.metric or "")
                found.append(Warned(file, finding, verdicts.get(key)))
    return sorted(found, key=lambda one: (one.key, one.finding.first_step or 0))


def said(one: Warned, folder: Path) -> str:
    """The finding in a line, without the path of this machine."""
    finding = one.finding
    message = finding.message.replace(f"{folder.as_posix()}/", "").replace(f"{folder.absolute().as_posix()}/", "")
    return f"{finding.severity} `{finding.kind}`{f' of {finding.metric}' if finding.metric else ''}: {message}"


def lines_of(found: Sequence[Warned], folder: Path) -> list[str]:
    """What is printed: one line a warning, the verdict first."""
    return [f"{one.verdict.word if one.verdict else 'NOT JUDGED':10} {one.file}: {said(one, folder)}" for one in found]


def page(
    found: Sequence[Warned],
    runs: int,
    gone: Mapping[Key, Verdict],
    missed: Sequence[Missed],
    folder: Path,
) -> str:
    """The page; `gone` are judgements of warnings that are not given any more."""
    origin = origins(folder)
    words = Counter(one.verdict.word if one.verdict else "not judged" for one in found)
    silent = runs - len({one.file for one in found})
    head = (
        "# Logs of strangers, looked at\n\n"
        "What `aftertrain check` says about real logs of public repositories, and what an eye says about it. The "
        "logs are under their owners' licences and no part of this repository. Of every run with three values or "
        "more, warned of or not, up to seven series (losses, rates, norms, scores) were drawn and looked at; for "
        "warnings about the log itself its lines were read. `python -m benchmarks.wild_review FOLDER --write` "
        "makes this page, and fails while a warning is not judged.\n\n"
        "What this is not: a measure of precision. The detectors were made with these logs at hand, wrong "
        "warnings on them were mended until few were left, and one reader judged, who knew the verdicts and "
        "mended some of them. Rates on generated runs are in [faults.md](faults.md).\n\n"
        f"Runs: {runs}, without a warning: {silent}. Warnings: {len(found)}, of them "
        + ", ".join(f"{words[word]} {word}" for word in (*WORDS, "not judged") if words[word] or word in WORDS[:2])
        + ".\n\n## Warnings\n"
    )
    return head + _warnings(found, origin, folder) + _gone(gone) + _missed(missed)


def _warnings(found: Sequence[Warned], origin: dict[str, str], folder: Path) -> str:
    parts: list[str] = []
    for file in dict.fromkeys(one.file for one in found):
        parts.append(f"\n### {file}\n\n{_origin(file, origin)}\n")
        for one in (one for one in found if one.file == file):
            verdict = one.verdict or Verdict("not judged", "")
            parts.append(f"- {said(one, folder)}\n  **{verdict.word}**: {verdict.why}\n")
            if verdict.figure:
                parts.append(f"  ![the series behind it](wild-review/{verdict.figure})\n")
    return "".join(parts)


def _gone(gone: Mapping[Key, Verdict]) -> str:
    if not gone:
        return ""
    rows = [
        f"- {file}, `{kind}`{f' of {metric}' if metric else ''}: {v.word}; {v.why}\n"
        + (f"  ![the series behind it](wild-review/{v.figure})\n" if v.figure else "")
        for (file, kind, metric), v in gone.items()
    ]
    return "\n## Given before, and no more\n\n" + "".join(rows)


def _missed(missed: Sequence[Missed]) -> str:
    parts = []
    for title, mended in (("Missed", False), ("Missed before, found now", True)):
        rows = [f"- {one.file}: {one.what} {one.needs}\n" for one in missed if one.mended is mended]
        parts.append(f"\n## {title}\n\n{''.join(rows)}" if rows else "")
    return "".join(parts)


def _origin(file: str, origin: dict[str, str]) -> str:
    inside = [told for name, told in origin.items() if name == file or name.startswith(f"{file}/")]
    return inside[0] if inside else "origin not listed"


def origins(folder: Path) -> dict[str, str]:
    """File -> repository and licence, as the folder's `MANIFEST.json` has them."""
    listed = folder / "MANIFEST.json"
    entries: list[dict[str, Any]] = json.loads(listed.read_text())["files"] if listed.exists() else []
    return {e["file"]: f"From {e['repo']} at {e['commit'][:10]} ({e['licence']})." for e in entries}


def main(arguments: Sequence[str] | None = None, *, verdicts: Path = VERDICTS, target: Path = PAGE) -> int:
    """0 when every warning is judged, 1 when one is not, 2 when there is no folder of logs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wild_review", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=WILD, help=f"folder of logs (default {WILD.name})")
    parser.add_argument("--write", action="store_true", help="write docs/wild-review.md")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        print(f"there is no folder {given.folder}; name the one that holds the logs", file=sys.stderr)
        return 2
    judged, missed = verdicts_of(verdicts.read_text(encoding="utf-8"))
    runs = at.load_all(given.folder)
    found = warned(runs, given.folder, judged)
    print("\n".join(lines_of(found, given.folder)))
    given_now = {one.key for one in found}
    gone = {key: verdict for key, verdict in judged.items() if key not in given_now}
    for key in gone:
        print(f"no more    {key[0]}: {key[1]} {key[2]}".rstrip())
    unjudged = sum(one.verdict is None for one in found)
    if given.write and not unjudged:
        target.write_text(page(found, len(runs), gone, missed, given.folder), encoding="utf-8")
    if unjudged:
        print(
            f"{unjudged} warnings are not judged: look at their curves and say so in {verdicts.name}", file=sys.stderr
        )
    return 1 if unjudged else 0


if __name__ == "__main__":
    raise SystemExit(main())
