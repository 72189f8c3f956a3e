"""Dialects of the user: a TOML file with regular expressions whose named groups say what stands where."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream.errors import InputError, unknown_name
from parsers.text_logs.dialect import PAIRS, Dialect, Pattern, groups_of

__all__ = ["from_toml"]

_DIALECT_KEYS = ("name", "what", "pattern", "names", "metrics", "scale", "carry", "first_step")
_PATTERN_KEYS = ("contains", "regex", "style", "opening", "split", "roles", "setting")
_CARRIED = ("step", "epoch", "split", "time")


def from_toml(path: str | Path) -> tuple[Dialect, ...]:
    """The dialects that a TOML file declares.

    Each `[[dialect]]` has a `name` and one or more `[[dialect.pattern]]` with `regex`: a regular expression with named
    groups. `step`, `epoch`, `time`, `split` and `rank` place the line; `planned_steps` is the number
    of steps that it counts towards (`step 7/100`); every other group is a number under its name; `pairs` holds a
    sequence of names and numbers in a `style` (one of `parsers.text_logs.dialect.PAIRS`); `key` and `value` are one
    name and its number. Optional: `contains` (a text that must stand in the line: faster), `opening`
    (what begins such a line: lines that match it and not the whole are said to be damaged), `split`, `roles`,
    `setting`; for the dialect `what`, `names`, `metrics`, `scale` (name to factor), `carry` and `first_step`, as in
    `parsers.text_logs.dialect.Dialect`.

    The expressions run in Rust's `regex`, in time that grows only with the length of a line, so that none can
    hang; it has no look-around and no back-references. Lines beyond 20,000 bytes are not searched.
    Raises `InputError` that names the file and what is wrong in it.

    >>> import tempfile
    >>> text = '''
    ... [[dialect]]
    ... name = "mine"
    ... [[dialect.pattern]]
    ... regex = '^it (?P<step>[0-9]+) L=(?P<loss>[0-9.]+)$'
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.toml")
    ...     _ = path.write_text(text)
    ...     from_toml(path)[0].patterns[0].values
    ('loss',)
    """
    place = Path(path) if isinstance(path, str) else path
    try:
        declared = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML ({error})") from error
    entries = declared.get("dialect")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: no [[dialect]] in it; one needs a name and a [[dialect.pattern]] with a regex")
    try:
        return tuple(_dialect(entry) for entry in entries)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _dialect(entry: Any) -> Dialect:
    _known(entry, _DIALECT_KEYS, "key of [[dialect]]")
    name = _text(entry, "name", "[[dialect]]")
    patterns = entry.get("pattern")
    if not isinstance(patterns, list) or not patterns:
        raise InputError(f"dialect {name!r} has no [[dialect.pattern]]")
    carry = entry.get("carry", [])
    if not isinstance(carry, list) or not set(carry) <= set(_CARRIED):
        raise InputError(f"dialect {name!r}: carry is {carry!r}; allowed are {', '.join(_CARRIED)}")
    first = entry.get("first_step")
    if first is not None and type(first) is not int:
        raise InputError(f"dialect {name!r}: first_step is {first!r}, not a whole number")
    scale = _mapping(entry, "scale", (int, float))
    return Dialect(
        name,
        str(entry.get("what", name)),
        tuple(_pattern(p, name) for p in patterns),
        names=_mapping(entry, "names", str),
        metrics=_mapping(entry, "metrics", str),
        scale={key: float(value) for key, value in scale.items()},
        carry=tuple(carry),
        first_step=first,
    )


def _pattern(entry: Any, dialect: str) -> Pattern:
    _known(entry, _PATTERN_KEYS, "key of [[dialect.pattern]]")
    regex = _text(entry, "regex", f"a pattern of {dialect!r}")
    groups = groups_of(regex)
    if not groups:
        raise InputError(f"the regular expression {regex[:80]!r} has no named group (?P<name>...)")
    if ("key" in groups) != ("value" in groups):
        raise InputError(f"the regular expression {regex[:80]!r} has one of the groups key and value: both are needed")
    style = entry.get("style", "any" if "pairs" in groups else "")
    if style and style not in PAIRS:
        raise InputError(unknown_name("style", str(style), PAIRS))
    opening = entry.get("opening", "")
    if opening:
        groups_of(str(opening))
    return Pattern(
        str(entry.get("contains", "")),
        regex,
        style,
        opening=str(opening),
        split=str(entry.get("split", "")),
        roles=_mapping(entry, "roles", str),
        setting=bool(entry.get("setting", False)),
    )


def _known(entry: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(entry, Mapping):
        raise InputError(f"a {what} where a table was expected")
    for key in entry:
        if key not in keys:
            raise InputError(unknown_name(what, key, keys))


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} needs a {key} (a text), not {value!r}")
    return value


def _mapping(entry: Mapping[str, Any], key: str, kind: Any) -> dict[str, Any]:
    value = entry.get(key, {})
    if not isinstance(value, Mapping) or not all(isinstance(v, kind) for v in value.values()):
        raise InputError(f"{key} is {value!r}; a table of names was expected")
    return dict(value)
