"""Averages of weights (EMA, SWA): whether they move, whether they average, and whether they lag as their decay says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.findings import Finding, Severity
from analysis.kinds import KINDS
from analysis.weights.counters import counts_of
from analysis.weights.saved import Saved, is_buffer, numbers, same_values
from analysis.weights.values import dot
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["Lag", "averages_across", "averages_within", "lag_of", "stated_decay", "swapped_in"]

_DECAY = re.compile(
    r"(ema|averag|swa).*\b(decay|beta|alpha|momentum)$|\b(ema|swa)_?(decay|beta|alpha|momentum|rate)$", re.IGNORECASE
)
#: How many steps lie between two updates of an average.
_EVERY = re.compile(r"(ema|averag|swa).*(every|interval|freq\w*|period|(update|per)_steps)$", re.IGNORECASE)
#: Names under which some give the share of the new weights, and others that of the average.
_EITHER = ("momentum", "alpha")
_COUNT = re.compile(r"n_averaged$")
#: Lightning's callback, which puts the average in the place of the weights when training ends.
_SWAPPED = re.compile(r"StochasticWeightAveraging\w*\.n_averaged$")
#: Steps after which an average and its weights have no business being the same.
_SETTLED = 10
#: How much longer than its decay says an average may remember before it is worth a warning.
_LONGER = 3.0
#: By how much more of itself it has to have kept: smaller shares are not read to the digit.
_MORE = 0.1
#: Standard errors by which it has to have kept more: the elements of a matrix are not quite independent.
_SURE = 8.0
#: Share of the distance between two saves that the line through them has to explain for the lag to be read from it.
_EXPLAINED = 0.5
#: Cosine between the lag of the old average and the way since from which on they are one direction.
_ALONG = 0.9
#: How many times farther than its hull allows on a straight way an average may lie from the weights.
_OUTSIDE = 3.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How an average went between two saves: `kept` is the share of its old value that is left in the new one.

    From the recursion e' = d e + (1 - d) w follows, over n updates, e_b = d**n e_a + (1 - d**n) u with u inside the
    convex hull of the weights between. With u on the line from w_a to w_b, `1 - kept` and u are found by least squares
    over all elements, with the standard error `error`; `explained` is the share of |e_b - e_a|**2 that this explains.
    `kept` is NaN where the lag w_a - e_a points along the way w_b - w_a, so that the two cannot be told apart.

    `outside` holds for any decay, or a decay that changes: e_b lies in the hull of e_a and the weights between, so that
    |e_b - w_b| is at most the larger of |e_a - w_b| and the farthest excursion max |w_k - w_b|. It is the first over
    the larger of the second and |w_b - w_a|: above 1 only as far as the weights went astray and came back.
    """

    kept: float
    error: float
    explained: float
    outside: float


def averages_within(saved: Saved, run_name: str) -> list[Finding]:
    """An average that is the weights, element by element, many steps into the training: information."""
    pairs = _pairs(saved)
    if not pairs or (saved.at or 0) < _SETTLED or _not_begun(saved):
        return []
    if not all(same_values(saved.checkpoint, ema, saved.checkpoint, weight) for ema, weight in pairs.values()):
        return []
    said = f"{saved.where}: the average equals the weights in all {len(pairs)} tensors"
    return [_finding(saved, saved, run_name, "info", said, "average equals weights", {"tensors": len(pairs)})]


def _pairs(saved: Saved) -> dict[str, tuple[Tensor, Tensor]]:
    """The averaged and the plain tensor of each parameter that has both."""
    weights = saved.weights
    return {
        tensor.parameter: (tensor, weights[tensor.parameter])
        for tensor in saved.checkpoint.of_role("ema")
        if tensor.parameter in weights
        and tensor.shape == weights[tensor.parameter].shape
        and tensor.elements
        and DTYPES[tensor.dtype].kind == "float"
        and not is_buffer(tensor.parameter)
    }


def _not_begun(saved: Saved) -> bool:
    """Whether the average itself says that nothing was averaged yet (`n_averaged` of torch's `swa_utils`)."""
    counts = [row["maximum"] for row in saved.rows("ema", "weights", "other") if _COUNT.search(row["name"])]
    counts += [v for key, v in saved.checkpoint.values.items() if _COUNT.search(key)]
    return bool(counts) and not any(counts)


def swapped_in(before: Saved, after: Saved) -> bool:
    """Whether the weights of a save are the average of those before it: what Lightning's callback leaves at the end.

    It counts what it averaged, and the optimizer took no step between the two.
    """
    counted = [value for key, value in after.checkpoint.values.items() if _SWAPPED.search(key)]
    if not any(isinstance(value, int | float) and value > 0 for value in counted):
        return False
    one, two = counts_of(before).optimizer, counts_of(after).optimizer
    return one is not None and one == two


def averages_across(saves: Sequence[Saved], run_name: str, *, decay: float | None = None) -> list[Finding]:
    """What the averages of successive saves do while their weights move: `checkpoint-mismatch`.

    A warning where an average stands still, follows the weights exactly, lies where no average of these weights can
    (`Lag.outside`), or remembers `_LONGER` times longer than its stated decay, or as many times shorter than that and
    any usual warm-up of it. `decay` is that of the run's configuration, for saves that state none.
    """
    found = []
    for before, after in pairwise(saves):
        one, two = _pairs(before), _pairs(after)
        names = [name for name in one if name in two and one[name][1].shape == two[name][1].shape]
        rest = (same_values(before.checkpoint, one[n][1], after.checkpoint, two[n][1]) for n in names)
        if not all(rest) and not _not_begun(after):
            found += _judged(before, after, {n: (*one[n], *two[n]) for n in names}, run_name, decay)
    return found


def stated_decay(config: Mapping[str, Any]) -> float | None:
    """What an average keeps of itself a step by a run's configuration; None where it names no decay, or several.

    >>> stated_decay({"optimizer": {"lr": 1e-3}, "ema": {"decay": 0.999, "start": 100}}), stated_decay({"beta": 0.9})
    (0.999, None)
    >>> round(stated_decay({"ema_decay": 0.99, "ema_update_every": 10}), 6)  # a tenth of the updates
    0.998995
    """
    leaves = list(_leaves(config))
    decays = {_share_kept(name, v) for name, v in leaves if isinstance(v, float) and 0 < v < 1 and _DECAY.search(name)}
    every = {v for name, v in leaves if isinstance(v, int | float) and v > 1 and _EVERY.search(name)}
    if len(decays) != 1 or len(every) > 1:
        return None
    return float(decays.pop() ** (1 / max(every, default=1)))


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of nested tables with their dotted names; without recursion, since a configuration may be deep."""
    stack: list[tuple[str, Mapping[str, Any]]] = [("", config)]
    while stack:
        path, table = stack.pop()
        for key, value in table.items():
            if isinstance(value, Mapping):
                stack.append((f"{path}{key}"[:200] + ".", value))
            else:
                yield f"{path}{key}", value


_Four = dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]


def _judged(before: Saved, after: Saved, tensors: _Four, run_name: str, decay: float | None) -> list[Finding]:
    many = {"tensors": len(tensors)}
    if all(same_values(before.checkpoint, e1, after.checkpoint, e2) for e1, _, e2, _ in tensors.values()):
        said = f"the average did not change from {before.where} to {after.where}, and the weights did"
        return [_finding(before, after, run_name, "warning", said, "average stands still", many)]
    copies = ((before, 0), (after, 2))
    if all(
        same_values(save.checkpoint, four[at], save.checkpoint, four[at + 1])
        for save, at in copies
        for four in tensors.values()
    ):
        said = f"the average equals the weights in {before.where} and in {after.where}, between which they moved"
        return [_finding(before, after, run_name, "warning", said, "average follows", many)]
    return _lagging(before, after, tensors, run_name, _decay_of(after) or decay)


def _lagging(before: Saved, after: Saved, tensors: _Four, run_name: str, decay: float | None) -> list[Finding]:
    """Whether the new average lies where averages of these weights can, and remembers as long as its decay says."""
    lag = lag_of(before, after, tensors)
    if lag is None:
        return []
    told: dict[str, float | int | None] = {"tensors": len(tensors), "kept": lag.kept, "explained": lag.explained}
    told["outside"] = lag.outside
    if lag.outside >= _OUTSIDE:
        said = (
            f"the average of {after.where} lies {lag.outside:.3g} times farther from the weights than the average of "
            f"{before.where} and the weights themselves did: it is no average of theirs"
        )
        return [_finding(before, after, run_name, "warning", said, "average aside", told)]
    steps = (after.at or 0) - (before.at or 0)
    if decay is None or steps <= 0 or lag.explained < _EXPLAINED or math.isnan(lag.kept):
        return []
    due = float(decay**steps)
    told |= {"decay": decay, "steps_between": steps, "kept_expected": due}
    # kept = d**(n/k): it remembers k times longer than d says
    longer = math.log(due) / math.log(lag.kept) if due > 0 and 0 < lag.kept < 1 else math.inf
    if not 0 < lag.kept < 1 or longer < _LONGER or lag.kept - due < max(_MORE, _SURE * lag.error):
        return _forgetting(before, after, lag, decay, told, run_name)
    said = (
        f"the average kept {lag.kept:.0%} of itself from {before.where} to {after.where}, where a decay of {decay:g} "
        f"over {steps:,} steps leaves {due:.2g}: it remembers {longer:.3g} times longer"
    )
    return [_finding(before, after, run_name, "warning", said, "average lags", told | {"times_longer": longer})]


def _forgetting(
    before: Saved, after: Saved, lag: Lag, decay: float, told: Mapping[str, float | int | None], run_name: str
) -> list[Finding]:
    """Whether an average keeps far less of itself than its decay says: information while a warm-up may explain it.

    A warning needs the optimizer's own count of its steps, since names may count epochs.
    """
    ends = [counts_of(save).optimizer for save in (before, after)]
    first, last = (
        float(save.at or 0) if None in ends else end or 0.0 for save, end in zip((before, after), ends, strict=True)
    )
    kept = max(lag.kept, 0.0) + _SURE * lag.error
    if last <= first or not 0 < kept < 1 or not _far_below(kept, decay ** (last - first)):
        return []
    sure = None not in ends and _far_below(kept, _warmed_up(decay, first, last))
    shorter = math.log(kept) / (math.log(decay) * (last - first))
    said = (
        f"the average kept at most {kept:.1%} of itself from {before.where} to {after.where}, where a decay of "
        f"{decay:g} over {last - first:,.0f} steps leaves {decay ** (last - first):.2g}: it forgets {shorter:.3g} "
        f"times faster{'' if sure else ', as it may while its decay is warmed up'}"
    )
    severity: Severity = "warning" if sure else "info"
    return [_finding(before, after, run_name, severity, said, "average forgets", {**told, "times_longer": 1 / shorter})]


def _far_below(kept: float, due: float) -> bool:
    return due - kept >= _MORE and math.log(kept) <= _LONGER * math.log(due)


def _warmed_up(decay: float, first: float, last: float) -> float:
    """The least that an average keeps between two steps under the usual ways to let its decay grow from 0.

    These are (1 + n) / (10 + n) of TensorFlow and its heirs, 1 - (1 + n)**(-2/3) of ema-pytorch and diffusers, and
    decay * (1 - exp(-n / 2000)) of YOLO and timm.
    """
    n = np.linspace(first + 1, last, min(int(last - first), 10_000))
    ways = ((1 + n) / (10 + n), 1 - (1 + n) ** (-2 / 3), decay * -np.expm1(-n / 2000))
    return min(math.exp((last - first) * float(np.log(np.minimum(way, decay)).mean())) for way in ways)


def _decay_of(saved: Saved) -> float | None:
    """The decay that the checkpoint states for its average; None where it states none."""
    for key, value in saved.checkpoint.values.items():
        if _DECAY.search(key) and isinstance(value, float) and 0 < value < 1:
            return _share_kept(key, value)
    return None


def _share_kept(name: str, value: float) -> float:
    return max(value, 1 - value) if name.lower().endswith(_EITHER) else value


def lag_of(before: Saved, after: Saved, tensors: _Four) -> Lag | None:
    """The lag of an average between two saves, from sums over all elements; None where the weights explain nothing.

    `tensors` holds of each parameter the averaged and the plain tensor of the first save, then those of the second.
    """
    gram, right, squares = np.zeros((2, 2)), np.zeros(2), np.zeros(3)
    whole, elements = 0.0, 0
    for e1, w1, e2, w2 in tensors.values():
        parts = (numbers(save.checkpoint, t) for save, t in ((before, e1), (before, w1), (after, e2), (after, w2)))
        for ea, wa, eb, wb in zip(*parts, strict=False):
            ahead, step, lag = wa - ea, wb - wa, eb - ea
            across, stepped = dot(ahead, step), dot(step, step)
            gram += [[dot(ahead, ahead), across], [across, stepped]]
            right += [dot(ahead, lag), dot(step, lag)]
            elements += ea.size
            whole += dot(lag, lag)
            squares += [*(dot(gap, gap) for gap in (eb - wb, ea - wb)), stepped]
    if not np.isfinite(gram).all() or squares[2] == 0 or whole == 0:
        return None
    parts_of = np.linalg.lstsq(gram, right, rcond=1e-12)[0]
    left = whole - 2 * float(right @ parts_of) + float(parts_of @ gram @ parts_of)
    outside = math.sqrt(squares[0] / max(squares[1], squares[2]))
    # On a straight way the old average lies on it as well, and how much of it is left cannot be told.
    told = gram[0, 1] ** 2 < _ALONG**2 * gram[0, 0] * gram[1, 1]
    kept = 1 - float(parts_of[0]) if told else math.nan
    error = math.sqrt(max(left, 0.0) / max(elements - 2, 1) * float(np.linalg.pinv(gram)[0, 0]))
    return Lag(kept, error, max(0.0, 1 - left / whole), outside)


def _finding(
    before: Saved,
    after: Saved,
    run_name: str,
    severity: Severity,
    said: str,
    what: str,
    told: Mapping[str, float | int | None],
) -> Finding:
    return Finding(
        "checkpoint-mismatch",
        severity,
        run_name,
        said,
        first_step=before.at,
        last_step=after.at,
        evidence={"what": what, "save": after.name, **told},
        causes=_CAUSES[what],
        suggestions=(
            "call the average's update once after every step of the optimizer",
            "see which weights are saved under both names, and before or after they are swapped for an evaluation",
            KINDS["checkpoint-mismatch"].suggestions[0],
        ),
    )


_CAUSES = {
    "average equals weights": (
        "the weights were swapped for the average when saving, or both names hold one state",
        "the average is updated with a decay of 0, or was begun at this save",
    ),
    "average stands still": (
        "its update is never called, or it averages another copy of the model",
        "averaging begins later in the run",
    ),
    "average follows": (
        "the weights were swapped for the average when saving, or both names hold one state",
        "its decay is 0",
    ),
    "average aside": (
        "it averages another copy of the model, or is of another run",
        "the average was not restored at a resume, or was begun from other weights",
    ),
    "average forgets": (
        "another decay is in force than the one that is saved, or its warm-up goes on",
        "it is updated several times a step (the factor named)",
    ),
    "average lags": (
        "it is updated every so many steps only (the factor named)",
        "another decay is in force than the one that is saved",
        "the average was not restored at a resume",
    ),
}
