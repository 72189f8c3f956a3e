"""Where checks of a user's own come from: files that the user names, and other packages' entry points."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from analysis.custom_checks import CustomCheck, forget, registered
from eventstream.errors import InputError
from parsers.settings import Settings

__all__ = ["GROUP", "load_checks", "load_declared", "own_checks"]

GROUP = "aftertrain.checks"
_loaded: dict[Path, tuple[str, ...]] = {}


def own_checks() -> dict[str, CustomCheck]:
    """The checks that are not ours, by kind: those registered in this process, and those of installed packages.

    A package names a module, or a decorated function, in the group `aftertrain.checks`:

        [project.entry-points."aftertrain.checks"]
        ours = "our_package.our_checks"

    One that cannot be loaded, or registers nothing, is told once in a warning and stops nothing.

    >>> sorted(own_checks())
    []
    """
    _from_packages()
    return registered()


@cache
def _from_packages() -> None:
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        wrong = _wrong(entry)
        if wrong:
            whose = entry.dist.name if entry.dist else entry.value
            warnings.warn(f"checks {entry.name!r} of {whose}: {wrong}", UserWarning, stacklevel=2)


def _wrong(entry: EntryPoint) -> str:
    before = set(registered())
    try:
        found = entry.load()
    except Exception as error:  # noqa: BLE001 - importing foreign code may raise anything, and must not stop the rest
        return f"cannot be loaded ({type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]})"
    known = any(one.function is found for one in registered().values())
    return "" if known or set(registered()) - before else f"{entry.value} registers no check (see at.check)"


def load_checks(path: Path | str) -> tuple[str, ...]:
    """Run a Python file of the user's that registers checks (`at.check`), and give their kinds.

    Only files that the user names are run, never one that is found. A file is run once in a process. Raises
    `InputError`, which names the file and the error, for one that cannot be read, fails, or registers no check; what it
    had registered until then is taken out again.
    """
    place = Path(path).absolute().resolve()
    if place in _loaded:
        return _loaded[place]
    if place.suffix != ".py" or not place.is_file():
        raise InputError(f"{path}: a Python file with checks was expected (name.py)")
    before = set(registered())
    name = f"aftertrain_checks_{place.stem}_{sha256(str(place).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, place)
    assert found is not None and found.loader is not None  # what ends in .py has both
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _take_back(name, before)
        raise InputError(f"{path}: the checks cannot be loaded ({type(error).__name__}: {error})") from error
    kinds = tuple(kind for kind in registered() if kind not in before)
    if not kinds:
        _take_back(name, before)
        raise InputError(f'{path}: registers no check; a check is a function under @at.check("its-kind", ...)')
    _loaded[place] = kinds
    return kinds


def load_declared(settings: Settings, reading: Iterable[str | Path], *, named: bool) -> None:
    """Run the files of checks that settings name, where these are the user's.

    Settings that were found, and not `named` by the user, may lie in the folder of logs that somebody else wrote:
    where they, or a file that they name, lie within one of the paths that are read, `InputError` says what to do.
    """
    if settings.checks and not named:
        read = [Path(path).absolute().resolve() for path in reading]
        for place in (settings.path, *settings.checks):
            if place is not None and any(place.resolve().is_relative_to(path) for path in read):
                raise InputError(
                    f"{place} lies within what is read, and names or holds checks to run: nothing of a folder of logs "
                    f"is run unasked; say --config {settings.path} if it is yours, or --checks FILE.py"
                )
    for path in settings.checks:
        load_checks(path)


def _take_back(name: str, before: set[str]) -> None:
    sys.modules.pop(name, None)
    for kind in set(registered()) - before:
        forget(kind)
