"""A checkpoint with what was computed of it, as the judges of weights take it; and how they speak of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.findings import SEVERITIES, Finding
from analysis.weights.values import numbers as numbers_of
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Tensor

__all__ = [
    "Saved",
    "begins_at_zero",
    "by_parameter",
    "is_buffer",
    "layer_of",
    "numbers",
    "same_bytes",
    "same_values",
    "told_once",
]


@dataclass(frozen=True, eq=False)
class Saved:
    """One save of a series: the open checkpoint and its `statistics` (one row a tensor).

    `name` is how the save is called in messages, `step` what its name and the small files beside it tell (None where
    they do not); what the checkpoint says itself is `checkpoint.step`. `label` is `best`, `last`, ... where it has one.
    """

    name: str
    checkpoint: Checkpoint = field(repr=False)
    statistics: pl.DataFrame = field(repr=False)
    step: int | None = None
    label: str = ""

    @property
    def at(self) -> int | None:
        """The step of the weights: what the checkpoint says of itself goes before its name."""
        return self.step if self.checkpoint.step is None else self.checkpoint.step

    @property
    def where(self) -> str:
        """The save in a sentence.

        >>> Saved("run/last.pt", Checkpoint(path="x", format="torch", tensors=()), pl.DataFrame(), 1200).where
        'run/last.pt (step 1,200)'
        """
        return self.name if self.at is None else f"{self.name} (step {self.at:,})"

    def rows(self, *roles: str) -> list[dict[str, Any]]:
        """Rows of the statistics of these roles, in the checkpoint's order; what could not be read is left out."""
        return [row for row in self._rows if row["role"] in roles]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        # A query for each of thousands of saves takes longer than the few rows that it is about.
        names = [name for name in self.statistics.columns if name != "histogram"]
        columns = (self.statistics[name].to_list() for name in names)
        rows = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
        return [row for row in rows if row["error"] is None and row["elements"] > 0]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The model's tensors by the model's own names for them."""
        return {tensor.parameter: tensor for tensor in self.checkpoint.of_role("weights") if tensor.parameter}

    def second_names(self) -> set[str]:
        """Weights that lie in the bytes of another one before them: tied weights, by their further names."""
        seen: set[object] = set()
        twice: set[str] = set()
        for name, tensor in self.weights.items():
            if tensor.storage is not None and tensor.elements:
                place = (tensor.storage, tensor.offset, tensor.shape, tensor.strides)
                if place in seen:
                    twice.add(name)
                seen.add(place)
        return twice


#: Names under which modules register what no optimizer touches: statistics, counters, masks, tables of positions.
_BUFFER = re.compile(
    r"(^|[._])(running_(mean|var|min|max)|num_batches_tracked|inv_freq|(position|token_type)_ids|masked_bias|causal_mask"
    r"|attn_mask|attention_mask|mask|relative_position_index|anchor_grid|anchors|stride|alphas_cumprod\w*|betas"
    r"|sqrt_\w+|pos_?enc(oding)?\.pe|pe|window|filters?bank|mel_scale|fb|freqs(_cis)?|cos_cached|sin_cached|n_averaged"
    r"|observer|fake_quant|(min|max)_val|zero_point|eps|mean|std|total_ops|total_params|initted|_extra_state)(\.|_\d|$)"
)


@lru_cache(maxsize=1 << 16)  # the same names in each of thousands of saves
def is_buffer(parameter: str) -> bool:
    """Whether a name is one that modules give to buffers, which no gradient moves.

    >>> is_buffer("bn.running_mean"), is_buffer("rotary.inv_freq"), is_buffer("fc.weight")
    (True, True, False)
    """
    return _BUFFER.search(parameter) is not None


#: What begins at zero on purpose: factors of adapters, gates of residual branches, zero convolutions, modulations.
_ZERO_AT_FIRST = re.compile(
    r"(lora_|adapter|zero_?(conv|module|proj)|gamma|layer_?scale|\bls\d|adaln|modulation|rezero|resweight|magnitude"
    r"|vera_|ia3_|(attn|mlp|ffn|cross)_gate$|pos_?emb)",
    re.IGNORECASE,
)


@lru_cache(maxsize=1 << 16)
def begins_at_zero(parameter: str) -> bool:
    """Whether a name is one that is given to weights which are 0 when training begins.

    >>> begins_at_zero("layers.0.q_proj.lora_B.weight"), begins_at_zero("fc.weight")
    (True, False)
    """
    return _ZERO_AT_FIRST.search(parameter) is not None


def layer_of(parameter: str) -> str:
    """The module of a parameter.

    >>> layer_of("blocks.2.fc.weight"), layer_of("scale")
    ('blocks.2.fc', 'scale')
    """
    return parameter.rpartition(".")[0] or parameter


def numbers(checkpoint: Checkpoint, tensor: Tensor, most: int = 1 << 20) -> Iterator[NDArray[np.float64]]:
    """The values of a tensor in double precision, in row-major order, at most `most` of them at a time.

    Of a sparse tensor these are the stored values; complex numbers come as their parts. The pages are given back at
    the end.
    """
    flat = np.ascontiguousarray(checkpoint.array(tensor)).reshape(-1)
    for start in range(0, flat.size, most):
        yield numbers_of(flat[start : start + most], tensor).reshape(-1)
    del flat
    checkpoint.release(tensor)


def same_bytes(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors lie in the same bytes of a file: one parameter under two names."""
    place = (one.storage, one.offset, one.strides, one.shape)
    return one.storage is not None and place == (two.storage, two.offset, two.strides, two.shape)


def same_values(one: Checkpoint, tensor: Tensor, two: Checkpoint, other: Tensor) -> bool:
    """Whether two tensors hold the same bits, element by element; their pages are given back."""
    if (tensor.dtype, tensor.shape, tensor.layout, tensor.count) != (
        other.dtype,
        other.shape,
        other.layout,
        other.count,
    ):
        return False
    a, b = one.array(tensor), two.array(other)
    same = a.shape == b.shape and bool(np.array_equal(_bits(a), _bits(b)))
    one.release(tensor)
    two.release(other)
    return same


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """The same memory as unsigned integers, in which NaN equals NaN and 0 does not equal -0."""
    if values.dtype.kind in "fc" and values.dtype.itemsize <= 8 and values.flags.c_contiguous:
        return values.view(f"u{values.dtype.itemsize}")
    return values


def told_once(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of successive saves, each fact once: the worst of those alike, from its first to its last step.

    Alike are those of one kind about one thing (the evidence `what`, else the metric). `saves` in the evidence counts
    them; the order is that of their first appearance.
    """
    groups: dict[tuple[str, object], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.evidence.get("what") or finding.metric), []).append(finding)
    return [_one_of(group) for group in groups.values()]


def _one_of(group: list[Finding]) -> Finding:
    worst = max(group, key=lambda one: SEVERITIES.index(one.severity))
    if len(group) == 1:
        return worst
    steps = [step for one in group for step in (one.first_step, one.last_step) if step is not None]
    return Finding(
        worst.kind,
        worst.severity,
        worst.run,
        f"{worst.message}; so in {len(group)} saves",
        metric=worst.metric,
        first_step=min(steps, default=None),
        last_step=max(steps, default=None),
        evidence={**worst.evidence, "saves": len(group)},
        causes=worst.causes,
        suggestions=worst.suggestions,
    )


def by_parameter(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with the name by which to speak of each: the model's own where there is one."""
    for row in rows:
        yield row["parameter"] or row["name"], row
