"""The global that a pickle names: its dotted name of today, and whether this package knows what it makes."""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import TYPE_CHECKING

from parsers.checkpoints.inert_objects import Named
from parsers.checkpoints.pickle_risks import risk_of

if TYPE_CHECKING:
    from parsers.checkpoints.pickle_machine import Builders

__all__ = ["global_named"]

#: A name longer than this is cut: no package has one, and messages show it.
LONGEST_NAME = 300


def global_named(module: str, name: str, builders: Builders) -> Named:
    """The global as a name; names of Python 2 are those that they have today, as Python's own unpickler reads them.

    >>> global_named("__builtin__", "eval", {}).name
    'builtins.eval'
    """
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[(module, name)]
    else:
        module = IMPORT_MAPPING.get(module, module)
    whole = f"{module}.{name}"
    if not whole.replace(".", "").isidentifier():
        whole = whole.encode("unicode_escape").decode("ascii")
    whole = whole[:LONGEST_NAME]
    known = whole in builders
    return Named(whole, known, "unknown" if known else risk_of(module, name))
