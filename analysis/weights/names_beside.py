"""Names of layers and saves beside a figure: short enough to leave it room, and as many as do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["names_beside", "saves_below", "short"]

#: Characters of a name beside a figure: the report's figures are 5 inches wide, and half of that belongs to the data.
_LONGEST = 30
#: Height of a line and width of a character, in multiples of the size of the letters.
_LINE, _CHARACTER = 1.3, 0.55
#: Share of a figure's height and width inside the axes once ticks and labels have taken theirs.
_HIGH, _WIDE = 0.8, 0.85


def short(name: str, longest: int = _LONGEST) -> str:
    """A parameter without `.weight`; of what is still longer than `longest` characters the last parts that fit.

    Control characters become question marks: no font has them.

    >>> short("head.weight"), short("encoder.transformer.layers.11.attention.self.query.weight"), short("")
    ('head', '…11.attention.self.query', '(no name)')
    """
    plain = name.removesuffix(".weight") or name or "(no name)"
    if len(plain) > longest:
        end = plain[1 - longest :]
        whole = end if plain[-longest] == "." else end.partition(".")[2]
        plain = f"…{whole if 2 * len(whole) > longest else end}"
    return "".join(character if character.isprintable() else "?" for character in plain)


def names_beside(ax: Axes, names: Sequence[str], *, middle: float = 0.0) -> None:
    """`names` on the vertical axis, the first on top, at 0, 1, ... plus `middle`; of many every n-th."""
    every = -(-len(names) // max(int(_inches(ax)[1] * _HIGH * 72 / (_size(ax) * _LINE)), 1)) if names else 1
    places = range(0, len(names), every)
    ax.set_yticks([place + middle for place in places], [short(names[place]) for place in places], parse_math=False)
    ax.invert_yaxis()


def saves_below(ax: Axes, marks: Sequence[str], beside: Sequence[str], *, middle: float = 0.0) -> None:
    """Steps or names of saves on the horizontal axis, as many as there is room for to the right of `beside`."""
    size, shown = _size(ax) / 72, [short(mark, 16) for mark in marks]
    taken = max((len(short(name)) for name in beside), default=0)
    # a colour bar with its numbers and its label takes most of an inch
    room = _inches(ax)[0] * _WIDE - taken * size * _CHARACTER - 0.9
    fits = int(room / (size * _CHARACTER * (max(map(len, shown), default=0) + 2)))
    every = -(-len(shown) // max(fits, 1)) if shown else 1
    places = range(0, len(shown), every)
    ax.set_xticks([place + middle for place in places], [shown[place] for place in places], parse_math=False)


def _inches(ax: Axes) -> tuple[float, float]:
    """How wide and high the place of the axes is; constrained layout gives ticks and labels a part of it."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that draw stand in a figure
    place = ax.get_subplotspec()
    grid = (1, 1) if place is None else place.get_gridspec().get_geometry()
    width, height = figure.get_size_inches().tolist()
    return width / grid[1], height / grid[0]


def _size(ax: Axes) -> float:
    """Points of the letters beside the ticks."""
    return float(ax.yaxis.get_major_ticks(1)[0].label1.get_fontsize())
