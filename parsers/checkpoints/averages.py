"""Which weight each tensor of an averaged model copies, by the ways in which libraries name averages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = ["Match", "matched"]


@dataclass(frozen=True, slots=True)
class Match:
    """Name of an average -> name of the weight that it copies, and the share of the names that copy one."""

    weights: Mapping[str, str]
    share: float


def matched(averages: Collection[str], weights: Collection[str]) -> Match:
    """The weight of each average: of the same name, of the name within a part of the model, or without its dots.

    An average may be of a part of what is trained (`ema_model.conv` of `model.conv` in a LightningModule): then one
    prefix is added to all. Latent diffusion's `LitEma` keeps names without dots. The way by which most are found is
    taken; names that it does not find (counters of updates) have no weight.

    >>> matched(["conv.weight", "n_averaged"], ["model.conv.weight", "loss.scale"]).weights
    {'conv.weight': 'model.conv.weight'}
    """
    known = set(weights)
    prefixes = {"", *(".".join(name.split(".")[:depth]) + "." for name in known for depth in (1, 2))}
    ways = [
        {name: prefix + name for name in averages if prefix + name in known}
        for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix))[:_MOST_PREFIXES]
    ]
    for prefix in ("", "model."):
        dotless = {name.removeprefix(prefix).replace(".", ""): name for name in known if name.startswith(prefix)}
        ways.append({name: dotless[name] for name in averages if name in dotless})
    best = max(ways, key=len)
    return Match(best, len(best) / max(len(averages), 1))


#: Prefixes that are tried: a model has a few parts of its own, a state dict of another kind has any number.
_MOST_PREFIXES = 64
