"""The page: one file that needs no network and runs no script, light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from analysis.diagnose import Diagnosis
from analysis.findings import SEVERITIES, status_of
from analysis.report.blocks import arrows
from analysis.report.curves import Curve, draw_runs, read_curve
from analysis.report.drawings import Drawing, Drawings
from analysis.report.section import FIGURES, Section, meaning, section
from analysis.report.text import clean, counted, number, span
from analysis.timeline import main_series

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["to_html"]

#: Figures in one page: at about 15 kB each they keep the largest page near 4 MB.
BUDGET = 240
#: Runs whose main curves are drawn large; in a larger set they stand in the overview and among the small charts.
LARGE = 12
#: Status or severity -> sign, so that it can be told without colour.
_WORST_FIRST = ("critical", "warning", "healthy")
SIGNS = {"healthy": "●", "warning": "▲", "critical": "■", "fatal": "✖", "info": "○"}


@dataclass(frozen=True)
class _Row:
    """One run in the table at the top."""

    key: str
    name: str
    path: str
    status: str
    worst: str
    worst_kind: str
    format: str
    steps: str
    counts: tuple[tuple[str, int], ...]
    judged: int
    not_judged: int


def to_html(diagnoses: Sequence[Diagnosis], *, title: str, command: str, unread: Sequence[tuple[str, str]] = ()) -> str:
    """The page of some judged runs, the worst first, as HTML text; the same runs give the same page."""
    diagnoses = sorted(diagnoses, key=lambda d: _WORST_FIRST.index(d.status))
    drawings = Drawings(BUDGET)
    overview: list[Drawing] = []
    if len(diagnoses) > 1:
        overview = _overview(diagnoses, drawings)
    each = max((BUDGET - len(overview)) // max(len(diagnoses), 1), 1)
    sections: list[Section] = []
    for index, diagnosis in enumerate(diagnoses, start=1):
        drawings.budget = min(drawings.count + min(each, FIGURES), BUDGET)
        sections.append(section(diagnosis, f"run-{index}", drawings, large=len(diagnoses) <= LARGE))
    return _template().render(
        title=clean(title),
        status=status_of([f for d in diagnoses for f in d.findings]),
        rows=[_row(s) for s in sections],
        sections=sections,
        overview=overview,
        unread=[(clean(path, 200), clean(why, 300)) for path, why in list(unread)[:100]],
        unread_count=len(unread),
        command=clean(command, 2000),
        version=_version(),
        signs=SIGNS,
        meaning=meaning,
        span=span,
        clean=clean,
        counted=counted,
        number=number,
    )


def _row(made: Section) -> _Row:
    diagnosis = made.diagnosis
    counts = [(s, sum(f.severity == s for f in diagnosis.findings)) for s in reversed(SEVERITIES)]
    worst = next((one for one in diagnosis.incidents if one.severity != "info"), None)
    return _Row(
        key=made.key,
        name=clean(diagnosis.run, 80),
        path=clean(diagnosis.source.path, 120),
        status=diagnosis.status,
        worst=clean(arrows(worst.story), 240) if worst else _notes(diagnosis),
        worst_kind=worst.root.kind if worst else "",
        format=diagnosis.source.format,
        steps="none" if diagnosis.source.last_step is None else f"{diagnosis.source.last_step:,}",
        counts=tuple((s, n) for s, n in counts if n),
        judged=len(diagnosis.judged),
        not_judged=len(diagnosis.not_applicable),
    )


def _notes(diagnosis: Diagnosis) -> str:
    """What a healthy run has to show in the table: that there are notes."""
    kinds = dict.fromkeys(f.kind for f in diagnosis.findings)
    return f"nothing worse than {counted(len(diagnosis.findings), 'note')}: {', '.join(kinds)}" if kinds else ""


def _overview(diagnoses: Sequence[Diagnosis], drawings: Drawings) -> list[Drawing]:
    """The main series of all runs in one figure; a second one for their eval losses."""
    mains: list[tuple[int, str, Curve]] = []
    evals: list[tuple[int, str, Curve]] = []
    for place, diagnosis in enumerate(diagnoses[:60]):
        main = main_series(diagnosis.source)
        if main is None:
            continue
        for split, chosen in ((main[1], mains), ("eval", evals)):
            curve = read_curve(diagnosis.source, main[0], split)
            if curve is not None and (split == main[1] or main[1] != "eval"):
                chosen.append((place, clean(diagnosis.run, 32), curve))
    made = []
    for what, chosen in (("main curve", mains), ("eval loss", evals)):
        if len(chosen) > 1:
            title = f"{what} of {len(chosen)} runs, the worst first"
            made.append(drawings.axes(lambda ax, c=chosen: draw_runs(c, ax), title, height=2.8))  # type: ignore[misc]
    return [drawing for drawing in made if drawing is not None]


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("analysis.report", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("aftertrain")
    except PackageNotFoundError:  # run from the source folder without an install
        return "from source"
