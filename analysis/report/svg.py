"""matplotlib figures as inline SVG: themed by CSS variables, free of markup out of the log, always the same bytes."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from analysis.figures import COLOURS
from analysis.report.text import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["to_svg"]

#: Elements that a chart needs; whatever else a figure might bring (scripts, links, styles, foreign content) is dropped.
_ELEMENTS = {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "circle", "image"}
_ATTRIBUTES = {
    "id", "d", "style", "transform", "x", "y", "width", "height", "cx", "cy", "r", "viewBox", "clip-path", "href",
    "preserveAspectRatio", "fill", "stroke", "patternUnits",
}  # fmt: skip
_ELEMENTS |= {"pattern", "linearGradient", "stop"}
_VARIABLES = {value.lower(): f"var(--{name})" for name, value in COLOURS.items()}
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"(?:font-family: [^;]*(?:; |$)|(?<=px) '[^;]*(?=;|$))")
_DECIMALS = re.compile(r"-?\d+\.\d+")
_LOCAL_URL = re.compile(r"url\(#([^)]*)\)")
#: Formatters whose tick labels may be names out of a log.
_NAMES = {"FixedFormatter", "FuncFormatter", "StrCategoryFormatter", "IndexFormatter"}
#: Longest label kept in a figure; a longer one would push the axes out of the picture.
LABEL = 72


def to_svg(figure: Figure, *, label: str, key: str) -> Markup:
    """`figure` as an `<svg>` element to stand in a page, announced to screen readers as `label`.

    Colours of the house palette and all greys become CSS variables (`--blue`, `--ink`, `--muted`, `--grid`,
    `--paper`), so that one drawing serves light and dark. `key` goes in front of every id and must be unique in the
    page. Texts are made one line of at most 72 characters and are never read as mathematics. The figure is changed:
    save it before if it is needed as it was.

    >>> from analysis.figures import axes
    >>> svg = to_svg(axes(width=4, height=2).figure, label="an <empty> chart", key="f1")
    >>> svg.startswith('<svg viewBox="0 0 288 144" role="img" aria-label="an &lt;empty&gt; chart"'), "var(--ink)" in svg
    (True, True)
    """
    import matplotlib as mpl

    _plain_texts(figure)
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "aftertrain", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    # Our own drawing, cleaned of control characters above: nothing in it defines or fetches an entity.
    root = ET.fromstring(buffer.getvalue())  # noqa: S314
    svg = _rewrite(root, key)
    made = ET.Element("svg", {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": clean(label, 300)})
    made.extend(svg)
    return Markup(ET.tostring(made, encoding="unicode"))  # noqa: S704 (serialised, so escaped, by ElementTree)


def _plain_texts(figure: Figure) -> None:
    """Texts from a log as they are; powers of ten, which matplotlib writes as mathematics, in plain digits."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

    for axes in figure.get_axes():
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_major_formatter()
            if isinstance(labels, LogFormatter):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
            elif type(labels).__name__ in _NAMES:
                _clean_labels(labels)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        lines = [clean(line, LABEL) for line in text.get_text().split("\n")[:3]]
        text.set_text("\n".join(lines))


def _clean_labels(formatter: Any) -> None:
    """Tick labels that are names are made anew at every drawing: clean them where they are made."""
    raw = formatter.format_ticks
    formatter.format_ticks = lambda values: [clean(label, LABEL // 2) for label in raw(values)]


def _rewrite(root: ET.Element, key: str) -> list[ET.Element]:
    used = {m for node in root.iter() for v in node.attrib.values() for m in _LOCAL_URL.findall(v)}
    used |= {v[1:] for node in root.iter() for k, v in node.attrib.items() if _local(k) == "href" and v[:1] == "#"}
    kept = _copy(root, lambda name: f"{key}-{name}" if name in used else None)
    return [] if kept is None else list(kept)


def _copy(node: ET.Element, rename: Callable[[str], str | None]) -> ET.Element | None:
    tag = _local(node.tag)
    if tag not in _ELEMENTS:
        return None
    made = ET.Element(tag, _attributes(node, rename))
    made.text = node.text if tag in ("text", "tspan") else None
    children = [_copy(child, rename) for child in node]
    made.extend(child for child in children if child is not None)
    if tag == "g" and not node.attrib.keys() - {"id"} and len(made) == 1 and "id" not in made.attrib:
        return made[0]  # matplotlib wraps each artist in groups that only carry an id nobody uses
    return made


def _attributes(node: ET.Element, rename: Callable[[str], str | None]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in node.attrib.items():
        name = _local(name)
        if name not in _ATTRIBUTES:
            continue
        if name == "id":
            renamed = rename(value)
            if renamed is not None:
                kept["id"] = renamed
        elif name == "href":
            if value.startswith("#"):
                kept["href"] = f"#{rename(value[1:])}"
            elif value.startswith("data:image/png;base64,"):
                kept["href"] = value
        elif name == "style":
            kept["style"] = _LOCAL_URL.sub(lambda m: f"url(#{rename(m[1])})", _style(value))
        elif name in ("fill", "stroke"):
            kept["style"] = f"{name}: {_style(value)}"  # variables are not read in presentation attributes
        elif name in ("d", "x", "y", "transform"):
            kept[name] = _DECIMALS.sub(_rounded, value) if "scale(0." not in value else value
        else:
            kept[name] = _LOCAL_URL.sub(lambda m: f"url(#{rename(m[1])})", value)
    return kept


def _style(style: str) -> str:
    style = _FONT.sub("", style) if "font:" not in style else _FONT.sub(" var(--sans)", style)
    return _HEX.sub(lambda m: _VARIABLES.get(m[0]) or _grey(m[0]), style).strip()


def _grey(colour: str) -> str:
    """The variable of a grey by its lightness; a colour that is none stays."""
    red, green, blue = colour[1:3], colour[3:5], colour[5:7]
    if not red == green == blue:
        return colour
    light = int(red, 16)
    name = "ink" if light < 0x50 else "muted" if light < 0xA0 else "grid" if light < 0xF0 else "paper"
    return f"var(--{name})"


def _rounded(match: re.Match[str]) -> str:
    # a tenth of a unit is a seventh of a pixel at the widest drawing
    return f"{float(match[0]):.1f}".removesuffix(".0")


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]
