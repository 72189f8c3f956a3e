"""Gradients, updates and clipping of a run by model, quantity and layer, whoever logged them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parsers.naming.role_layout import SeriesRole
from parsers.run import Run

__all__ = ["WHOLE", "Model", "Track", "models_of", "natural", "rates_of", "stacks_of", "standing_for", "together"]

#: The layer of what is measured of a model as a whole.
WHOLE = ""
#: Names as `watch` records them: a prefix of the user's, the quantity, and the layer.
_WATCHED = re.compile(
    r"^(?:(?P<model>.+?)/)?(?:shard_)?(?P<quantity>grad_norm_after_clip|grad_norm|param_norm|update_ratio|zero_grads"
    r"|dead_units|clip_rate|amp_skipped_count)(?:/(?P<layer>.+))?$"
)
#: Lightning's and others' norms of layers: `grad_2.0_norm/encoder.weight`, `grad_norm/layers.11.attn`.
_OF_LAYER = re.compile(r"^(?:(?P<model>.+?)/)?[\w.]*grad[\w.]*norm[\w.]*/(?P<layer>.+)$", re.IGNORECASE)
_ALL = frozenset({"total", "all", "global", "overall"})
_SKIPPED = re.compile(r"skipped[ _](?:steps?|iterations?|updates?)|overflow[ _]?(?:count|steps?)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)")
_Tracks = dict[tuple[str, str], "Track"]
#: What two norms that are the same differ by at most, as logs print few digits; and in how many of the rows.
_EQUAL, _MOSTLY, _FEWEST = 0.01, 0.9, 5


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One quantity of one layer (`WHOLE` for the model) over steps; row numbers stand where the log has no steps."""

    model: str
    quantity: str
    layer: str
    metric: str
    split: str
    stepped: bool
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def step_at(self, row: int) -> int | None:
        """Step of a row; None where the log has none."""
        return int(self.steps[row]) if self.stepped else None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What is logged of one model: its tracks by quantity and layer."""

    name: str
    tracks: Mapping[tuple[str, str], Track]

    def get(self, quantity: str, layer: str = WHOLE) -> Track | None:
        """One track, None where it is not logged."""
        return self.tracks.get((quantity, layer))

    def layers(self, quantity: str) -> dict[str, Track]:
        """Layer -> track, in the natural order of their names; the model as a whole is none."""
        found = {layer: track for (what, layer), track in self.tracks.items() if what == quantity and layer != WHOLE}
        return {layer: found[layer] for layer in sorted(found, key=natural)}

    def title(self, layer: str = WHOLE) -> str:
        """The layer with its model's name before it, as the log has them."""
        return "/".join(part for part in (self.name, layer) if part)


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Key to sort by, in which numbers count as numbers.

    >>> sorted(["layers.10", "layers.9", "head"], key=natural)
    ['head', 'layers.9', 'layers.10']
    """
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _NUMBER.split(name))


def stacks_of(layers: list[str]) -> list[list[str]]:
    """Layers that are named alike but for their numbers, three or more, in the order of these: depth as names tell it.

    >>> stacks_of(["head", "block.10.fc", "block.2.fc", "block.1.fc", "0", "2"])
    [['block.1.fc', 'block.2.fc', 'block.10.fc']]
    """
    found: dict[str, list[str]] = {}
    for layer in sorted(layers, key=natural):
        found.setdefault(re.sub(r"\d+", "#", layer), []).append(layer)
    return [stack for name, stack in found.items() if "#" in name and len(stack) >= 3]


def models_of(run: Run) -> tuple[Model, ...]:
    """The models whose gradients, updates, clipping or loss scale the run logs, of its lowest rank, live branch."""
    named = {(one.split, one.tag): found for one in run.roles if one.side == "train" and (found := _place(one))}
    if not named:
        return ()
    # A user may have said of a series that it is none of these: the role decides, and the name says which layer.
    models: dict[str, _Tracks] = {}
    for split, tag, metric, stepped, steps, values in _rows(run, [tag for _, tag in named]):
        place = named.get((split, tag))
        if place is not None:
            model, quantity, layer = place
            track = Track(model, quantity, layer, metric, split, stepped, steps, values)
            models.setdefault(model, {}).setdefault((quantity, layer), track)
    return tuple(Model(name, tracks) for name, tracks in sorted(_with_wholes(models).items()))


def _place(one: SeriesRole) -> tuple[str, str, str] | None:
    """Model, quantity and layer of a series; None for what is no gradient's, update's or loss scaler's."""
    if one.role == "loss_scale":
        return "", "loss_scale", WHOLE
    if one.role == "counter" and not _WATCHED.match(one.metric):
        return ("", "skipped", WHOLE) if _SKIPPED.search(one.metric) else None
    watched = _WATCHED.match(one.metric)
    if watched and one.role in ("grad_norm", "param_norm", "gradient_share", "counter"):
        quantity = watched["quantity"].replace("amp_skipped_count", "skipped")
        # The loss scaler is one for all models, and so is its count.
        return "" if quantity == "skipped" else watched["model"] or "", quantity, watched["layer"] or WHOLE
    if one.role != "grad_norm":
        return None
    layered = _OF_LAYER.match(one.metric)
    if layered and layered["layer"].lower() not in _ALL:
        return layered["model"] or "", "grad_norm", layered["layer"]
    return one.metric, "grad_norm", WHOLE


_Row = tuple[str, str, str, bool, NDArray[np.float64], NDArray[np.float64]]


def _rows(run: Run, tags: list[str]) -> Iterator[_Row]:
    """Split, tag, metric, whether there are steps, steps and values of each series."""
    wanted = ("rank", "attempt", "step", "split", "metric", "tag", "value")
    rows = run.lazy().filter(pl.col("tag").is_in(tags)).select(wanted).collect()
    if rows["value"].null_count():  # asked of the log itself, this would have all its series read
        rows = rows.filter(pl.col("value").is_not_null())
    if rows["rank"].n_unique() > 1:
        rows = rows.filter(pl.col("rank") == pl.col("rank").min())
    if run.last_attempt:
        rows = run.live(rows)
    for split, tag, part in _parts(rows):
        stepped = part["step"].null_count() == 0
        steps = part["step"].cast(pl.Float64).to_numpy() if stepped else np.arange(float(part.height))
        yield split, tag, str(part["metric"][0]), stepped, steps, part["value"].to_numpy()


def _parts(rows: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Split, tag and rows of each series, as slices where its rows stand together; the order of rows stays."""
    changes = [pl.col(name).ne_missing(pl.col(name).shift()) for name in ("split", "tag")]
    starts = rows.select(pl.any_horizontal(changes).arg_true()).to_series().to_list()
    marks = sorted({0, *starts, rows.height}) if rows.height else []
    spans = [(*rows.select("split", "tag").row(start), start, stop) for start, stop in itertools.pairwise(marks)]
    if len({(split, tag) for split, tag, _, _ in spans}) == len(spans):
        for split, tag, start, stop in spans:
            yield split, tag, rows.slice(start, stop - start)
    else:  # splits or attempts of one tag alternate
        for (split, tag), part in rows.group_by("split", "tag", maintain_order=True):
            yield str(split), str(tag), part


def _with_wholes(models: dict[str, _Tracks]) -> dict[str, _Tracks]:
    """The models, those of which the layers alone are logged with the norm of all of these together.

    One that is logged under a name of its own (Lightning's `grad_2.0_norm_total` beside `grad_norm/0`) is no model
    besides: it is the norm of those layers whose root sum of squares it is.
    """
    alone = [name for name, tracks in models.items() if list(tracks) == [("grad_norm", WHOLE)]]
    whole = dict(models)
    for name, tracks in models.items():
        layers = [track for (quantity, layer), track in tracks.items() if quantity == "grad_norm" and layer]
        if ("grad_norm", WHOLE) in tracks or len(layers) < 2:
            continue
        norm = _norm_of_all(name, layers)
        logged = next((one for one in alone if one in whole and _same(norm, whole[one]["grad_norm", WHOLE])), None)
        if logged is not None:
            norm = replace(whole.pop(logged)["grad_norm", WHOLE], model=name)
        if len(norm.values):
            whole[name] = {("grad_norm", WHOLE): norm, **tracks}
    return whole


def _norm_of_all(name: str, layers: list[Track]) -> Track:
    steps, values = together(layers)
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.square(values).sum(0))
    first = layers[0]
    return Track(name, "grad_norm", WHOLE, "grad_norm of all layers", first.split, first.stepped, steps, norm)


def _same(one: Track, other: Track) -> bool:
    """Whether two norms are equal, but for the digits that a log prints."""
    both = together([one, other])[1] if one.split == other.split else np.empty((2, 0))
    known = both[:, np.all(np.isfinite(both) & (both > 0), axis=0)]
    return known.shape[1] >= _FEWEST and bool(np.mean(np.abs(np.log(known[0] / known[1])) <= _EQUAL) >= _MOSTLY)


def together(tracks: list[Track]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps that all tracks have, and their values there, one row a track; of repeated steps the last value counts.

    >>> one = Track("", "grad_norm", "a", "", "", True, np.array([1.0, 2.0]), np.array([5.0, 6.0]))
    >>> two = Track("", "grad_norm", "b", "", "", True, np.array([2.0, 3.0]), np.array([7.0, 8.0]))
    >>> together([one, two])
    (array([2.]), array([[6.],
           [7.]]))
    """
    first = tracks[0].steps
    if all(len(track.steps) == len(first) and np.array_equal(track.steps, first) for track in tracks):
        return first, np.stack([track.values for track in tracks])
    last = [{step: row for row, step in enumerate(track.steps.tolist())} for track in tracks]
    common = sorted(set(last[0]).intersection(*last[1:]))
    rows = [[found[step] for step in common] for found in last]
    picked = [track.values[row] for track, row in zip(tracks, rows, strict=True)]
    return np.array(common, dtype=np.float64), np.array(picked, dtype=np.float64).reshape(len(tracks), len(common))


def standing_for(run: Run, name: str) -> Track | None:
    """The series that stands for the run as `name` (a role, or `train_loss`); None where there is none."""
    chosen = run.roles[name]
    if chosen.tag is None:
        return None
    return next((track for track in _plain(run, name, [chosen.tag]) if track.split == chosen.split), None)


def rates_of(run: Run) -> tuple[Track, ...]:
    """The learning rates of all groups of parameters."""
    tags = [one.tag for one in run.roles if one.role == "learning_rate" and one.side == "train"]
    return tuple(_plain(run, "learning_rate", tags)) if tags else ()


def _plain(run: Run, quantity: str, tags: list[str]) -> Iterator[Track]:
    for split, _, metric, stepped, steps, values in _rows(run, tags):
        yield Track("", quantity, WHOLE, metric, split, stepped, steps, values)
