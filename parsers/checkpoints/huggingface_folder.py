"""A Hugging Face checkpoint: one folder of model, adapter, optimizer, scheduler and random states, read as one save."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage, UnsafeCall
from parsers.checkpoints.huggingface_files import Part, components, is_checkpoint, missing_shards, parts
from parsers.checkpoints.links import unfollowed
from parsers.checkpoints.shards import is_index, read_index, read_part
from parsers.checkpoints.side_values import Value, bounded, flat
from parsers.checkpoints.tensors import Tensor
from parsers.content.json_damage import read_document

__all__ = ["read", "sniff", "step_of_state"]

NAME = "huggingface"
#: What the parts of a folder may be.
_FILES = ("parsers.checkpoints.safetensors_file", "parsers.checkpoints.torch_zip", "parsers.checkpoints.torch_legacy")
_STATE = "trainer_state.json"
_STEP = re.compile(r"checkpoint-(\d{1,15})")
#: What the arguments of every training are pickled as; any other call of that file is told.
_ARGUMENTS = re.compile(
    r"transformers\.(?:training_args\w*|trainer_utils|trainer_pt_utils|debug_utils|integrations\.\w+)\.\w+"
    r"|accelerate\.(?:state|parallelism_config|utils\.\w+)\.\w+|(?:trl|sentence_transformers)\.(?:\w+\.)*\w+(?:Config|Arguments)"
)
_CONFIGS = ("config.json", "adapter_config.json")


@dataclass(slots=True)
class _Folder:
    """What was read of a folder so far; `tree` is the folder out of which no link may lead."""

    path: Path
    tree: Path
    tensors: list[Tensor] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    unsafe: list[UnsafeCall] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with weights under Hugging Face's names, or an index of files of torch."""
    if path.is_dir():
        return is_checkpoint(path)
    return path.name.endswith(".bin.index.json") and path.is_file()


def read(path: Path | str, *, within: Path | None = None) -> Checkpoint:
    """All tensors of the folder: those of the model under their own names, all others behind the name of their file.

    Of weights in several forms (`model.safetensors`, `pytorch_model.bin`) the first is read, in the order in which
    transformers looks for them; adapters beside it. `optimizer.`, `scheduler.`, `rng_state.`, `scaler.`,
    `training_args.` and, of accelerate, `model_1.`, `random_states_0.`, `custom_checkpoint_0.` come before the names of
    what these files hold; in the folder of a pipeline the component does (`unet.`, `unet_ema.`). `values` has also
    what `config.json` and `adapter_config.json` say and the scalars of `trainer_state.json`; step and epoch are from
    there, else the step is that of the folder's name (`checkpoint-500`).

    A part that is missing, damaged, of no known format, or a symbolic link that leads out of `within` (by default the
    folder itself) is damage, and the others are read. Raises `InputError` where `path` does not exist.

    >>> import tempfile
    >>> header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = Path(place, "checkpoint-500")
    ...     folder.mkdir()
    ...     _ = (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    ...     _ = (folder / "trainer_state.json").write_text('{"global_step": 500, "epoch": 2.5}')
    ...     found = read(folder)
    >>> [t.name for t in found.tensors], found.step, found.epoch
    (['w'], 500, 2.5)
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no checkpoint at {path}: there is no such file or folder")
    if is_index(path):
        return read_index(path, _read_file, NAME, within=within)
    found = _Folder(path, path if within is None else within)
    for part in (*parts(path), *_of_components(path)):
        _add(found, part)
    for name in missing_shards(file.name for file in path.iterdir()) if not _has_index(path) else ():
        found.damage.append(Damage(path / name, f"shard {name!r}", "is missing; the names of the others announce it"))
    _add_documents(found)
    step, epoch = found.values.get("trainer_state.global_step"), found.values.get("trainer_state.epoch")
    named = _STEP.fullmatch(path.name)
    return Checkpoint(
        path,
        NAME,
        tuple(found.tensors),
        bounded(found.values),
        tuple(found.unsafe),
        tuple(found.damage),
        tuple(found.files),
        step if type(step) is int else int(named[1]) if named else None,
        float(epoch) if isinstance(epoch, (int, float)) else None,
    )


def step_of_state(folder: Path) -> int | None:
    """The step that a folder's `trainer_state.json` tells, where it has one."""
    state = folder / _STATE
    if not state.is_file():
        return None
    try:
        told = read_document(state).value
    except InputError:  # too large, or not to be read: whoever opens the checkpoint will say so
        return None
    step = told.get("global_step") if isinstance(told, Mapping) else None
    return step if type(step) is int and step >= 0 else None


def _of_components(folder: Path) -> list[Part]:
    return [
        replace(part, prefix=f"{place.name}.{part.prefix}") for place in components(folder) for part in parts(place)
    ]


def _has_index(folder: Path) -> bool:
    return any(is_index(entry) for entry in folder.iterdir())


def _add(found: _Folder, part: Part) -> None:
    problem = unfollowed(part.file, found.tree, "file")
    if problem is not None:
        found.damage.append(problem)
        return
    if is_index(part.file):
        read = read_index(part.file, _read_file, NAME, within=found.tree)
    else:
        read = read_part(part.file, _read_file)
    found.tensors += [replace(tensor, name=part.prefix + tensor.name) for tensor in read.tensors]
    found.values |= {part.prefix + key: value for key, value in read.values.items()}
    found.unsafe += [call for call in read.unsafe if not _is_usual(call)]
    found.damage += read.damage
    found.files += read.files


def _is_usual(call: UnsafeCall) -> bool:
    return call.file.name == "training_args.bin" and call.risk != "dangerous" and bool(_ARGUMENTS.fullmatch(call.name))


def _read_file(file: Path) -> Checkpoint:
    """One file of weights or states in whichever form it is."""
    for name in _FILES:
        module = importlib.import_module(name)
        if module.sniff(file):
            found: Checkpoint = module.read(file)
            return found
    size = file.stat().st_size
    reason = "is empty" if size == 0 else f"its {size:,} bytes are neither safetensors nor what torch.save writes"
    return Checkpoint(file, NAME, (), damage=(Damage(file, "byte 0", reason),), files=(file,))


def _add_documents(found: _Folder) -> None:
    """What the JSON beside the weights says; of the trainer's state only its scalars, and not its log."""
    for name in (*_CONFIGS, _STATE):
        file = found.path / name
        problem = unfollowed(file, found.tree, "file")
        if problem is not None:
            found.damage += [problem] if file.is_symlink() else []
            continue
        try:
            document = read_document(file)
        except InputError as error:
            found.damage.append(Damage(file, "file", str(error)))
            continue
        found.files.append(file)
        found.damage += [Damage(file, f"line {reject.line or 1}", reject.reason) for reject in document.rejects]
        told = document.value if isinstance(document.value, Mapping) else {}
        if name == _STATE:
            told = {key: value for key, value in told.items() if not isinstance(value, (list, Mapping))}
        found.values |= flat(told, file.stem)
