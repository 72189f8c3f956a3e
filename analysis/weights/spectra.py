"""The singular values of every weight matrix: norms, ranks, and the exponent of the tail as WeightWatcher has it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.weights.matrices import Unfolding, slices, unfold
from analysis.weights.power_law import fit_power_law
from analysis.weights.singular import eigenvalues, largest_singular_values
from eventstream.errors import unknown_name
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import DTYPES, Role, Tensor

__all__ = ["BANDS", "FITTED_FROM", "SCHEMA", "band_of", "spectra"]

Progress = Callable[[int, int, str], None]

#: The bands of alpha in WeightWatcher's documentation (weightwatcher.ai; OVER_TRAINED_THRESH and UNDER_TRAINED_THRESH
#: in its constants): below the first over-trained, above the second under-trained.
BANDS = (2.0, 6.0)
#: Squared singular values up to here are left out of the fit, as WeightWatcher does (EVALS_THRESH).
FITTED_FROM = 1e-5
#: WeightWatcher multiplies kernels of convolutions by sqrt(1/2) (`conv2d_norm`): their squares by this.
_KERNEL = 0.5
#: Smaller sides up to this are judged several at once, each on one core: a Gram matrix of 8 MB.
_TOGETHER = 1024
#: Most matrices judged at once.
_WORKERS = 4

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "name": pl.String,
    "parameter": pl.String,
    "role": pl.String,
    "dtype": pl.String,
    "rows": pl.Int64,
    "columns": pl.Int64,
    "matrices": pl.Int64,
    "singular_values": pl.List(pl.Float64),
    "spectral_norm": pl.Float64,
    "frobenius_norm": pl.Float64,
    "stable_rank": pl.Float64,
    "effective_rank": pl.Float64,
    "rank": pl.Int64,
    "alpha": pl.Float64,
    "alpha_error": pl.Float64,
    "x_min": pl.Float64,
    "ks_distance": pl.Float64,
    "tail": pl.Int64,
    "alpha_weighted": pl.Float64,
    "band": pl.String,
    "exact": pl.Boolean,
    "error": pl.Float64,
    "reason": pl.String,
}


def spectra(
    checkpoint: Checkpoint,
    *,
    roles: Sequence[Role] = ("weights",),
    least: int = 8,
    top: int = 10,
    exact_up_to: int = 6144,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """One row a weight matrix of the checkpoint, in its order: norms, ranks and the power law of its spectrum.

    Columns: `name`, `parameter`, `role`, `dtype`; `rows`, `columns` and `matrices`: a kernel of a convolution counts as
    one matrix (out x in) a tap, stacked experts as one an expert, and their singular values are pooled, as
    WeightWatcher does. `singular_values` (the `top` largest), `spectral_norm` (the largest), `frobenius_norm`;
    `stable_rank` (squared Frobenius over squared spectral norm); `effective_rank` (exp of the entropy of the singular
    values as shares of their sum; Roy and Vetterli 2007); `rank` (singular values above rounding).

    `alpha`: the exponent of the power law in the tail of the squared singular values, its standard error `alpha_error`,
    where the tail begins (`x_min`), its distance after Kolmogorov and Smirnov and its number of values (`tail`):
    Clauset, Shalizi and Newman 2009; what it tells of training: Martin and Mahoney 2021,
    https://doi.org/10.1038/s41467-021-24025-8. `alpha_weighted` is alpha * log10 of the largest square, halved for
    kernels as WeightWatcher's default does. `band` names WeightWatcher's reading: `over-trained` below 2, `good`,
    `under-trained` above 6. It is information: alpha alone is no fault, and a distance above about 0.1 says that the
    tail is no power law. Randomly initialised matrices have no heavy tail and read as under-trained, or by chance not.

    `exact`: all singular values are known (from the Gram matrix in float64: `singular.eigenvalues` says how exactly).
    Where both sides exceed `exact_up_to` (default 6,144: beyond, one matrix takes minutes, and more memory than three
    times itself) only the largest are, by random probes: there is a singular value within `error` of each, and what
    needs the whole spectrum is null. `reason` says why alpha is null: no numbers (complex, sparse, no values stored),
    NaN or infinities (then every measure is null), zeros only, fewer than `least` values above 1e-5 (default 8:
    WeightWatcher's least), all values equal.

    Tensors are read one after the other, small ones four at once, and their pages given back. With threadpoolctl
    installed each small matrix keeps to one core, which is faster where cores are shared. `progress` is called as
    `progress(done, total, name)`. Raises ValueError for unknown roles and for limits that are not positive, and
    `InputError` where the file changed since it was opened.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage
    >>> place = Path(tempfile.mkdtemp()) / "weights.raw"
    >>> W = np.random.default_rng(0).standard_normal((64, 32)).astype("<f4")
    >>> place.write_bytes(W.tobytes())
    8192
    >>> tensor = Tensor("layer.weight", "float32", (64, 32), Storage(place, 0, 8192), parameter="layer.weight")
    >>> with Checkpoint(place, "raw", (tensor,)) as checkpoint:
    ...     row = spectra(checkpoint).row(0, named=True)
    >>> row["rank"], round(row["spectral_norm"], 3) == round(float(np.linalg.norm(W, 2)), 3)
    (32, True)
    """
    _checked(roles, least=least, top=top, exact_up_to=exact_up_to)
    wanted = [(tensor, seen) for tensor in checkpoint.of_role(*roles) if (seen := unfold(tensor)) is not None]
    judge = _Judge(checkpoint, least, top, exact_up_to)
    rows: list[dict[str, Any] | None] = [None] * len(wanted)
    for done, (place, row) in enumerate(_in_turn(judge, wanted), start=1):
        rows[place] = row
        if progress is not None:
            progress(done, len(wanted), wanted[place][0].name)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def band_of(alpha: float | None) -> str | None:
    """WeightWatcher's name for an exponent: over-trained, good or under-trained; None where there is none.

    >>> [band_of(alpha) for alpha in (1.5, 3.0, 7.0, None)]
    ['over-trained', 'good', 'under-trained', None]
    """
    if alpha is None:
        return None
    return "over-trained" if alpha < BANDS[0] else "good" if alpha <= BANDS[1] else "under-trained"


def _checked(roles: Sequence[Role], **limits: int) -> None:
    for role in roles:
        if role not in get_args(Role):
            raise ValueError(unknown_name("role", role, get_args(Role)))
    for name, value in limits.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def _in_turn(judge: _Judge, wanted: list[tuple[Tensor, Unfolding]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their places as they are done: small matrices several at once, large ones alone with all cores."""
    small = [i for i, (_, seen) in enumerate(wanted) if seen.side <= _TOGETHER]
    small.sort(key=lambda i: -wanted[i][0].elements * wanted[i][1].side)  # the longest first: no core waits for it
    large = [i for i, (_, seen) in enumerate(wanted) if seen.side > _TOGETHER]
    workers = min(os.cpu_count() or 1, _WORKERS, len(small))
    one_core = _one_core() if len(small) > 1 else None
    with one_core or nullcontext():
        # without the limit each LAPACK call takes all cores: then one at a time
        yield from _mapped(judge, wanted, small, workers if one_core is not None else 1)
    yield from _mapped(judge, wanted, large, 1)


def _mapped(
    judge: _Judge, wanted: list[tuple[Tensor, Unfolding]], places: list[int], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    if workers <= 1:
        yield from ((i, judge.row(*wanted[i])) for i in places)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from zip(places, pool.map(lambda i: judge.row(*wanted[i]), places), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _one_core() -> AbstractContextManager[object] | None:
    """A limit of LAPACK to one core a call; None where threadpoolctl is not installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return None
    limit: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limit


class _Judge:
    """Rows of one checkpoint; opening its tensors is kept to one thread at a time."""

    def __init__(self, checkpoint: Checkpoint, least: int, top: int, exact_up_to: int) -> None:
        self.checkpoint, self.least, self.top, self.exact_up_to = checkpoint, least, top, exact_up_to
        self._opening = Lock()

    def row(self, tensor: Tensor, seen: Unfolding) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(SCHEMA)
        row |= {"name": tensor.name, "parameter": tensor.parameter or tensor.name, "role": tensor.role}
        row |= {"dtype": tensor.dtype, "rows": seen.rows, "columns": seen.columns, "matrices": seen.count}
        unreadable = _no_numbers(tensor)
        if unreadable:
            return row | {"reason": unreadable}
        with self._opening:
            raw = self.checkpoint.array(tensor)
        try:
            if seen.side <= self.exact_up_to:
                squares = [eigenvalues(one, tensor) for one in slices(raw, tensor)]
                return row | self._exact(np.sort(np.concatenate(squares))[::-1], seen)
            return row | self._largest(raw, tensor, seen)
        finally:
            del raw
            self.checkpoint.release(tensor)

    def _exact(self, squares: NDArray[np.float64], seen: Unfolding) -> dict[str, Any]:
        """What all squared singular values, descending, say."""
        if not np.isfinite(squares).all():
            return {"reason": "NaN or infinite values"}
        values = np.sqrt(squares)
        found = _norms(values[: self.top], float(squares.sum())) | {"exact": True, "rank": int((squares > 0).sum())}
        if not values[0]:
            return found | {"reason": "zeros only"}
        share = values[values > 0] / values.sum()
        found["effective_rank"] = float(np.exp(-(share * np.log(share)).sum()))
        return found | self._alpha(squares, seen)

    def _alpha(self, squares: NDArray[np.float64], seen: Unfolding) -> dict[str, Any]:
        scale = _KERNEL if seen.kernel else 1.0
        fitted = squares[squares * scale > FITTED_FROM]
        if fitted.size < self.least:
            above = "" if fitted.size == squares.size else f" whose square is above {FITTED_FROM:g}"
            return {"reason": f"{fitted.size} singular values{above}; {self.least} are needed"}
        law = fit_power_law(fitted)
        if law is None:
            return {"reason": "all singular values are equal"}
        return {
            "alpha": law.alpha,
            "alpha_error": law.error,
            "x_min": law.x_min,
            "ks_distance": law.distance,
            "tail": law.tail,
            "alpha_weighted": law.alpha * math.log10(scale * float(squares[0])),
            "band": band_of(law.alpha),
        }

    def _largest(self, raw: NDArray[np.generic], tensor: Tensor, seen: Unfolding) -> dict[str, Any]:
        """What the largest singular values of large matrices say."""
        parts = [largest_singular_values(one, tensor, self.top) for one in slices(raw, tensor)]
        squares = sum(part.frobenius**2 for part in parts)
        if not math.isfinite(squares):
            return {"reason": "NaN or infinite values"}
        values = np.sort(np.concatenate([part.values for part in parts]))[::-1][: self.top]
        reason = f"only the largest singular values were computed: both sides exceed {self.exact_up_to:,}"
        return _norms(values, squares) | {
            "exact": False,
            "error": max(part.error for part in parts),
            "reason": reason if squares else "zeros only",
        }


def _no_numbers(tensor: Tensor) -> str | None:
    """Why no matrix can be made of the tensor's values; None where one can."""
    if DTYPES[tensor.dtype].kind == "complex":
        return "complex numbers"
    if tensor.layout != "strided":
        return f"a {tensor.layout} tensor"
    return None if tensor.elements else "no elements"


def _norms(values: NDArray[np.float64], squares: float) -> dict[str, Any]:
    largest = float(values[0])
    return {
        "singular_values": values.tolist(),
        "spectral_norm": largest,
        "frobenius_norm": math.sqrt(squares),
        "stable_rank": squares / largest**2 if largest else None,
    }
