"""The loss on a plane through a save: two random directions as long as the weights, or towards two other saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.tensors import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RANDOM", "SCHEMA", "LandscapeResult", "landscape"]

Progress = Callable[[int, int, str], None]
Directions = Literal["random-filter-normalised"] | tuple[Checkpoint, Checkpoint]
Direction = NDArray[np.float32] | NDArray[np.float64]
#: The two directions of a tensor by its name; None for one that does not move.
Plane = Callable[[str], tuple[Direction, Direction] | None]

RANDOM: Literal["random-filter-normalised"] = "random-filter-normalised"
SCHEMA: dict[str, type[pl.DataType]] = {"x": pl.Float64, "y": pl.Float64, "loss": pl.Float64}


@dataclass(frozen=True, eq=False, repr=False)
class LandscapeResult(Result):
    """The loss around a save; one row a place: `x` and `y` in units of the two directions, and `loss`.

    The save itself lies at (0, 0). `axis_names` say what the directions are.
    """

    save: str = ""
    axis_names: tuple[str, str] = ("", "")

    @property
    def centre(self) -> float | None:
        """The loss of the save itself; None where the number of points is even, so that no place is the save."""
        found = self.frame.filter((pl.col("x") == 0) & (pl.col("y") == 0))["loss"]
        return float(found[0]) if len(found) else None

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Lines of equal loss, every second with its value; white where it is not finite. `levels` (default 20)."""
        levels = options.pop("levels", 20)
        if options:
            raise TypeError(f"plot takes levels, not {', '.join(options)}")
        ax = axes(ax, width=6.5, height=5.0)
        side = self.frame["x"].n_unique()
        x, y, values = (self.frame[name].to_numpy().reshape(side, side) for name in ("x", "y", "loss"))
        loss = np.ma.masked_invalid(values)
        with style():
            ax.grid(False)
            ax.set_xlabel(self.axis_names[0].replace("$", r"\$"))
            ax.set_ylabel(self.axis_names[1].replace("$", r"\$"))
            if loss.count() and loss.max() > loss.min():
                ax.contourf(x, y, loss, levels=levels, cmap="cividis")
                lines = ax.contour(x, y, loss, levels=levels, colors="white", linewidths=0.4)
                ax.clabel(lines, np.asarray(lines.levels)[::2].tolist(), fontsize=7, fmt="%.3g")
            ax.plot([0], [0], marker="o", color=COLOURS["vermilion"])
            ax.set_title(self._title(loss).replace("$", r"\$"))
        return ax

    def _title(self, loss: np.ma.MaskedArray[Any, Any]) -> str:
        if not loss.count():
            return f"the loss around {self.save} is nowhere finite"
        middle = "" if self.centre is None else f"{self.centre:.4g}, "
        return f"loss at {self.save[-32:]}: {middle}around it {loss.min():.4g} to {loss.max():.4g}"


def landscape(
    checkpoint: Checkpoint,
    loss: Loss,
    *,
    points: int = 11,
    span: float = 1.0,
    seed: int = 0,
    directions: Directions = RANDOM,
    name: str | None = None,
    run: str = "",
    progress: Progress | None = None,
) -> LandscapeResult:
    """The loss on points x points places of a plane through the save, from -span to span along both directions.

    With random directions (the default) each filter of a weight (a row of a matrix, an output channel of a kernel) gets
    a random direction that is as long as the filter itself, so that x = 1 changes every filter by its own size and
    landscapes of different models can be compared; biases, gains and statistics of normalisation (all tensors of
    fewer than two axes) stay where they are, as in Li et al. 2018, arXiv:1712.09913, section 4; tied weights move as
    one. `seed` chooses the directions: the picture of two directions out of millions is a sample, so look at more than
    one. With `directions=(b, c)`, two other saves of the model, (1, 0) is b and (0, 1) is c; all floats move, and the
    directions are taken as they are, neither of equal length nor at right angles.

    What `loss` is given and what passes through is as for `line`: a fresh state of torch tensors at every place, in the
    types that the save stores; integers are the save's own. An odd number of `points` (default 11, so 121 losses) holds
    the save itself, exactly as stored. The directions take twice the model's size in float32 while it runs. Raises
    ValueError for fewer than 2 points, a span that is not positive and finite, or other directions; `InputError` where
    saves are not of one model, or nothing in one can be moved at random; `MissingDependencyError` without torch.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage
    >>> place = Path(tempfile.mkdtemp()) / "weights.raw"
    >>> _ = place.write_bytes(np.eye(3).tobytes())
    >>> save = Checkpoint(place, "raw", (Tensor("w", "float64", (3, 3), Storage(place, 0, 72), parameter="w"),))
    >>> bowl = landscape(save, lambda state: float(((state["w"].numpy() - np.eye(3)) ** 2).sum()), points=3)
    >>> bowl.centre, round(bowl.frame["loss"][1], 6)  # at (-1, 0) each of three filters of length 1 is moved by 1
    (0.0, 3.0)
    """
    whole("points", points, least=2)
    if not 0 < span < np.inf:
        raise ValueError(f"span is {span}; it must be positive and finite")
    plane = _plane(checkpoint, directions, seed)
    ticks = (np.linspace(-1, 1, points) * span).tolist()
    places = [(x, y) for y in ticks for x in ticks]
    rows = []
    for done, (x, y) in enumerate(places, start=1):
        place = f"x {x:.4g}, y {y:.4g}"
        state = _state(checkpoint, plane, x, y)
        rows.append((x, y, loss_at(loss, state, f"{place} (place {done} of {len(places)} in the plane)")))
        if progress is not None:
            progress(done, len(places), place)
    save = name or checkpoint.path.name
    if isinstance(directions, tuple):
        axis_names = (f"towards {directions[0].path.name}", f"towards {directions[1].path.name}")
    else:
        axis_names = ("random direction 1 (norms of the filters)", "random direction 2 (norms of the filters)")
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return LandscapeResult(run, frame, save=save, axis_names=axis_names)


def _plane(checkpoint: Checkpoint, directions: Directions, seed: int) -> Plane:
    tensors = model_tensors(checkpoint)
    if directions == RANDOM:
        return _random_directions(checkpoint, tensors, seed).get
    if not (isinstance(directions, tuple) and len(directions) == 2):
        raise ValueError(f"directions is {directions!r}; it must be {RANDOM!r} or two other saves")
    for other in directions:
        fitting(checkpoint, other)
    others = [(other, model_tensors(other)) for other in directions]

    def towards(name: str) -> tuple[Direction, Direction] | None:
        here = tensors[name]
        if not all(floats(one) for one in (here, *(found[name] for _, found in others))):
            return None
        start = numbers_of(checkpoint, here)
        x, y = (numbers_of(other, found[name]) - start for other, found in others)
        return x, y

    return towards


def _random_directions(
    checkpoint: Checkpoint, tensors: dict[str, Tensor], seed: int
) -> dict[str, tuple[Direction, Direction]]:
    """Two Gaussian directions a tensor of two axes or more, each filter as long as the weight's."""
    made = np.random.default_rng(seed)
    found: dict[str, tuple[Direction, Direction]] = {}
    places: dict[object, str] = {}
    for name, tensor in tensors.items():
        if not floats(tensor) or len(tensor.shape) < 2:
            continue
        place = (tensor.storage, tensor.offset, tensor.strides, tensor.shape)
        first = places.setdefault(place, name) if tensor.storage is not None else name
        if first != name:  # tied weights move as one
            found[name] = found[first]
            continue
        weights = numbers_of(checkpoint, tensor)
        found[name] = (_as_long_as(weights, made), _as_long_as(weights, made))
        checkpoint.release(tensor)
    if not found:
        raise InputError(
            f"{checkpoint.path} holds no weights of two axes or more, which random directions move; "
            "pass directions=(b, c), two other saves"
        )
    return found


def _as_long_as(weights: Numbers, made: np.random.Generator) -> NDArray[np.float32]:
    drawn = made.standard_normal(weights.shape, np.float32)
    over = tuple(range(1, weights.ndim))
    own = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=over, keepdims=True))
    length = np.sqrt(np.square(drawn, dtype=np.float64).sum(axis=over, keepdims=True))
    drawn *= own / np.where(length > 0, length, 1)
    return drawn


def _state(checkpoint: Checkpoint, plane: Plane, x: float, y: float) -> dict[str, Any]:
    state = {}
    for name, tensor in model_tensors(checkpoint).items():
        directions = plane(name) if (x, y) != (0, 0) else None
        if directions is None:
            state[name] = as_tensor(checkpoint, tensor)
        else:
            start = numbers_of(checkpoint, tensor)
            state[name] = as_tensor(checkpoint, tensor, start + x * directions[0] + y * directions[1])
        checkpoint.release(tensor)
    return state
