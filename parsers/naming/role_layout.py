"""What a series is by what stands beside it, where its name alone leaves it open."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from parsers.naming.roles import words_of

__all__ = ["SeriesRole", "by_layout", "plain_name"]

#: Lightning's and others' endings that say how often, and over what, a series was averaged.
_AGGREGATION = re.compile(r"[/_.-](step|epoch|avg|mean)$")


@dataclass(frozen=True, slots=True)
class SeriesRole:
    """One series and what it is: `role` is one of `parsers.naming.roles.ROLES`, or empty.

    `side` says of whose data it speaks: `train` (also where the log names no split), `eval`, `test` or any other split.
    `why` gives the reason in words, `by` who decided: `name`, `layout` (what stands beside it) or `user`; empty where
    nobody did. `count` is its number of values, of the rank that has most. `stands_for` is set where the user named it
    as the one of its kind: `train_loss`, `eval_loss`.
    """

    split: str
    metric: str
    tag: str
    role: str
    side: str
    why: str
    by: str
    count: int
    stands_for: str = ""

    def __str__(self) -> str:
        """Split and metric."""
        return f"{self.split} {self.metric}".strip()


def plain_name(metric: str) -> str:
    """The name in lower case without `_step`, `_epoch`, `_avg`, `_mean` at its end.

    >>> plain_name("Loss_epoch"), plain_name("loss")
    ('loss', 'loss')
    """
    return _AGGREGATION.sub("", metric.lower())


def by_layout(series: Sequence[SeriesRole]) -> list[SeriesRole]:
    """The series with the roles that follow from one another; what the user said stays.

    >>> alone = SeriesRole("train", "kd_loss", "kd_loss", "component_loss", "train", "", "name", 9)
    >>> by_layout([alone])[0].role
    'loss'
    """
    for rule in _RULES:
        changes = rule([one for one in series if one.by != "user"], series)
        if changes:
            series = [changes.get(one.tag + "\n" + one.split, one) for one in series]
    return list(series)


def _changed(one: SeriesRole, role: str, why: str) -> tuple[str, SeriesRole]:
    return one.tag + "\n" + one.split, replace(one, role=role, why=why, by="layout")


_Changes = dict[str, SeriesRole]


def _critic(mine: Sequence[SeriesRole], every: Sequence[SeriesRole]) -> _Changes:
    """A Wasserstein GAN calls its discriminator a critic; so does an actor-critic its value function."""
    generator = next((one for one in every if one.role == "generator_loss"), None)
    if generator is None:
        return {}
    why = f"the loss of a critic, with a generator beside it ({generator})"
    return dict(
        _changed(one, "discriminator_loss", why)
        for one in mine
        if one.role == "component_loss" and re.search(r"\bcritic\b", words_of(one.metric))
    )


def _norm(mine: Sequence[SeriesRole], every: Sequence[SeriesRole]) -> _Changes:
    """A bare `norm` in the log of a training."""
    roles = {one.role for one in every}
    if "grad_norm" in roles or not roles & {"loss", "learning_rate"}:
        return {}
    why = "called norm, beside a loss or a learning rate"
    return dict(_changed(one, "grad_norm", why) for one in mine if words_of(one.metric) == "norm")


def _monitor(mine: Sequence[SeriesRole], every: Sequence[SeriesRole]) -> _Changes:
    """Monitor of Stable-Baselines (and of Gym before) names its columns with one letter each."""
    if not {"r", "l", "t"} <= {one.metric for one in every}:
        return {}
    told = {"r": ("reward", "the reward of an episode"), "t": ("wall_time", "seconds since the start")}
    return dict(
        _changed(one, told[one.metric][0], f"{told[one.metric][1]}: r, l and t stand together, as Monitor writes them")
        for one in mine
        if one.metric in told
    )


def _since_start(mine: Sequence[SeriesRole], every: Sequence[SeriesRole]) -> _Changes:
    """`results.csv` of Ultralytics counts its `time` from the start of the training, others give that of a step."""
    if not any(one.metric == "lr/pg0" for one in every):
        return {}
    why = "seconds since the start: time stands beside lr/pg0, as Ultralytics writes them"
    return dict(_changed(one, "wall_time", why) for one in mine if one.metric == "time")


#: What stands beside a part of a loss that is not the whole: the loss itself, or the losses of several players.
_WHOLE = {"loss", "generator_loss", "discriminator_loss", "policy_loss"}


def _only_loss(mine: Sequence[SeriesRole], every: Sequence[SeriesRole]) -> _Changes:
    """A loss with a name of its own is the whole loss where no other is logged on that side, nor it as one of many."""
    changes: _Changes = {}
    sides = dict.fromkeys(one.side for one in every)
    names = {
        side: {plain_name(p.metric) for p in every if p.side == side and p.role == "component_loss"} for side in sides
    }
    parts_of_many = set[str]().union(*(found for found in names.values() if len(found) > 1))
    for side, found in names.items():
        if any(one.side == side and one.role in _WHOLE for one in every):
            continue
        parts = [one for one in every if one.side == side and one.role == "component_loss"]
        if len(found) == 1 and not found & parts_of_many:
            where = f"with split {parts[0].split}" if parts[0].split else "in the log"
            own = [one for one in mine if one in parts]
            changes |= dict(_changed(one, "loss", f"the only loss {where}") for one in own)
    return changes


_RULES: tuple[Callable[[Sequence[SeriesRole], Sequence[SeriesRole]], _Changes], ...] = (
    _critic,
    _norm,
    _monitor,
    _since_start,
    _only_loss,
)
