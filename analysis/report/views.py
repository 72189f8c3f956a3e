"""Which figures a run gets besides those of its findings: its main curves, and what each check has to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.checkpoints import Checkpoints
from analysis.diagnose import Diagnosis
from analysis.report.curves import Curve, Curves, draw_metric
from analysis.report.drawings import Drawing, Drawings
from analysis.report.groups import Group
from analysis.report.shares import component_shares, draw_shares
from analysis.report.text import number
from analysis.result import Result
from analysis.timeline import main_series
from parsers.naming.run_roles import Roles

__all__ = ["OWN_CHECKS", "OWN_FIGURE", "OWN_FIGURES", "View", "check_views", "curve_views", "finding_view"]

#: Headings of the checks that have something to show even where nothing was found; the others show their findings.
TITLES: dict[str, str] = {
    "train_eval_gap": "Train and eval",
    "curriculum": "Curriculum, planned against observed",
    "losses": "Loss components",
    "speaker_embeddings": "Speaker embeddings",
    "gan": "Generator and discriminator",
    "repeated_data": "Data that came again after a resume",
    "checkpoints": "Weights, save by save",
}
#: Families whose figure is that of their check: the metric alone would not show what is wrong.
OWN_FIGURE = {"generalisation", "loss accounting", "curriculum", "GAN", "embeddings", "contracts", "checkpoints"}
#: Checks whose findings have that figure whatever their family: they name parameters, of which no log has a curve.
OWN_CHECKS = {"checkpoints"}
#: Checks that have a figure of their own for every kind of finding.
OWN_FIGURES = {"hidden_facts"}
#: Spectra of so many multiplications take a second or two.
_MOST_WORK = 6e10
#: Tensors whose names stand beside a figure of the usual height.
_FEW = 24
#: What the view of updates says more of than a table of numbers: what did not move, or moved too far.
_SHOWN_BY_UPDATES = {"frozen-layer", "weight-drift", "checkpoint-mismatch"}
SHARES = "shares of the loss components"


@dataclass(frozen=True)
class View:
    """The figures of one check under its heading."""

    title: str
    drawings: tuple[Drawing, ...]


def finding_view(check: str, result: Result, group: Group, drawings: Drawings) -> Drawing | None:
    """The figure of the check that found something, announced by what it found; None where there is nothing to draw."""
    options = [{"kind": group.kind}] if check in OWN_FIGURES else _options(check, result, group.metric)
    if check == "checkpoints":
        shown = group.kind in _SHOWN_BY_UPDATES and group.severity != "info"  # notes are folded, and so would it be
        options = [one for one in options[:1] if shown and one["view"] == "updates"]
    if not options:
        return None
    message = group.findings[0].message
    title = "the rows that show it, marked" if check in OWN_FIGURES else TITLES.get(check, check.replace("_", " "))
    return drawings.result(result, title, label=message, **options[0])


def curve_views(diagnosis: Diagnosis, curves: Curves, drawings: Drawings) -> list[View]:
    """The main loss, the learning rate and the like, each large."""
    main = main_series(diagnosis.source)
    made: list[Drawing | None] = []
    for metric in _key_metrics(curves, main[0] if main else None, diagnosis.source.roles):
        shown = curves[metric]
        made.append(drawings.axes(lambda ax, shown=shown: draw_metric(shown, (), ax), _said(shown)))  # type: ignore[misc]
    drawn = tuple(drawing for drawing in made if drawing is not None)
    return [View("Curves", drawn)] if drawn else []


def check_views(diagnosis: Diagnosis, drawings: Drawings, drawn: Mapping[str, int]) -> list[View]:
    """What each check has to show; `drawn` are the checks whose first figure stands beside a finding already."""
    shares = component_shares(diagnosis.source)
    views: list[View] = []
    for check, title in TITLES.items():
        result = diagnosis.results.get(check)
        if isinstance(result, Checkpoints):
            result = result.with_spectra(most=_MOST_WORK)
        options = _options(check, result) if result is not None else []
        made = [drawings.result(result, title, **o) for o in options[int(check in drawn) :] if result is not None]
        if check == "losses" and not shares.is_empty():
            made.append(drawings.axes(lambda ax: draw_shares(shares, ax), SHARES, height=2.8))
        figures = tuple(drawing for drawing in made if drawing is not None)
        if figures:
            views.append(View(title, figures))
    return views


def _options(check: str, result: Result, metric: str | None = None) -> list[dict[str, Any]]:
    """One set of options of the result's `plot` for each figure that it has to offer; none where it is empty."""
    if result.frame.is_empty():
        return []
    if check == "repeated_data" and not any("lag_steps" in finding.evidence for finding in result.findings):
        return []
    if check == "speaker_embeddings":
        if getattr(result, "last", None) is None:
            return []
        kinds = ["similarities", "map", *(["steps"] if result.frame.height > 1 else [])]
        return [{"kind": kind} for kind in kinds]
    if isinstance(result, Checkpoints):
        # a row a layer: of a few the usual height shows all names, of many more rows do
        height = 2.8 if result.frame["parameter"].n_unique() <= _FEW else 4.2
        return [{"view": view, "height": height} for view in result.views]
    if check == "train_eval_gap" and metric in {pair.metric for pair in getattr(result, "pairs", ())}:
        return [{"metric": metric}]
    return [{}]


def _key_metrics(curves: Curves, main: str | None, roles: Roles) -> list[str]:
    """The metrics that every reader wants large: the main loss, learning rate and gradient norm."""
    wanted = [main] if main else []
    for role in ("generator_loss", "discriminator_loss", "learning_rate", "grad_norm", "accuracy"):
        metric = roles[role].metric
        wanted += [metric] if metric is not None and metric in curves else []
    return list(dict.fromkeys(wanted))[:4]


def _said(curves: Sequence[Curve]) -> str:
    parts = []
    for curve in curves[:3]:
        ends = f"{number(float(curve.y[0]))} to {number(float(curve.y[-1]))}"
        parts.append(f"{curve.split or 'logged'} {ends}" if len(curves) > 1 else f"{curve.name} from {ends}")
    return parts[0] if len(curves) == 1 else f"{curves[0].metric}: " + ", ".join(parts)
