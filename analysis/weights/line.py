"""The loss along the straight line between two saves: one basin, or a barrier between two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, style
from analysis.result import Result
from analysis.weights.model_state import (
    Loss,
    Numbers,
    as_tensor,
    fitting,
    floats,
    loss_at,
    model_tensors,
    numbers_of,
    whole,
)
from parsers.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SCHEMA", "LineResult", "line"]

Progress = Callable[[int, int, str], None]

SCHEMA: dict[str, type[pl.DataType]] = {"alpha": pl.Float64, "loss": pl.Float64, "straight": pl.Float64}


@dataclass(frozen=True, eq=False, repr=False)
class LineResult(Result):
    """The loss between two saves; columns of `frame`: `alpha` (0 is the first save, 1 the second), `loss`, `straight`.

    `straight` is what the loss would be if it changed evenly from end to end. `barrier` is the most that the loss lies
    above it, in units of the loss, and `barrier_at` where (Entezari et al. 2022, arXiv:2110.06296, definition 2.1;
    Frankle et al. 2020, arXiv:1912.05671, take the mean of both ends in its place); it is 0 or a rounding where the
    line goes through one basin. None where the loss is not finite at both ends. A loss that falls all the way, as from
    the first save to the last, has such a barrier too: the title of the figure tells it from a hill.
    """

    ends: tuple[str, str] = ("", "")
    barrier: float | None = None
    barrier_at: float | None = None

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The loss over the share of the way, beside the straight line from end to end. It takes no options."""
        if options:
            raise TypeError(f"plot takes no options, but was given {', '.join(options)}")
        ax = axes(ax)
        first, second = (name.replace("$", r"\$") for name in self.ends)
        with style():
            ax.plot(self.frame["alpha"], self.frame["straight"], color="0.5", linestyle="--", label="even change")
            ax.plot(
                self.frame["alpha"], self.frame["loss"], marker="o", markersize=4, color=COLOURS["blue"], label="loss"
            )
            ax.set_xlabel(f"share of the way from {first} to {second}")
            ax.set_ylabel("loss")
            ax.set_title(self._title())
            ax.legend(loc="best")
        return ax

    def _title(self) -> str:
        if self.barrier is None:
            return "the loss is not finite at both ends"
        # the rounding of a loss in float32
        least = 1e-6 * float(np.abs(self.frame["straight"].to_numpy()).max())
        if self.barrier <= least:
            return "no barrier between the saves: the loss is nowhere above an even change"
        losses = self.frame["loss"].to_numpy()
        over = float(np.where(np.isnan(losses), np.inf, losses).max()) - max(float(losses[0]), float(losses[-1]))
        if over <= least:  # above the straight line as any curve may be, but no hill to climb
            return (
                f"no hill between the saves: at most {self.barrier:.4g} above an even change, at {self.barrier_at:.2f}"
            )
        return f"a barrier of {self.barrier:.4g} at {self.barrier_at:.2f} of the way, {over:.4g} above the higher end"


def line(
    a: Checkpoint,
    b: Checkpoint,
    loss: Loss,
    *,
    points: int = 11,
    names: tuple[str, str] | None = None,
    run: str = "",
    progress: Progress | None = None,
) -> LineResult:
    """The loss at `points` places from save `a` to save `b`: see `LineResult` for the columns.

    At each place the weights are (1 - alpha) * a + alpha * b (Goodfellow, Vinyals and Saxe 2015, arXiv:1412.6544),
    computed in double precision and rounded to the type that `a` stores. `loss(state_dict)` is given
    torch tensors by the names that the model's own code has (`Tensor.parameter`: what wraps them in the file, as
    `state_dict.` or `module.`, taken off), fresh ones at every place; it returns a number. Counts, flags and other
    integers are those of the nearer end. Running statistics of normalisation are interpolated like weights: a barrier
    may be theirs alone (Jordan et al. 2023, arXiv:2211.08403); recompute them within `loss` to tell.

    Nothing of the loss is caught: what it raises passes through with a note of the place. `points` (default 11: the
    ends and every tenth between) is at least 2. `names` of both ends, `progress(done, total, place)`. Raises
    `InputError` where the two do not hold one model, or hold quantised or sparse weights, and
    `MissingDependencyError` without torch.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage, Tensor
    >>> def save(value):
    ...     place = Path(tempfile.mkdtemp()) / "weights.raw"
    ...     _ = place.write_bytes(np.array([value]).tobytes())
    ...     return Checkpoint(place, "raw", (Tensor("w", "float64", (1,), Storage(place, 0, 8), parameter="w"),))
    >>> bump = line(save(-1.0), save(1.0), lambda state: 1 - state["w"].item() ** 2, points=5)
    >>> bump.barrier, bump.barrier_at
    (1.0, 0.5)
    """
    whole("points", points, least=2)  # both ends
    fitting(a, b)
    alphas = np.linspace(0, 1, points).tolist()
    losses = []
    for done, alpha in enumerate(alphas, start=1):
        place = f"alpha {alpha:.4g} (point {done} of {points} on the line)"
        losses.append(loss_at(loss, _state(a, b, alpha), place))
        if progress is not None:
            progress(done, points, f"alpha {alpha:.4g}")
    return _result(run, names or (a.path.name, b.path.name), alphas, losses)


def _result(run: str, ends: tuple[str, str], alphas: list[float], losses: list[float]) -> LineResult:
    straight = [(1 - alpha) * losses[0] + alpha * losses[-1] for alpha in alphas]
    frame = pl.DataFrame({"alpha": alphas, "loss": losses, "straight": straight}, schema=SCHEMA)
    above = np.array(losses) - np.array(straight)
    if not np.isfinite([losses[0], losses[-1]]).all():
        return LineResult(run, frame, ends=ends)
    above = np.where(np.isnan(above), np.inf, above)  # a loss of NaN on the way is as high as a barrier gets
    place = int(above.argmax())
    return LineResult(run, frame, ends=ends, barrier=float(above[place]), barrier_at=alphas[place])


def _state(a: Checkpoint, b: Checkpoint, alpha: float) -> dict[str, Any]:
    """The model's state at one place of the line; the ends are what is stored, bit for bit."""
    others = model_tensors(b)
    state = {}
    for name, tensor in model_tensors(a).items():
        other = others[name]
        if floats(tensor) and floats(other) and (0 < alpha < 1 or tensor.dtype != other.dtype):
            state[name] = as_tensor(a, tensor, _between(numbers_of(a, tensor), numbers_of(b, other), alpha))
        else:
            near, stored = (a, tensor) if alpha < 0.5 else (b, other)
            state[name] = as_tensor(near, stored)
        a.release(tensor)
        b.release(other)
    return state


def _between(one: Numbers, other: Numbers, alpha: float) -> Numbers:
    if alpha in (0.0, 1.0):  # 0 times an infinity would be NaN
        return one if alpha == 0 else other
    return (1 - alpha) * one + alpha * other
