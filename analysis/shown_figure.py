"""A figure that a notebook shows by itself, although it belongs to no GUI and pyplot does not know it."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["ShownAxes", "ShownFigure"]

#: Dots per inch of the picture in a notebook: twice what screens of old had, so that it is sharp.
_DPI = 144


class ShownFigure(Figure):
    """A figure with the picture that Jupyter asks for; elsewhere it is as any other."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The picture, and the size at which to show it (CSS pixels)."""
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=_DPI)
        width, height = self.get_size_inches()
        return picture.getvalue(), {"width": round(96 * width), "height": round(96 * height)}


class ShownAxes(Axes):
    """Axes that show their figure, since `result.plot()` in the last line of a cell returns them."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]] | None:
        """The picture of the whole figure."""
        figure = self.get_figure(root=True)
        return figure._repr_png_() if isinstance(figure, ShownFigure) else None
