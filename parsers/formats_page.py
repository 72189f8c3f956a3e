"""The page that says what is read from each format, made from the registry and the docstrings of the parsers.

`python -m parsers.formats_page docs/formats.md` writes it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from itertools import groupby
from pathlib import Path

from parsers.registry import FORMATS, Format

__all__ = ["page"]

_HEAD = """# Formats

What `at.load(path)` and `aftertrain ls` read. Formats are told by what stands in a file, in the order of this page;
names only decide which files of a tree are looked into. Any of them may stand inside a `.zip`, `.tar`, `.tar.gz`,
`.tar.zst`, `.tar.xz` or `.tar.bz2`, or be compressed with `.gz`, `.zst`, `.xz` or `.bz2`, and is read without being
unpacked to disk; URLs are read through fsspec (`pip install 'aftertrain[scale]'`). Formats of other packages register
under the entry point group `aftertrain.formats`. This page is generated:
`python -m parsers.formats_page docs/formats.md`.

`at.load_all(folder)` reads a whole tree and keeps what it read in the user's cache folder under a key of the content,
so that the next call reads only what changed; `at.load(path, run="name")` chooses one of several runs, by name, path
or identifier; `histograms=True` makes scalars of TensorBoard's histograms.

A text log that prints its numbers in a form of its own is described by a few lines of TOML, given as `at.load(path,
dialects="mine.toml")` or `aftertrain check --dialects mine.toml PATH` (`parsers.text_logs.dialect_toml.from_toml` says
all that may stand there):

```toml
[[dialect]]
name = "mine"
[[dialect.pattern]]
regex = '^it (?P<step>[0-9]+) L=(?P<loss>[0-9.]+)$'  # step, epoch, time, split, rank; the rest are numbers
```
"""


def page() -> str:
    """The whole page as Markdown; formats that one module reads stand together.

    >>> page().splitlines()[0]
    '# Formats'
    """
    modules = [(module, list(group)) for module, group in groupby(FORMATS, key=lambda f: f.module)]
    return "\n".join([_HEAD, _contents(), *(_section(module, group) for module, group in modules)])


def _contents() -> str:
    rows = [f"| `{f.name}` | {_names(f)} | {_cell(f.what)} |" for f in FORMATS]
    return "\n".join(["| format | files | what |", "|---|---|---|", *rows, ""])


def _names(format: Format) -> str:
    return ("folder with " if format.folder else "") + ", ".join(f"`{p}`" for p in format.patterns)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(module: str, formats: list[Format]) -> str:
    found = importlib.import_module(module)
    title = ", ".join(f"`{f.name}`" for f in formats)
    return "\n".join([f"## {title}\n", _first(found.__doc__), "", _told(found.read.__doc__)])


def _first(doc: str | None) -> str:
    return inspect.cleandoc(doc or "").split("\n\n")[0]


def _told(doc: str | None) -> str:
    """A docstring without its examples."""
    paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    return "\n\n".join(p for p in paragraphs if not p.lstrip().startswith(">>>")) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
