"""The modules that a call of a wrapped model goes through, from the outermost in, and the names of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from eventstream.errors import InputError

__all__ = ["FORWARD", "argument_names", "bare_module", "model_layers", "named_arguments"]

#: Stage of the innermost model, the one that the user wrote.
FORWARD = "forward"
#: Wrappers that keep the model under `module`, by class name: their libraries need not be there.
_HOLDERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "DeepSpeedEngine")


def model_layers(model: Any, inner: Any = None) -> list[tuple[str, Any]]:
    """(stage, module) from the outermost module in; the last is `forward`, the others `wrapper:ClassName`.

    DistributedDataParallel, DataParallel, FSDP and DeepSpeed are opened. A compiled module hands its arguments on
    unchanged and is not opened, because a hook inside would be compiled with it; so is PEFT's tuner, which calls the
    model's `forward` past its hooks. `inner` names the model inside a wrapper of the user's own: a submodule, or its
    dotted name; a name that the model lacks raises InputError.

    >>> class Model: ...
    >>> class DataParallel:
    ...     module = Model()
    >>> [(stage, type(module).__name__) for stage, module in model_layers(DataParallel())]
    [('wrapper:DataParallel', 'DataParallel'), ('forward', 'Model')]
    """
    chain = [model]
    while (opened := _opened(chain[-1])) is not None and len(chain) < 16:
        chain.append(opened)
    if inner is not None:
        named = _submodule(chain[-1], inner) if isinstance(inner, str) else inner
        chain += [] if named is chain[-1] else [named]
    return [*((f"wrapper:{type(module).__name__}", module) for module in chain[:-1]), (FORWARD, chain[-1])]


def _opened(module: Any) -> Any:
    """What a wrapper holds, or None where it is no wrapper known here."""
    if any(base.__name__ in _HOLDERS for base in type(module).__mro__):
        return getattr(module, "module", None)
    if hasattr(module, "peft_config") and hasattr(module, "base_model") and not _is_tuner(module):
        return module.base_model
    return None


def _is_tuner(module: Any) -> bool:
    return any(base.__name__ == "BaseTuner" for base in type(module).__mro__)


def _submodule(module: Any, name: str) -> Any:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in module.named_children()) or "none"
        raise InputError(
            f"{type(module).__name__} has no submodule {name!r}; pass one of its own by its dotted name, "
            f"its direct ones are: {known}"
        ) from error


def bare_module(model: Any) -> Any:
    """The user's own module below every wrapper, for its signature and its configuration; never hooked."""
    seen = model
    for _ in range(16):
        below = _opened(seen)
        if below is None:
            below = getattr(seen, "_orig_mod", None) or (getattr(seen, "model", None) if _is_tuner(seen) else None)
        if below is None:
            return seen
        seen = below
    return seen


def argument_names(module: Any) -> tuple[str, ...]:
    """Names of what `forward` may be given by position, in their order; of a wrapper, those of the model inside."""
    try:
        parameters = inspect.signature(bare_module(module).forward).parameters.values()
    except (TypeError, ValueError, AttributeError):
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def named_arguments(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a call was given, by name. A mapping given by position is a batch, and its keys stand for themselves.

    >>> named_arguments(("input_ids", "mask"), ([1],), {"labels": [2]})
    {'input_ids': [1], 'labels': [2]}
    >>> named_arguments(("batch",), ({"input_ids": [1]}, 5), {})
    {'input_ids': [1], '1': 5}
    """
    given: dict[str, Any] = {}
    for place, value in enumerate(args):
        if isinstance(value, Mapping):
            given.update((str(key), inside) for key, inside in value.items())
        else:
            given[names[place] if place < len(names) else str(place)] = value
    given.update(kwargs)
    return given
