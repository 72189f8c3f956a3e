"""What a project says to every analysis of its runs: `aftertrain.toml`, or `[tool.aftertrain]` in `pyproject.toml`."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eventstream.errors import InputError, unknown_name
from parsers.naming.role_overrides import overrides_of, unmatched
from parsers.run import RunSet

__all__ = ["NAMES", "GivenRoles", "Settings", "find_settings", "given_roles", "read_settings"]

#: Looked for in each folder, in this order.
NAMES = ("aftertrain.toml", "pyproject.toml")


@dataclass(frozen=True)
class Settings:
    """The tables of a settings file; `path` is None where there is none, and every table is empty.

    `roles` maps names of metrics, or globs, to what they are (see `parsers.run.Run.with_roles`); `findings` are the
    rules for findings, which `analysis.rules.rules_of` reads. `checks` are the files with checks of the project's own
    that the file names, taken from its folder; nothing here runs them (`analysis.check_sources.load_checks` does).
    """

    path: Path | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Path, ...] = ()

    def applied(self, runs: RunSet) -> tuple[RunSet, list[str]]:
        """The runs with the roles that the file gives, and a sentence for each entry that names no series in any.

        A file serves all runs of a project: what fits none of these may fit others, and is no error.
        """
        if not self.roles:
            return runs, []
        said = overrides_of(self.roles, f"in {self.path}")
        known = [one for run in runs for one in run.roles]
        found = tuple(run.overridden(said) for run in runs)
        return replace(runs, runs=found), [f"{self.path}: {told}" for told in unmatched(known, said)]


#: Roles as a caller gives them: a mapping, or the settings file that holds one.
GivenRoles = Mapping[str, str] | Path | str


def given_roles(runs: RunSet, roles: GivenRoles) -> RunSet:
    """The runs with roles from a mapping (`RunSet.with_roles`), or from a settings file.

    A name that fits no series is an error in a mapping; in a file, which serves other runs too, it is a warning.
    """
    if isinstance(roles, Mapping):
        return runs.with_roles(roles)
    found, unused = read_settings(roles).applied(runs)
    for told in unused:
        warnings.warn(told, UserWarning, stacklevel=3)
    return found


def find_settings(start: Path | str | None = None) -> Settings:
    """The settings of the nearest folder that has some: `start` (default the current one), else the folders above.

    In each folder `aftertrain.toml` goes before `pyproject.toml`, which counts only with a table `[tool.aftertrain]`;
    files further above are not read. None anywhere gives empty settings. Raises `InputError` as `read_settings` does.

    >>> find_settings("/").path is None
    True
    """
    try:
        here = Path.cwd() if start is None else Path(start).absolute()
    except FileNotFoundError:  # the current folder was removed meanwhile: no settings stand in it, or above
        return Settings()
    for folder in (here, *here.parents):
        for name in NAMES:
            path = folder / name
            if path.is_file() and (name != "pyproject.toml" or _tool(_parsed(path)) is not None):
                return read_settings(path)
    return Settings()


def read_settings(path: Path | str) -> Settings:
    """The settings in a TOML file: of a `pyproject.toml` the table `[tool.aftertrain]`, of any other all of it.

    Raises `InputError`, which names the file and the key, for a file that cannot be read, is no TOML, or holds a table
    or a value that is not known.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "aftertrain.toml")
    ...     _ = path.write_text('[roles]\\nenergy = "train_loss"\\n')
    ...     read_settings(path).roles
    {'energy': 'train_loss'}
    """
    place = Path(path)
    declared, inside = _parsed(place), ""
    if place.name == "pyproject.toml":
        declared, inside = _tool(declared) or {}, "tool.aftertrain."
    read: dict[str, Any] = {}
    for key, value in declared.items():
        if key not in _TABLES:
            raise InputError(f"{path}: {unknown_name('table', f'{inside}{key}', [f'{inside}{k}' for k in _TABLES])}")
        try:
            read[key] = _TABLES[key](value)
        except ValueError as error:
            raise InputError(f"{path}: [{inside}{key}] {error}") from error
    read["checks"] = tuple(place.parent / name for name in read.get("checks", ()))
    return Settings(place, **read)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML ({error})") from error


def _tool(declared: Mapping[str, Any]) -> dict[str, Any] | None:
    tools = declared.get("tool")
    ours = tools.get("aftertrain") if isinstance(tools, dict) else None
    return ours if isinstance(ours, dict) else None


def _roles(table: Any) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ValueError(f"is {table!r}; a table of metrics and their roles was expected")
    overrides_of(dict(_flat(table)))
    return table


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            inner = next(iter(value), "...")
            raise ValueError(f"{key}.{inner} is read as a table in a table; put names with dots in quotes")
        yield key, value


def _findings(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"is {table!r}; a table of rules for findings was expected")
    return table


def _checks(table: Any) -> tuple[str, ...]:
    if not isinstance(table, dict):
        raise ValueError(f'is {table!r}; a table was expected, as in files = ["our_checks.py"]')
    for key in table:
        if key != "files":
            raise ValueError(unknown_name("key", key, ("files",)))
    files = table.get("files", [])
    if not isinstance(files, list) or not all(isinstance(name, str) and name.endswith(".py") for name in files):
        raise ValueError(f"files: is {files!r}; a list of Python files was expected")
    return tuple(files)


#: Table -> what reads and checks it; raises `ValueError` with what is wrong in it.
_TABLES: dict[str, Callable[[Any], Any]] = {"roles": _roles, "findings": _findings, "checks": _checks}
