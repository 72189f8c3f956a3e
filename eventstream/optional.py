"""Import of optional libraries: one helper that names the feature and the line that installs what is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from eventstream.errors import MissingDependencyError

__all__ = ["need"]


def need(module: str, *, feature: str, extra: str) -> ModuleType:
    """The imported module, or an error that says which feature wanted it and how to install it.

    `extra` is the aftertrain extra that brings it (`embeddings`, `checkpoints`, ...).

    >>> need("json", feature="reading", extra="all").__name__
    'json'
    >>> need("no_such_lib", feature="speaker maps", extra="embeddings")
    Traceback (most recent call last):
    ...
    eventstream.errors.MissingDependencyError: speaker maps needs no_such_lib: pip install 'aftertrain[embeddings]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependencyError(f"{feature} needs {module}: pip install 'aftertrain[{extra}]'") from error
