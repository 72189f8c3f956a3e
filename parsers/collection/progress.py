"""How far long work is: a function of the caller, or a bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ["Progress", "shown"]

#: Called as `progress(done, total, path)`.
Progress = Callable[[int, int, str], None]


@contextmanager
def shown(progress: Progress | bool | None, what: str) -> Iterator[Progress | None]:
    """What is called with the progress: a bar where `progress` is True, the function itself, or None for nothing.

    In a notebook the bar is a widget where ipywidgets is installed, else text. Raises ValueError for anything else.

    >>> with shown(None, "reading") as progress:
    ...     print(progress)
    None
    """
    if progress is not True:
        if progress and not callable(progress):
            raise ValueError(f"progress is {progress!r}; it must be True, False, None or a function(done, total, path)")
        yield progress or None
        return
    bar = _bar()(desc=what, leave=False, file=sys.stderr)

    def tell(done: int, total: int, path: str) -> None:
        if bar.total != total:
            bar.reset(total)  # which shows it
        bar.set_postfix_str("".join(c if c.isprintable() else "?" for c in path)[-40:], refresh=False)
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        bar.close()


def _bar() -> Any:
    """The bar of a notebook only where its widgets are there: tqdm warns where they are not."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget

        return widget
    from tqdm import tqdm

    return tqdm
