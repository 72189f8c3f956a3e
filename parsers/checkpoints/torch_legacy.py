"""Reader of what `torch.save` wrote before torch 1.6, and of plain pickles of arrays and tensors.

Both are pickles, and none is run (`inert_pickle`). The still older archives of tar are told and refused.
"""

from __future__ import annotations

from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint, Damage
from parsers.checkpoints.file_bytes import content
from parsers.checkpoints.inert_pickle import unpickle
from parsers.checkpoints.legacy_stream import Stream, read_stream
from parsers.checkpoints.located import located
from parsers.checkpoints.pickle_opcodes import HANDLERS, NEWEST_PROTOCOL
from parsers.checkpoints.pickled_tree import Tree, flattened
from parsers.checkpoints.progress import epoch_of, step_of

__all__ = ["read", "sniff"]

HEAD = 1 << 16
#: Names under which people keep pickles; the old protocols begin like any text, so that their content is not enough.
SUFFIXES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".ckpt", ".model", ".tar")
#: Opcodes with which a pickle of protocol 0 or 1 begins: a mark, a global, an empty list or dictionary, an instance.
OLD_BEGINNINGS = b"(c]}il"
#: Entries of the archive that torch wrote before version 0.1.10.
TAR_ENTRIES = ("sys_info", "pickle", "storages", "tensors")
#: Values of a file of many pickles that are looked through for tensors.
MOST_VALUES = 100


def sniff(path: Path) -> bool:
    """Whether `path` begins as a pickle does (protocol 2 and later by its first bytes, older ones by their opcodes)."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        head = opened.read(HEAD)
    if head[:1] == b"\x80":
        return len(head) > 2 and head[1] <= NEWEST_PROTOCOL and HANDLERS[head[2]] is not HANDLERS[0xFF]
    if _is_tar(head):
        return True
    if path.suffix.lower() not in SUFFIXES or head[:1] not in [bytes((byte,)) for byte in OLD_BEGINNINGS]:
        return False
    got = unpickle(head, file=path, builders={})  # Python runs the calls before it comes to where a pickle breaks
    return got.whole or bool(got.calls) or (len(head) == HEAD and got.end > HEAD // 2)


def read(path: Path) -> Checkpoint:
    """The tensors and values of a file of torch before 1.6, or of a plain pickle, named by their dotted path.

    In a file of several plain pickles those of the second begin with `1.`, of the third with `2.`, and so on. Raises
    `InputError` for the tar archives of torch before 0.1.10.
    """
    with content(path) as data:
        if _is_tar(data[:HEAD]):
            raise InputError(
                f"{path} is a tar archive of torch before 0.1.10, which is not read here; load it in a torch of that "
                "time, in a place without anything to lose, and save the state_dict again as safetensors"
            )
        stream = read_stream(Stream(path, data, 0, len(data)))
        tree = _tree(stream)
    tensors, missing = located(path, tree.tensors)
    left_out = tuple(Damage(path, "tree", why) for why in tree.trouble)
    return Checkpoint(
        path,
        "torch-legacy",
        tensors,
        tree.values,
        tuple(stream.calls),
        (*stream.damage, *left_out, *missing),
        (path,),
        step_of(tree.values),
        epoch_of(tree.values),
    )


def _tree(stream: Stream) -> Tree:
    """The tensors and values of all the pickles, while the file is mapped: arrays that must be turned are copied."""
    tree = Tree()
    for place, value in enumerate(stream.values[:MOST_VALUES]):
        part = flattened(value, str(place) if place else "")
        tree.tensors.update(part.tensors)
        tree.values.update(part.values)
        tree.trouble.extend(part.trouble)
    return tree


def _is_tar(head: bytes) -> bool:
    name = head[:100].rstrip(b"\0").decode("ascii", "replace").removeprefix("./")
    return head[257:262] == b"ustar" and name in TAR_ENTRIES
