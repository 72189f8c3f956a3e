"""YAML as plain values: tags that name Python objects are kept as text and never executed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from eventstream.values import plain_text

__all__ = ["LIMIT", "UnreadableYamlError", "parse_yaml"]

#: Largest text that is read. Hyper-parameters are far below; beyond, a dump was written in their place.
LIMIT = 4 << 20
#: How many values a document may unfold to: aliases make a few lines of YAML into any number of them.
MOST_VALUES = 200_000
MAX_DEPTH = 64


class UnreadableYamlError(ValueError):
    """Text that is no YAML, or YAML that cannot be held; the message says why."""


def parse_yaml(data: bytes) -> Any:
    """The value in `data` in dicts with text keys, lists, text, numbers, booleans and None.

    An unknown tag (`!!python/object:...`, `!Custom`) is data: a scalar keeps its text, or the tag where it has none; an
    ordered dictionary and a tuple become a dict and a list; any other object becomes a dict with the tag under `!`.
    Dates become text. Raises `UnreadableYamlError` on damage, on more than `LIMIT` bytes, and on documents that unfold
    without end. Source: YAML 1.1 as PyYAML reads it.

    >>> parse_yaml(b"lr: 0.1\\nact: !!python/name:torch.relu ''\\nrun: !!python/object/apply:os.system ['true']")
    {'lr': 0.1, 'act': 'python/name:torch.relu', 'run': {'!': 'python/object/apply:os.system', 'items': ['true']}}
    """
    import yaml

    if len(data) > LIMIT:
        raise UnreadableYamlError(f"{len(data):,} bytes of YAML; more than {LIMIT:,} are not read")
    try:
        value = yaml.load(data, _loader())  # noqa: S506 - a safe loader, extended to keep unknown tags as data
    except yaml.YAMLError as error:
        raise UnreadableYamlError(f"not YAML: {_where(error)}") from error
    except RecursionError as error:
        raise UnreadableYamlError("nested too deeply to be read") from error
    except (ValueError, TypeError, OverflowError) as error:  # dates of month 13, keys that are lists
        raise UnreadableYamlError(f"not YAML that can be held: {error}") from error
    return _plain(value, [MOST_VALUES], 0)


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    what = str(getattr(error, "problem", None) or str(error).splitlines()[0])
    return what if mark is None else f"{what} in line {mark.line + 1}"


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """The safe loader, with every unknown tag as data."""

    Loader.add_multi_constructor("", _tagged)
    return Loader


def _tagged(loader: Any, suffix: str, node: Any) -> Any:
    import yaml

    tag = suffix.removeprefix("tag:yaml.org,2002:").removeprefix("!")
    if isinstance(node, yaml.ScalarNode):
        return node.value or tag
    if isinstance(node, yaml.MappingNode):
        return {"!": tag, **loader.construct_mapping(node, deep=True)}
    items = loader.construct_sequence(node, deep=True)
    if tag.endswith("tuple"):
        return items
    if tag.endswith("OrderedDict") and len(items) == 1 and _is_pairs(items[0]):
        return dict(items[0])
    return {"!": tag, "items": items}


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in value
    )


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise UnreadableYamlError(f"unfolds to more than {MOST_VALUES:,} values or {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {plain_text(k): _plain(v, budget, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v, budget, depth + 1) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else plain_text(value)
