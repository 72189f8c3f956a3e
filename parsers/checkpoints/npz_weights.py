"""Which .npz files hold weights, where their names do not say: data sets, features and results are .npz as well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from eventstream.errors import InputError
from parsers.checkpoints.save_names import told_by
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["holds_weights", "passed_over", "with_weights"]

#: Files that are looked into of each kind of name, and kinds of a folder: of a data set all are alike.
_LOOKED, _KINDS = 3, 20
#: Last parts of names of parameters: torch, Keras, Flax, and what people write by hand (W1, b1, w_out).
_PARAMETER = re.compile(
    r"(?:.*[-._/])?(?:weights?|bias(?:es)?|kernel|gamma|beta|scale|embeddings?|embed|running_(?:mean|var)"
    r"|(?:w|b|wx|wh|u)(?:[-_]?\d+|_\w+)?|theta|moving_(?:mean|variance)|lora_[ab])(?:[-_:]?\d+)?",
    re.IGNORECASE,
)
#: Least share of names that are those of parameters.
_MOST = 0.5
#: Names of files that are shown.
_SHOWN = 3


def with_weights(files: Sequence[Path]) -> set[str]:
    """The names of those of a folder's .npz files that hold weights, judged by a few of each kind of name.

    Names that differ in counters alone are of one kind. A kind counts where one of its files that were looked into
    holds weights: a save that was cut off is one of a series all the same.
    """
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        kinds.setdefault(told_by(file.name).words, []).append(file)
    found: set[str] = set()
    for kind in islice(kinds.values(), _KINDS):
        every = -(-len(kind) // _LOOKED)
        if any(map(holds_weights, kind[::every])):
            found.update(file.name for file in kind)
    return found


def holds_weights(file: Path) -> bool:
    """Whether the arrays of a .npz are parameters by their names.

    At least two arrays of floats, one of them of two dimensions or more, and half of the names end as those of
    parameters do (`weight`, `kernel`, `b1`). Samples beside their labels, which have one length, are a data set.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net, data = Path(folder, "net.npz"), Path(folder, "data.npz")
    ...     np.savez(net, W1=np.ones((4, 3)), b1=np.ones(4))
    ...     np.savez(data, x=np.ones((9, 3)), y=np.ones(9))
    ...     holds_weights(net), holds_weights(data)
    (True, False)
    """
    from parsers.checkpoints.npz import read, sniff

    try:
        if not sniff(file):
            return False
        with read(file) as opened:
            floats = [one for one in opened.tensors if DTYPES[one.dtype].kind == "float"]
    except InputError:  # it may not be read: whoever asks for it says so
        return False
    named = [one for one in floats if _PARAMETER.fullmatch(one.name)]
    matrices = any(len(one.shape) >= 2 for one in floats)
    return matrices and len(floats) > 1 and len(named) >= _MOST * len(floats) and not _is_sampled(floats)


def _is_sampled(arrays: Sequence[Tensor]) -> bool:
    """Whether all arrays have one first dimension, and are no layer: weights have another one in the next layer."""
    lengths = {one.shape[0] if one.shape else 0 for one in arrays}
    return len(lengths) == 1 and len(arrays) > 2


def passed_over(folder: Path) -> str:
    """What is to be said of .npz files in a folder without saves; empty where there are none."""
    try:
        found = sorted(entry.name for entry in islice(folder.iterdir(), 10_000) if entry.suffix == ".npz")
    except OSError:  # no folder, or one that may not be listed
        return ""
    if not found:
        return ""
    names = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else "")
    return (
        f"of the .npz files here ({names}) neither the names nor the arrays in them speak of weights; "
        f"to read one all the same, name it: {folder / found[0]}"
    )
