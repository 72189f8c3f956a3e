"""Which series stands for a run: the one training loss, the one learning rate, and why that one of several."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from parsers.naming.role_layout import SeriesRole, plain_name
from parsers.naming.roles import ROLES, alike, words_of

__all__ = ["PRIMARY", "Primary", "choose"]

#: What is chosen in every run; the two losses are of role `loss`, the others of the role of their own name.
PRIMARY = (
    "train_loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "throughput",
    "memory",
    "generator_loss",
    "discriminator_loss",
)

_LOSS = (
    r"^loss$",
    r"^(?:total loss|loss total|losses total)$",
    r"\btotal\b",
    r"^(?:lm|model|train|avg|mean) loss$",
    r"loss",
)
_GRAD = r"(?:grads?|gradients?) ?norm"
#: Words of the names that are preferred among several, the most telling first; then the shorter name.
_PREFERRED: dict[str, tuple[str, ...]] = {
    "loss": _LOSS,
    "learning_rate": (r"^(?:lr|learning rate|lrate)$", r"^current lr$", r"^(?!.*\b(?:multiplier|lrm)\b)"),
    "grad_norm": (
        rf"^{_GRAD}$|^gnorm$|^norm$",
        rf"\b(?:total|global)\b|^(?:avg|average|mean|unclipped|train|optim|model) {_GRAD}$",
    ),
    "throughput": (
        r"^(?!eval|val|test).*\btok",
        r"^(?!eval|val|test).*\b(?:sample|image|img|example|word|item|frame|seq)",
        r"^(?!.*\b(?:mfu|hfu)\b)",
    ),
    "memory": (
        r"^(?=.*\b(?:gpu|cuda|vram|allocated|peak|max))(?!.*percent)",
        r"^(?!.*\b(?:rss|ram|proc|percent|cache)\b)",
    ),
    "generator_loss": (r"^(?:g|gen|generator) loss$|^loss (?:g|gen|generator)$", r"\btotal\b"),
    "discriminator_loss": (r"^(?:d|disc|discriminator) loss$|^loss (?:d|disc|discriminator)$", r"\btotal\b"),
}


@dataclass(frozen=True, slots=True)
class Primary:
    """The series that stands for a run in one role, or none; false where there is none.

    `series` is the one chosen, `why` says why in words, `candidates` are all that could have been, best first.
    """

    name: str
    series: SeriesRole | None
    why: str
    candidates: tuple[SeriesRole, ...] = ()

    def __bool__(self) -> bool:
        return self.series is not None

    @property
    def metric(self) -> str | None:
        """Metric of the series, as `run.series` takes it; None where there is none."""
        return None if self.series is None else self.series.metric

    @property
    def split(self) -> str | None:
        """Split of the series as the log has it; None where there is none."""
        return None if self.series is None else self.series.split

    @property
    def tag(self) -> str | None:
        """Tag of the series; None where there is none."""
        return None if self.series is None else self.series.tag

    def __repr__(self) -> str:
        return f"<{self.name}: {self.series if self.series is not None else 'none'} ({self.why})>"


def choose(name: str, series: Sequence[SeriesRole]) -> Primary:
    """The series of one role that stands for the run.

    `name` is `train_loss`, `eval_loss` or a role; of a role but the eval loss, series of training are taken, of others
    only where there are none. What the user named comes first; then series with at least half as many values as the
    longest, by their names (`loss` before `nll_loss`, a total before parts), then the longest, then the shorter name.
    Parts are never taken for a whole: several parts of a loss, or gradient norms of layers, without one for all of
    them give none.

    >>> one = SeriesRole("train", "nll_loss", "nll_loss", "loss", "train", "", "name", 100)
    >>> two = SeriesRole("train", "loss", "loss", "loss", "train", "", "name", 100)
    >>> choose("train_loss", [one, two])
    <train_loss: train loss (the plainest name of 2; also nll_loss)>
    """
    role = "loss" if name in ("train_loss", "eval_loss") else name
    if any(one.stands_for == name for one in series):
        candidates = [one for one in series if one.stands_for == name]
    else:
        candidates = _on_side(name, [one for one in series if one.role == role])
    if not candidates:
        return Primary(name, None, _nothing(name, role, series))
    ranked = sorted(candidates, key=_order(role, candidates, series if name == "eval_loss" else ()))
    if role == "grad_norm" and len(ranked) > 1 and ranked[0].by != "user" and _place(ranked[0], role) == 2:
        return Primary(name, None, f"{len(ranked)} norms of parts, and none of all gradients", tuple(ranked))
    return Primary(name, ranked[0], _reason(ranked, role), tuple(ranked))


def _on_side(name: str, candidates: list[SeriesRole]) -> list[SeriesRole]:
    if name == "eval_loss":
        for side in ("eval", "test"):
            found = [one for one in candidates if one.side == side]
            if found:
                return found
        return [one for one in candidates if one.side != "train"]
    trained = [one for one in candidates if one.side == "train"]
    return trained if trained or name == "train_loss" else candidates


def _order(
    role: str, candidates: Sequence[SeriesRole], series: Sequence[SeriesRole]
) -> Callable[[SeriesRole], tuple[bool, bool, bool, int, int, int, str]]:
    longest = max(one.count for one in candidates)
    trained = {plain_name(one.metric) for one in series if one.role == role and one.side == "train"}

    def order(one: SeriesRole) -> tuple[bool, bool, bool, int, int, int, str]:
        return (
            one.by != "user",
            2 * one.count < longest,
            bool(trained) and plain_name(one.metric) not in trained,
            _place(one, role),
            -one.count,
            len(one.metric),
            one.metric,
        )

    return order


def _place(one: SeriesRole, role: str) -> int:
    return _place_of(alike(one.metric), role)


@lru_cache(maxsize=65536)
def _place_of(name: str, role: str) -> int:
    patterns, words = _PREFERRED.get(role, ()), words_of(name)
    return next((i for i, pattern in enumerate(patterns) if re.search(pattern, words)), len(patterns))


def _reason(ranked: Sequence[SeriesRole], role: str) -> str:
    first, rest = ranked[0], ranked[1:]
    if first.by == "user":
        return first.why
    if not rest:
        return f"the only one; {first.why}"
    also = ", ".join(dict.fromkeys(str(one.metric) for one in rest[:3])) + (", ..." if len(rest) > 3 else "")
    if 2 * max(one.count for one in rest) < first.count:
        return f"the longest of {len(ranked)}; also {also}"
    if all(_place(first, role) < _place(one, role) for one in rest):
        return f"the plainest name of {len(ranked)}; also {also}"
    return f"the first of {len(ranked)} alike by length and name; also {also}"


def _nothing(name: str, role: str, series: Sequence[SeriesRole]) -> str:
    if role == "loss":
        trained = name == "train_loss"
        parts = [one for one in series if one.role == "component_loss" and (one.side == "train") == trained]
        if parts:
            listed = ", ".join(dict.fromkeys(one.metric for one in parts[:4])) + (", ..." if len(parts) > 4 else "")
            many = f"{len(parts)} parts" if len(parts) > 1 else "one part"
            return f"{many} ({listed}), and no series that stands for the whole"
        elsewhere = [one for one in series if one.role == "loss"]
        if elsewhere:
            return f"the losses are of {', '.join(sorted({one.side for one in elsewhere}))} only"
    if name == "discriminator_loss" and {"d_real", "d_fake"} <= {one.role for one in series}:
        return "outputs on real and generated data are logged, and no loss"
    return f"no series is known as {ROLES.get(role, role)}"
