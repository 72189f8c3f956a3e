"""What a metric is, from its name: an alias table as data, so that analyses ask for a role and not for a spelling."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["ROLES", "is_loss", "role_of"]

#: Role -> pattern of metric names (split already taken off, lower case). The first that matches decides.
ROLES: dict[str, str] = {
    "learning_rate": r"(.*[/._ -])?(lr|learning_rate)([/._ -].*)?|lr-.*",
    "grad_norm": r"(.*[/._ -])?(grad(ient)?s?_?norms?|gnorm|gn|grad_norm_.*|grads?/.*norm.*)([/._ -].*)?",
    "perplexity": r"(.*[/._ -])?(ppl|perplexity)",
    "throughput": r".*(per_sec(ond)?|/s(ec)?|_ps|throughput|tokens_sec|it/s|fps|mfu)",
    "step_time": r".*(step_time|iter_time|time_per_(step|iter|batch)|elapsed|data_time|dt|(^|[/._ -])time)",
    "memory": r".*(mem(ory)?|vram|rss)(_?(gb|mb|bytes|used|allocated|reserved))?.*",
    "weight": r"curriculum/weight/.*|.*[/._ -]weight|(.*[/._ -])?lambda(_.*)?",
    "accuracy": r".*(acc(uracy)?|top_?[15]|f1|auc|map|bleu|rouge|precision|recall|reward|score|iou)([/._ @-].*)?",
    "error_rate": r"(.*[/._ -])?(wer|cer|eer|error(_rate)?|fid|mindcf)",
    "generator_loss": (
        r"(.*[/._ -])?(g|gen|generator)(_|[/.-])?(loss|total)(_.*)?|(.*[/._ -])?loss[/._-](g|gen|generator)"
    ),
    "discriminator_loss": (
        r"(.*[/._ -])?(d|disc|discriminator)(_|[/.-])?(loss|total)(_.*)?|(.*[/._ -])?loss[/._-](d|disc|discriminator)"
    ),
    "loss": (
        r"(.*[/._ -])?(loss|total_loss|objective|cost|nll|cross_entropy|ce|mse|mae|elbo|bpb|bits_per_byte)([/._ -].*)?"
    ),
    "component_loss": r".*loss.*|losses/.*/(raw|weighted|contribution)|losses/(total|displayed)",
}
_COMPILED = {role: re.compile(pattern) for role, pattern in ROLES.items()}
_LOSSES = {"loss", "component_loss", "generator_loss", "discriminator_loss", "perplexity"}


@lru_cache(maxsize=65536)
def role_of(metric: str) -> str:
    """Role of a metric by its name, or the empty string when no pattern fits.

    >>> [role_of(m) for m in ("loss", "kd_loss", "lr", "grad_norm", "d_loss", "tokens_per_second", "foo")]
    ['loss', 'loss', 'learning_rate', 'grad_norm', 'discriminator_loss', 'throughput', '']
    """
    name = metric.lower()
    return next((role for role, pattern in _COMPILED.items() if pattern.fullmatch(name)), "")


def is_loss(metric: str) -> bool:
    """Whether smaller is better and the series should fall: losses, their components, perplexity.

    >>> is_loss("train_loss"), is_loss("learning_rate")
    (True, False)
    """
    return role_of(metric) in _LOSSES
