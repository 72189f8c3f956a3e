"""What stands in for the callables of the standard library that pickles of data use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parsers.checkpoints.inert_objects import MisuseError, Named, Record, Span
from parsers.checkpoints.pickle_machine import Builders

__all__ = ["STANDARD", "records"]

ENCODINGS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")
#: Classes that hold data and do nothing when they are made, of the standard library and of OmegaConf, which Lightning
#: and fairseq keep their configuration in.
_DATA = """
    argparse.Namespace types.SimpleNamespace datetime.datetime datetime.date datetime.time datetime.timedelta
    datetime.timezone decimal.Decimal fractions.Fraction uuid.UUID uuid.SafeUUID ipaddress.IPv4Address builtins.object
    builtins.slice builtins.range builtins.NotImplemented builtins.Ellipsis functools.partial enum.Enum
    zoneinfo.ZoneInfo random.Random re._compile string.Template
    omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata
    omegaconf.base.Metadata omegaconf.nodes.AnyNode omegaconf.nodes.BooleanNode omegaconf.nodes.FloatNode
    omegaconf.nodes.IntegerNode omegaconf.nodes.StringNode omegaconf.nodes.PathNode omegaconf.nodes.EnumNode
    omegaconf.nodes.UnionNode omegaconf.base.UnionNode
    typing.Any typing.Union typing.Optional typing.List typing.Dict typing.Tuple builtins.NoneType types.NoneType
    builtins.int builtins.float builtins.str builtins.bool builtins.type
"""
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")


def records(names: str) -> dict[str, Callable[[tuple[Any, ...]], Any]]:
    """Builders that make a record of each of these names, separated by white space.

    >>> records("argparse.Namespace")["argparse.Namespace"](()).name
    'argparse.Namespace'
    """
    return {name: _recorder(name) for name in names.split()}


def _recorder(name: str) -> Callable[[tuple[Any, ...]], Any]:
    return lambda args: Record(name, args)


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    first = args[0] if args else {}
    if isinstance(first, dict):
        return dict(first)
    if not isinstance(first, list | tuple):
        raise MisuseError("neither a mapping nor a list of pairs")
    pairs = [pair for pair in first if isinstance(pair, list | tuple) and len(pair) == 2]
    if len(pairs) < len(first):
        raise MisuseError("a list whose items are no pairs")
    return {key: value for key, value in pairs if isinstance(key, str | int | float | bytes) or key is None}


def _default_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    return _mapping(args[1:])


def _sequence(args: tuple[Any, ...]) -> list[Any]:
    if args and not isinstance(args[0], list | tuple | set | frozenset):
        raise MisuseError("no list to take items of")
    return list(args[0]) if args else []


def _tuple(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_sequence(args))


def _set(args: tuple[Any, ...]) -> Any:
    items = _sequence(args)
    if not all(isinstance(item, str | int | float | bytes | Record | Named) or item is None for item in items):
        return Record("builtins.set", args)
    return {str(item) if isinstance(item, int) and item.bit_length() > 60 else item for item in items}


def _encoded(args: tuple[Any, ...]) -> bytes:
    text, encoding = (*args, "utf-8")[:2] if args else ("", "utf-8")
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    if not isinstance(text, str) or encoding not in ENCODINGS:
        raise MisuseError("no text in a plain encoding")
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise MisuseError(f"the text has characters that {encoding} lacks") from error


def _byte_array(args: tuple[Any, ...]) -> Any:
    if not args:
        return b""
    return args[0] if isinstance(args[0], bytes | bytearray | Span) else _encoded(args)


def _complex(args: tuple[Any, ...]) -> complex:
    if len(args) != 2 or not all(isinstance(part, int | float) for part in args):
        raise MisuseError("no two numbers")
    try:
        return complex(*args)
    except OverflowError as error:
        raise MisuseError("a number beyond all floats") from error


def _path(args: tuple[Any, ...]) -> str:
    parts = [part for part in args if isinstance(part, str)]
    return "/".join(part.rstrip("/") if n < len(parts) - 1 else part for n, part in enumerate(parts))


def _reconstructed(args: tuple[Any, ...]) -> Any:
    """`copyreg`'s way to make an object of a class: the class's own record, or a container."""
    if not args or not isinstance(args[0], Named):
        raise MisuseError("no class to make an object of")
    base = args[1].name if len(args) > 1 and isinstance(args[1], Named) else ""
    if base in ("builtins.dict", "collections.OrderedDict") and len(args) > 2 and isinstance(args[2], dict):
        return dict(args[2])
    return Record(args[0].name, args[1:])


#: Callables of the standard library by their dotted names.
STANDARD: Builders = {
    **records(_DATA),
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _default_dict,
    "collections.deque": _sequence,
    "builtins.dict": _mapping,
    "builtins.list": _sequence,
    "builtins.tuple": _tuple,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytearray": _byte_array,
    "builtins.bytes": _byte_array,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _reconstructed,
    "copyreg.__newobj_ex__": _reconstructed,
    **{f"{module}.{name}": _path for module in ("pathlib", "pathlib._local") for name in _PATHS},
}
