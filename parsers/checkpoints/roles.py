"""What each tensor of a checkpoint is for, told by the names that frameworks give: model, average, optimizer, other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from parsers.checkpoints.averages import matched
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.model_order import model_order
from parsers.checkpoints.moments import Group, Parameter, Shape, groups_of, in_any_order, in_order
from parsers.checkpoints.name_layout import Placed, flat_names, own_names, placed
from parsers.checkpoints.progress import epoch_of, step_of
from parsers.checkpoints.side_values import Value
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["with_roles"]

#: Formats whose tensors stand in nested dictionaries; in the others names are the model's own.
_NESTED = ("torch", "torch-legacy", "dcp", "npz")
#: Averages of which so many copy no weight are none: a module of the model is called `ema`.
_LEAST_SHARE = 0.5
_STATE = re.compile(r"(?:(?P<owner>.*?)\.)?state\.(?P<key>.+)")
_BUFFER = re.compile(r"(?:^|\.)(?:running_mean|running_var|num_batches_tracked|inv_freq|n_averaged|position_ids)$")
#: States of Adafactor that have not the shape of their parameter.
_FACTORED = ("exp_avg_sq_row", "exp_avg_sq_col")
_HISTORY = re.compile(r"optimizer_history\.\d+\.num_updates")
_BESIDE = re.compile(
    r"(?:scheduler|rng_state|random_states|scaler|sampler|dl_state_dict|custom_checkpoint|training_args)(?:_\d+)?\."
)
_SORTED = (".safetensors",)


def with_roles(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint, its tensors with role, parameter and state, and with its step and epoch.

    Containers are told by the names that frameworks give them (Lightning, Hugging Face, timm, nanoGPT, BasicSR,
    GPT-SoVITS, accelerate, Megatron, torch's distributed checkpoints); what no name tells is `weights`. `parameter` is
    the model's own name, without containers and without the marks of DDP, FSDP and torch.compile; of an average the
    weight that it copies, of an optimizer's state the parameter that it belongs to. Where an optimizer only counts its
    parameters, these are told by the names in its groups (torch 2.6 and later), else by the order of shapes where only
    one way fits (safetensors sort by name: there by the order of common transformers), and else left empty. Step and
    epoch are those of the values beside the tensors, where the reader has not told them.

    >>> from pathlib import Path
    >>> names = ("model.module.conv.weight", "ema.conv.weight", "optimizer.state.0.exp_avg")
    >>> tensors = tuple(Tensor(name, "float32", (4, 3), None) for name in names)
    >>> found = with_roles(Checkpoint(Path("a.pt"), "torch", tensors, {"global_step": 500}))
    >>> found.step, [(tensor.role, tensor.parameter, tensor.state) for tensor in found]
    (500, [('weights', 'conv.weight', ''), ('ema', 'conv.weight', ''), ('optimizer', 'conv.weight', 'exp_avg')])
    """
    every = _values(checkpoint.values)
    nested = checkpoint.format in _NESTED and _is_nested(checkpoint)
    folder = checkpoint.format == "huggingface"
    places = {tensor.name: _place(tensor, every, nested or (folder and _is_beside(tensor))) for tensor in checkpoint}
    keep = checkpoint.format not in _NESTED
    weights = own_names((p for p in places.values() if p.role == "weights"), nested=nested, keep=keep)
    places, weights = _without_false_averages(places, weights, nested=nested, keep=keep)
    names: dict[str, str] = {name: weights[place] for name, place in places.items() if place.role == "weights"}
    names |= _averages(places, list(weights.values()))
    tensors = [replace(t, role=places[t.name].role, parameter=names.get(t.name, "")) for t in checkpoint.tensors]
    tensors = _with_moments(tensors, places, every)
    step = step_of(every) if checkpoint.step is None else checkpoint.step
    epoch = epoch_of(every) if checkpoint.epoch is None else checkpoint.epoch
    return checkpoint.but(tensors=tuple(tensors), step=step, epoch=epoch)


def _values(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values with the numbers that safetensors keep as texts in their metadata, and fairseq in its history."""
    texts = ((key.removeprefix("metadata."), value) for key, value in values.items() if key.startswith("metadata."))
    numbers = {key: int(text) for key, text in texts if isinstance(text, str) and text.isdecimal() and len(text) < 16}
    history = [value for key, value in values.items() if _HISTORY.fullmatch(key)]  # one entry for each optimizer
    return {**({"num_updates": history[-1]} if history else {}), **numbers, **values}


def _is_nested(checkpoint: Checkpoint) -> bool:
    """Whether something of another kind stands beside weights: then the first part of each name is a container."""
    if checkpoint.values:
        return True
    # A name without a dot is a module's own parameter (`pos_embed`) where nothing else says that there are containers.
    return any(
        "." in tensor.name and placed(tensor.name, nested=True).role != "weights" for tensor in checkpoint.tensors
    )


def _place(tensor: Tensor, values: Mapping[str, Value], nested: bool) -> Placed:
    if tensor.name.startswith("state.") and "param_groups.0.params.0" in values:  # the file of an optimizer alone
        return Placed("optimizer", "", tensor.name)
    return placed(tensor.name, nested=nested)


def _is_beside(tensor: Tensor) -> bool:
    """Whether a tensor of a folder is of a file beside the weights, whose name stands before its own."""
    return _BESIDE.match(tensor.name) is not None


def _without_false_averages(
    places: dict[str, Placed], weights: dict[Placed, str], *, nested: bool, keep: bool
) -> tuple[dict[str, Placed], dict[Placed, str]]:
    """Modules that are only called `ema` are weights: their tensors copy no others."""
    averages = {name: place for name, place in places.items() if place.role == "ema"}
    if not averages or not weights:
        return places, weights
    false = {
        container
        for container in {place.container for place in averages.values()}
        if not _are_copies([p for p in averages.values() if p.container == container], list(weights.values()), nested)
    }
    if not false:
        return places, weights
    changed = {
        name: Placed("weights", "", name) if place.role == "ema" and place.container in false else place
        for name, place in places.items()
    }
    return changed, own_names((p for p in changed.values() if p.role == "weights"), nested=nested, keep=keep)


def _are_copies(averages: Sequence[Placed], weights: Sequence[str], nested: bool) -> bool:
    names = list(_bare(averages).values())
    if _counted(names) or (nested and "." not in averages[0].container):
        return True
    return matched(names, weights).share >= _LEAST_SHARE


def _averages(places: Mapping[str, Placed], weights: Sequence[str]) -> dict[str, str]:
    """Name of each tensor of an average -> the weight that it copies."""
    found: dict[str, str] = {}
    containers: dict[str, dict[str, Placed]] = defaultdict(dict)
    for name, place in places.items():
        if place.role == "ema":
            containers[place.container][name] = place
    for members in containers.values():
        bare = _bare(members.values())
        copies = matched(list(bare.values()), weights).weights if weights else {own: own for own in bare.values()}
        found |= {name: copies.get(bare[place], "") for name, place in members.items()}
    return found


def _bare(averages: Iterable[Placed]) -> dict[Placed, str]:
    """Names of averages without wrappers; torch's own keeps a counter beside the `module.` that it wraps."""
    names = flat_names({place: place.rest for place in averages})
    inside = [name for name in names.values() if name.startswith("module.")]
    if len(inside) > len(names) / 2:
        names = {place: name.removeprefix("module.") for place, name in names.items()}
    return names


def _counted(names: Iterable[str]) -> bool:
    """Whether an average only counts its tensors, as lists of shadow parameters do."""
    return all(name.split(".")[-1].isdecimal() or name.rpartition(".")[2] in ("decay", "num_updates") for name in names)


@dataclass(frozen=True, slots=True)
class _State:
    """A tensor of an optimizer: of which optimizer, of which parameter by number or name, and what of it."""

    owner: str
    key: str
    state: str


def _with_moments(tensors: Sequence[Tensor], places: Mapping[str, Placed], values: Mapping[str, Value]) -> list[Tensor]:
    weights = [tensor for tensor in tensors if tensor.role == "weights"]
    known = {tensor.parameter for tensor in weights}
    states = {t.name: _state(t.name, known) for t in tensors if places[t.name].role == "optimizer"}
    shapes: dict[str, dict[int, Shape | None]] = defaultdict(dict)
    for tensor in tensors:
        told = states.get(tensor.name)
        if told is not None and told.key.isdecimal():
            held = shapes[told.owner]
            held[int(told.key)] = _larger(held.get(int(told.key)), tensor, told.state)
    numbered = _numbered(shapes, groups_of(values), weights, known)
    return [
        tensor if (told := states.get(tensor.name)) is None else _with_state(tensor, told, numbered, known)
        for tensor in tensors
    ]


def _with_state(tensor: Tensor, told: _State, numbered: Mapping[tuple[str, int], str], known: set[str]) -> Tensor:
    if told.key.isdecimal():
        return replace(tensor, state=told.state, parameter=numbered.get((told.owner, int(told.key)), ""))
    return replace(tensor, state=told.state, parameter=told.key if told.key in known else "")


def _state(name: str, known: set[str]) -> _State:
    """`optimizer.state.5.exp_avg`, or with the parameter's name in the place of the number."""
    match = _STATE.fullmatch(name)
    if match is None:
        return _State("", "", name.rpartition(".")[2])
    number, _, state = match["key"].partition(".")
    if number.isdecimal() and len(number) < 16 and state:
        return _State(match["owner"] or "", number, state)
    parts = match["key"].split(".")
    for split in range(len(parts) - 1, 0, -1):
        own = _clean(".".join(parts[:split]), known)
        if own:
            return _State(match["owner"] or "", own, ".".join(parts[split:]))
    return _State(match["owner"] or "", "", parts[-1])


def _clean(name: str, known: set[str]) -> str:
    """The weight that an optimizer calls so, with or without the marks of wrappers; empty where there is none."""
    bare = next(iter(flat_names({Placed("weights", "", name): name}).values()))
    forms = (name, bare, bare.removeprefix("model."), bare.removeprefix("state_dict."))
    return next((form for form in forms if form in known), "")


def _larger(before: Shape | None, tensor: Tensor, state: str) -> Shape | None:
    """The shape of the parameter, which its moments have and its counters of steps have not."""
    if state in _FACTORED or (state == "step" and before is not None):
        return before
    if state == "step":
        return None
    return tensor.shape if before is None or len(tensor.shape) >= len(before) else before


def _numbered(
    shapes: Mapping[str, Mapping[int, Shape | None]],
    groups: Mapping[str, list[Group]],
    weights: Sequence[Tensor],
    known: set[str],
) -> dict[tuple[str, int], str]:
    """Optimizer and number of a parameter -> its name."""
    found: dict[tuple[str, int], str] = {}
    orders: list[tuple[str, list[int]]] = []
    for owner, held in shapes.items():
        for group in groups.get(owner) or [Group(dict(enumerate(sorted(held))))]:
            found |= {(owner, number): own for number, name in group.named.items() if (own := _clean(name, known))}
            if not group.named:
                orders.append((owner, group.order))
    model = _parameters(weights)
    taken = set(found.values())
    free = [parameter for parameter in model if parameter.name not in taken]
    laid = [[shapes[owner].get(number) for number in order] for owner, order in orders]
    told = _laid(laid, free, is_sorted=any(_is_sorted(tensor) for tensor in weights))
    for (owner, order), names in zip(orders, told, strict=True):
        found |= {(owner, number): name for number, name in zip(order, names, strict=True) if name}
    return found


def _laid(groups: Sequence[Sequence[Shape | None]], free: Sequence[Parameter], *, is_sorted: bool) -> list[list[str]]:
    """The parameter of each place of each group, by the order of the file or by that of a model that is known."""
    if not is_sorted:
        return in_order(groups, free)
    by_name = {parameter.name: parameter for parameter in free}
    order = model_order(by_name)
    return in_any_order(groups, free) if order is None else in_order(groups, [by_name[name] for name in order])


def _parameters(weights: Iterable[Tensor]) -> list[Parameter]:
    """What of the weights an optimizer may have been given: no buffers, and of tied weights the first."""
    found: dict[object, Parameter] = {}
    for tensor in weights:
        if DTYPES[tensor.dtype].kind not in ("float", "complex") or _BUFFER.search(tensor.parameter):
            continue
        where = tensor.name if tensor.storage is None or not tensor.elements else (tensor.storage, tensor.offset)
        found.setdefault(where, Parameter(tensor.parameter, tensor.shape))
    return list(found.values())


def _is_sorted(tensor: Tensor) -> bool:
    """Whether the file that a tensor lies in has sorted its tensors by name."""
    return tensor.storage is not None and tensor.storage.file.name.endswith(_SORTED)
