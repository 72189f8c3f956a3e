"""How frameworks lay a checkpoint out: which names are containers, of what, and which wrap a model's own names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from parsers.checkpoints.tensors import Role

__all__ = ["Placed", "flat_names", "own_names", "placed"]

#: Containers in which others stand (Lightning, torch's distributed checkpoints).
_TRANSPARENT = frozenset(("state_dict", "app", "checkpoint", "ckpt", "trainer"))
_OTHER = re.compile(
    r"(?:(?:\w+_)?rng_states?(?:_\d+)?|random_states?(?:_\d+)?|(?:lr_|param_)?sched(?:uler)?s?(?:_\w+)?|lr_schedulers?"
    r"|(?:grad_|loss_)?scalers?(?:_state(?:_dict)?)?|amp|loops|callbacks|hyper_parameters|hparams|args|config|cfg|meta"
    r"|message_hub|samplers?(?:_\d+)?|dl_state_dict(?:_\d+)?|dataloaders?|custom_checkpoint_\d+|training_args|history"
    r"|metrics|extra_state|datamodule|dataset|task_state|criterion_state)",
    re.IGNORECASE,
)
#: `optimizer`, `optim_g`, `optimizer_states`, `g_optim`, `last_optimizer_state`, `optimizerG`, `optimizer_1`.
_OPTIMIZER = re.compile(r"(?i:(?:\w+_)?opt(?:im(?:izer)?s?)?)(?:_\w+|[A-Z0-9]\w*)?")
_SURELY_OPTIMIZER = re.compile(r"optim", re.IGNORECASE)
_EMA = re.compile(r"(?:\w+_)?ema(?:_\w+)?|swa_model|averaged?_model|shadow(?:_params)?", re.IGNORECASE)
#: The copy of the weights that ema-pytorch keeps in its average.
_ONLINE = "online_model"
#: What holds the weights of the one model of a checkpoint: no part of a name of the model's own.
_HOLDERS = frozenset(
    (
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "net",
        "network",
        "weight",
        "weights",
        "params",
        "module",
    )
)
#: Components that wrappers put anywhere into names: compiled, sharded, checkpointed activations.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DDP = "module."


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor's name: the role that its container has, the path of the container, and what is left."""

    role: Role
    container: str
    rest: str


def placed(name: str, *, nested: bool) -> Placed:
    """In which container a name stands; `nested` says that the checkpoint surely has containers.

    >>> placed("optimizer_states.0.state.5.exp_avg", nested=True)
    Placed(role='optimizer', container='optimizer_states', rest='0.state.5.exp_avg')
    >>> placed("state_dict.ema_model.conv.weight", nested=True)
    Placed(role='ema', container='state_dict.ema_model', rest='conv.weight')
    """
    parts = name.split(".")
    depth = 0
    while depth < len(parts) - 1 and parts[depth] in _TRANSPARENT:
        depth += 1
    container, rest = ".".join(parts[: depth + 1]), ".".join(parts[depth + 1 :])
    role = _role(parts[depth], rest, nested=nested, first=depth == 0)
    if role != "weights":
        if role == "ema" and parts[depth + 1 : depth + 2] == [_ONLINE]:
            role = "other"
        elif role == "ema" and parts[depth + 1 : depth + 2] == ["ema_model"]:
            container, rest = f"{container}.ema_model", ".".join(parts[depth + 2 :])
        return Placed(role, container, rest)
    return Placed("weights", ".".join(parts[:depth]), ".".join(parts[depth:]))


def _role(part: str, rest: str, *, nested: bool, first: bool) -> Role:
    """The role of a container of this name. Outside of containers only names that no module has are trusted."""
    if not rest:
        return "other" if nested and first else "weights"
    if _OPTIMIZER.fullmatch(part) and (_SURELY_OPTIMIZER.search(part) or re.search(r"(?:^|\.)state\.", rest)):
        return "optimizer"
    if first and nested and _OTHER.fullmatch(part):
        return "other"
    return "ema" if _EMA.fullmatch(part) else "weights"


def own_names(weights: Iterable[Placed], *, nested: bool, keep: bool) -> dict[Placed, str]:
    """The names that the model's own code has for its weights.

    What holds the weights of the whole checkpoint is taken off, once (`state_dict`, `model`), and the marks of
    wrappers. Two models in one checkpoint (`generator`, `discriminator`) keep what tells them apart. `keep` says that
    the names are the model's own already, as they are in safetensors.

    >>> names = [placed(f"model.module._orig_mod.{end}", nested=True) for end in ("a.weight", "b.weight")]
    >>> list(own_names(names, nested=True, keep=False).values())
    ['a.weight', 'b.weight']
    """
    every = list(weights)
    names = {one: one.rest for one in every}
    if not keep:
        names = _unheld(names, nested=nested)
    return flat_names(names)


def _unheld(names: dict[Placed, str], *, nested: bool) -> dict[Placed, str]:
    """Names without the holder at their begin; those already taken from a container have none."""
    first = {one: name.partition(".") for one, name in names.items() if not one.container}
    holders = {part[0] for part in first.values() if part[0] in _HOLDERS and part[2]}
    shared = len(first) == len(names) and len({part[0] for part in first.values()}) == 1
    if not nested and not shared:
        return names
    short = {one: part[2] if part[0] in holders and part[2] else names[one] for one, part in first.items()}
    bare = {one: short.get(one, name) for one, name in names.items()}
    return bare if len(set(bare.values())) == len(set(names.values())) else names


def flat_names(names: dict[Placed, str]) -> dict[Placed, str]:
    """Names without the marks of wrappers, unless two would become one."""
    bare = {one: _WRAPPERS.sub("", name) for one, name in names.items()}
    while bare and all(name.startswith(_DDP) and name != _DDP for name in bare.values()):
        bare = {one: name.removeprefix(_DDP) for one, name in bare.items()}
    return bare if _distinct(bare.values()) == _distinct(names.values()) else names


def _distinct(names: Collection[str]) -> int:
    return len(set(names))
