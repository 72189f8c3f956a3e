"""The files and folders below a path that are checkpoints, each one save; parts of saves are none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from parsers.checkpoints.links import leads_out, no_file
from parsers.checkpoints.npz_weights import with_weights
from parsers.checkpoints.save_names import told_by

__all__ = ["checkpoint_paths"]

#: How many levels of folders are followed, how many entries are looked at, and how many checkpoints listed.
_DEEPEST, _MOST_ENTRIES, _MOST_SAVES = 6, 200_000, 10_000
_SUFFIXES = (".pt", ".pth", ".ckpt", ".chkpt", ".bin", ".safetensors", ".th", ".pth.tar", ".pt.tar", ".model", ".npz")
_INDEX = (".safetensors.index.json", ".bin.index.json")
#: Folders that hold no checkpoints of a training, skipped on the way down.
_SKIPPED = frozenset(
    ("__pycache__", "node_modules", "site-packages", "__MACOSX", "cache", "caches", "blobs", "embeddings", "features")
)
#: Files that hold a part of a save, or what is no state of a model.
_PARTS = re.compile(
    r"(?:.*[-_.])?(?:optim(?:izer)?s?|opt|sched(?:uler)?s?|lr_scheduler|scaler|rng_states?|random_states|sampler"
    r"|dl_state_dict|dataloader|training_args|args|hparams|brain|counter|replay_buffer|optim_states?|vocab|tokenizer"
    r"|events?|embeddings?|features?|scores?|evaluations?)(?:[-_.]?(?:rank)?[-_]?\d+|[-_.](?:states?|state_dict|final|last|best))*",
    re.IGNORECASE,
)
_PART_WORDS = frozenset(
    ("optimizer", "optimizers", "scheduler", "sched", "scaler", "embeddings", "features", "tokenizer", "vocab")
)
_WITHOUT = frozenset(("no", "with", "without"))
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.\w+)")
#: Words in the names of files that hold weights.
_WEIGHTS = re.compile(r"model|check|ckpt|weights?|params?|net|state|save", re.IGNORECASE)


def checkpoint_paths(root: Path) -> list[Path]:
    """The checkpoints at or below `root`, at most 10,000, in the order of paths.

    >>> checkpoint_paths(Path("no/such/folder"))
    []
    """
    if not root.is_dir():
        named = root.name.endswith(_SUFFIXES)
        return [root] if root.exists() and (_sniff(root) or (named and _is_unwritten(root))) else []
    entries = iter(range(_MOST_ENTRIES))
    return list(islice(_below(root, root, _DEEPEST, entries), _MOST_SAVES))


def _below(folder: Path, root: Path, depth: int, left: Iterator[int]) -> Iterator[Path]:
    format = _sniff(folder)
    if format:
        yield folder
    if format == "dcp":  # its pieces are no saves of their own
        return
    owned = _owned(folder) if format else set()
    names = _listed(folder)
    arrays = with_weights([entry for entry in names if _is_nameless(entry)])
    for entry in names:
        if next(left, None) is None:
            return
        if entry.name in owned or entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        if entry.is_dir():
            if depth and not entry.is_symlink():
                yield from _below(entry, root, depth - 1, left)
        elif _is_nameless(entry) and entry.name not in arrays:
            continue
        elif _is_save(entry, root, names) and (not format or _says_which(entry)):
            yield entry


def _is_save(file: Path, root: Path, beside: list[Path]) -> bool:
    if not file.name.endswith((*_SUFFIXES, *_INDEX)):
        return False
    if not file.is_file():  # a pipe among the saves is told by whoever opens it
        return bool(no_file(file)) and _says_which(file)
    stem = file.name.partition(".")[0] if file.name.endswith(_INDEX) else file.stem
    words = told_by(file.name).words
    is_part = bool(_PARTS.fullmatch(stem)) or any(word in _PART_WORDS for word in words)
    if (is_part and not _WITHOUT.intersection(words)) or _is_shard(file, beside):
        return False
    if file.is_symlink() and leads_out(file, root):
        return True  # unlooked at: whoever opens it says that it is not followed
    named = bool(_WEIGHTS.search(stem)) or _says_which(file)
    if _sniff(file):
        return named or file.suffix == ".npz" or _holds_model(file)
    return named and _is_unwritten(file)


def _is_nameless(file: Path) -> bool:
    """Whether a file is a .npz whose name speaks neither of weights nor of a step or epoch: it may hold anything."""
    if file.suffix != ".npz" or file.name.startswith(".") or file.is_symlink():
        return False
    told = told_by(file.name)
    spoken = _WEIGHTS.search(file.stem) or _PARTS.fullmatch(file.stem) or told.label
    return not spoken and told.step is None and told.epoch is None


def _is_unwritten(file: Path) -> bool:
    """Whether a file that is named as a save is empty or zeros: a save that was interrupted, and no other content."""
    from parsers.checkpoints.opening import unwritten

    return bool(unwritten(file))


def _holds_model(file: Path) -> bool:
    """Whether a file whose name says nothing of weights has more than one tensor, as an embedding has not."""
    from parsers.checkpoints.opening import open_checkpoint

    with open_checkpoint(file, within=file.parent) as found:
        return len(found.tensors) > 1 or bool(found.damage or found.unsafe)


def _is_shard(file: Path, beside: list[Path]) -> bool:
    """Whether the file is a shard of an index beside it."""
    match = _SHARD.fullmatch(file.name)
    if match is None:
        return False
    return any(one.name == f"{match['stem']}{match['suffix']}.index.json" for one in beside)


def _says_which(file: Path) -> bool:
    """Whether a file in the folder of a save says itself which save it is: else it belongs to that one."""
    told = told_by(file.name)
    return told.counts or bool(told.label)


def _owned(folder: Path) -> set[str]:
    from parsers.checkpoints.huggingface_files import owned

    return owned(folder)


def _sniff(path: Path) -> str | None:
    from parsers.checkpoints.opening import sniff

    try:
        return sniff(path)
    except OSError:  # may not be read: whoever opens it says so
        return "unread"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError:  # may not be listed: nothing of it can be opened either
        return []
