"""`report`: runs in, one report out, as a page, as Markdown or as JSON."""

from __future__ import annotations

import html
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from analysis.diagnose import Diagnosis, diagnose
from analysis.findings import Status, status_of
from analysis.norms import Norms, read_norms
from analysis.report.html import to_html
from analysis.report.json import to_json
from analysis.report.markdown import markdown
from analysis.report.text import counted
from analysis.rules import Rules
from eventstream.errors import InputError, unknown_name
from parsers.loading import load_all
from parsers.run import Run, RunSet

__all__ = ["Report", "report"]

Format = Literal["html", "md", "json"]
StrPath = str | os.PathLike[str]
_SUFFIXES: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A finished report: its `text` in `format`, the judgements behind it, and `path` where it has been written."""

    text: str
    format: Format
    title: str
    diagnoses: tuple[Diagnosis, ...]
    unread: tuple[tuple[str, str], ...] = ()
    path: Path | None = None

    @property
    def status(self) -> Status:
        """Of the worst run; healthy for no run."""
        return status_of([f for d in self.diagnoses for f in d.findings])

    def save(self, path: StrPath) -> Report:
        """Write to `path`, in the format of its suffix, and return the report that knows where it is.

        Missing folders are made; the file is written under a temporary name first, so that a reader never sees half a
        page. Raises `InputError` on a suffix other than .html, .md or .json, or where nothing can be written.
        """
        place = Path(path)
        format = _format_of(place)
        made = self if format == self.format else _render(self.diagnoses, format, self.title, self.unread)
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_text(made.text, encoding="utf-8", newline="\n")
                part.replace(place)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        return replace(made, path=place)

    def __repr__(self) -> str:
        where = f", written to {self.path}" if self.path else ""
        size = len(self.text.encode("utf-8")) / 1000
        return f"<Report of {counted(len(self.diagnoses), 'run')}: {self.status}, {self.format}, {size:,.0f} kB{where}>"

    def _repr_html_(self) -> str:
        if self.format == "html":
            return (
                f'<iframe srcdoc="{html.escape(self.text)}" title="{html.escape(self.title)}" sandbox '
                f'style="width:100%;height:48rem;border:1px solid #b0b0b0"></iframe>'
            )
        return f"<pre>{html.escape(self.text)}</pre>"


def report(
    runs: Run | Diagnosis | RunSet | Iterable[Run | Diagnosis] | StrPath,
    path: StrPath | None = None,
    *,
    format: Format | None = None,
    title: str | None = None,
    checks: Iterable[str] | None = None,
    rules: Rules | Mapping[str, Any] | None = None,
    norms: Norms | Path | str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """One report of one or many runs: verdicts first, findings with their figures, then everything they rest on.

    `runs` are runs, judgements (from `diagnose`, which are then not made again), or a path to load. With `path` the
    report is written there, in the format of its suffix (.html, .md, .json); `format` says it where there is no path,
    default html, and must agree where there is one. `title` heads the report; `checks` limits the work, `rules` say
    what counts and `norms` from where on, as in `diagnose`; `progress` is called with (runs done, runs in all, name of
    the run) before each. An html report is one file without scripts or links to anywhere, and the same runs give the
    same bytes.

    Raises `ValueError` on an unknown format, `InputError` on an unknown suffix or when the path holds no run. An empty
    iterable gives a report of no runs, which says so.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["loss"] * 3, "step": [1, 2, 3], "value": [3.0, 2.0, 1.0]})
    >>> made = report(finish("a<b", "a.jsonl", "jsonl", rows), format="md", checks=[])
    >>> made.text.splitlines()[0], made.path
    ('# Report on a&lt;b: healthy', None)
    """
    wanted = _wanted(path, format)
    judged, unread = _judge(runs, checks, rules, norms, progress)
    if progress is not None:
        progress(len(judged), len(judged), "drawing")
    made = _render(judged, wanted, title or _title(judged), unread)
    return made if path is None else made.save(path)


def _wanted(path: StrPath | None, format: str | None) -> Format:
    if format is not None and format not in get_args(Format):
        raise ValueError(unknown_name("report format", format, get_args(Format)))
    if path is None:
        return cast(Format, format or "html")
    implied = _format_of(Path(path))
    if format is not None and format != implied:
        raise ValueError(f"{path}: the suffix asks for {implied}, format={format!r} for another; change one of them")
    return implied


def _format_of(path: Path) -> Format:
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise InputError(f"{path}: a report ends in .html, .md or .json, not in {path.suffix or 'no suffix'!r}")
    return found


def _judge(
    runs: Run | Diagnosis | RunSet | Iterable[Run | Diagnosis] | StrPath,
    checks: Iterable[str] | None,
    rules: Rules | Mapping[str, Any] | None,
    norms: Norms | Path | str | None,
    progress: Callable[[int, int, str], None] | None,
) -> tuple[tuple[Diagnosis, ...], tuple[tuple[str, str], ...]]:
    if isinstance(runs, str | os.PathLike):
        runs = load_all(runs)
    unread = runs.unread if isinstance(runs, RunSet) else ()
    several: list[Run | Diagnosis] = [runs] if isinstance(runs, Run | Diagnosis) else list(runs)
    wanted = None if checks is None else tuple(checks)
    learned = norms if norms is None or isinstance(norms, Norms) else read_norms(norms)
    judged: list[Diagnosis] = []
    for done, one in enumerate(several):
        if isinstance(one, Diagnosis):
            judged.append(one)
            continue
        if not isinstance(one, Run):
            raise TypeError(f"report takes runs, judgements or a path, not {type(one).__name__}")
        if progress is not None:
            progress(done, len(several), one.name)
        judged.append(diagnose(one, checks=wanted, rules=rules, norms=learned))
    return tuple(judged), unread


def _title(diagnoses: tuple[Diagnosis, ...]) -> str:
    if len(diagnoses) == 1:
        return f"Report on {diagnoses[0].run}"
    return f"Report on {counted(len(diagnoses), 'run')}"


def _render(
    diagnoses: tuple[Diagnosis, ...], format: Format, title: str, unread: tuple[tuple[str, str], ...]
) -> Report:
    command = _command(diagnoses, format)
    if format == "json":
        text = to_json(diagnoses)
    elif format == "md":
        text = markdown(diagnoses, title=title, command=command)
    else:
        text = to_html(diagnoses, title=title, command=command, unread=unread)
    return Report(text, format, title, diagnoses, unread)


def _command(diagnoses: tuple[Diagnosis, ...], format: Format) -> str:
    """The command line that makes the report again; the paths of many runs are given by what they share."""
    paths = [d.source.path for d in diagnoses]
    if len(paths) > 8:
        shared = os.path.commonpath(paths) if len({os.path.isabs(p) for p in paths}) == 1 else ""  # noqa: PTH117
        paths = [shared] if shared else [*paths[:8], "..."]
    quoted = " ".join(shlex.quote(p) for p in paths)
    return f"aftertrain report {quoted or 'PATH'} -o report.{format}"
