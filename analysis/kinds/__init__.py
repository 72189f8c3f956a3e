"""The kinds of finding: stable names that users put into configuration files, a file a family."""

from __future__ import annotations

from analysis.kinds.checkpoints import KINDS as _CHECKPOINTS
from analysis.kinds.comparison import KINDS as _COMPARISON
from analysis.kinds.contracts import KINDS as _CONTRACTS
from analysis.kinds.curriculum import KINDS as _CURRICULUM
from analysis.kinds.embeddings import KINDS as _EMBEDDINGS
from analysis.kinds.gan import KINDS as _GAN
from analysis.kinds.generalisation import KINDS as _GENERALISATION
from analysis.kinds.kind import Kind, Limit
from analysis.kinds.loss_accounting import KINDS as _LOSS_ACCOUNTING
from analysis.kinds.numbers import KINDS as _NUMBERS
from analysis.kinds.optimisation import KINDS as _OPTIMISATION
from analysis.kinds.resources import KINDS as _RESOURCES
from analysis.kinds.samples import KINDS as _SAMPLES
from analysis.kinds.stream import KINDS as _STREAM

__all__ = ["BUILT_IN", "KINDS", "Kind", "Limit"]

KINDS: dict[str, Kind] = {
    **_STREAM,
    **_NUMBERS,
    **_OPTIMISATION,
    **_GENERALISATION,
    **_LOSS_ACCOUNTING,
    **_CURRICULUM,
    **_CONTRACTS,
    **_RESOURCES,
    **_GAN,
    **_EMBEDDINGS,
    **_CHECKPOINTS,
    **_SAMPLES,
    **_COMPARISON,
}

#: The kinds of this package: those of a user's own checks join `KINDS` when they are registered.
BUILT_IN: tuple[str, ...] = tuple(KINDS)
