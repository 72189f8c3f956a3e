"""`checkpoint-mismatch`: weights that were one and the same in earlier saves, and later are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from analysis.findings import Finding
from analysis.kinds import KINDS
from analysis.weights.saved import Saved, is_buffer, same_bytes, same_values
from parsers.checkpoints.tensors import DTYPES, Tensor

__all__ = ["tied_pairs", "untied"]

#: Embeddings and the heads that share their weights with them.
_HEADS = re.compile(
    r"(lm_head|wte|embed\w*|shared|word_embeddings|cls\.predictions\.decoder|output_projection|decoder)"
)
#: Copies that are made equal now and then on purpose: targets, teachers and momentum encoders.
_COPIES = re.compile(
    r"(target|teacher|momentum|_k\.|key_encoder|ema|averag|\bold|\bref|frozen|snapshot)", re.IGNORECASE
)
#: Smaller tensors (a gain of ones, a bias of zeros) are equal by chance.
_FEWEST = 16
#: A pair that is tied is found among so many tensors of one fingerprint at most.
_MOST_ALIKE = 64


def tied_pairs(saved: Saved) -> dict[tuple[str, str], bool]:
    """Pairs of weights of one save that hold the same bits; True where they lie in the same bytes of the file.

    Constant tensors, buffers and small ones are left out. Read are only tensors whose statistics agree.
    """
    weights = saved.weights
    alike: dict[tuple[object, ...], list[Tensor]] = {}
    for row in saved.rows("weights"):
        tensor = weights.get(row["parameter"])
        if tensor is not None and row["std"] and _can_be_tied(tensor):
            place = (tensor.shape, tensor.dtype, row["norm"], row["mean"], row["minimum"], row["maximum"])
            alike.setdefault(place, []).append(tensor)
    pairs = {}
    for group in alike.values():
        for one, two in combinations(group[:_MOST_ALIKE], 2):
            shared = same_bytes(one, two)
            if shared or same_values(saved.checkpoint, one, saved.checkpoint, two):
                pairs[one.parameter, two.parameter] = shared
    return pairs


def _can_be_tied(tensor: Tensor) -> bool:
    large = tensor.elements >= _FEWEST and len(tensor.shape) >= 2
    return large and DTYPES[tensor.dtype].kind == "float" and not is_buffer(tensor.parameter)


def untied(saves: Sequence[Saved], run_name: str) -> list[Finding]:
    """Pairs that were tied and are so no longer: a warning.

    Equal in one save proves nothing: layers are begun as copies of each other, and target networks are made equal now
    and then. A tie is what moved together from one save to the next, lay in the same bytes, or is an embedding and
    its head.
    """
    tied = [tied_pairs(saved) for saved in saves]
    found, told = [], set()
    for n in range(1, len(saves)):
        for pair, shared in tied[n - 1].items():
            known = shared or _moved_together(saves, tied, n - 1, pair) or all(_HEADS.search(name) for name in pair)
            there = all(name in saves[n].weights for name in pair)
            if pair not in tied[n] and there and known and pair not in told and not _is_copy(pair):
                told.add(pair)
                found.append(_finding(saves[n - 1], saves[n], run_name, pair, shared))
    return found


def _is_copy(pair: tuple[str, str]) -> bool:
    return any(_COPIES.search(name) for name in pair)


def _moved_together(
    saves: Sequence[Saved], tied: list[dict[tuple[str, str], bool]], n: int, pair: tuple[str, str]
) -> bool:
    """Whether a pair was equal in the save before too, with other values."""
    if n == 0 or pair not in tied[n - 1]:
        return False
    before, now = (saves[at].weights[pair[0]] for at in (n - 1, n))
    return not same_values(saves[n - 1].checkpoint, before, saves[n].checkpoint, now)


def _finding(before: Saved, after: Saved, run_name: str, pair: tuple[str, str], shared: bool) -> Finding:
    one, two = pair
    how = "lay in the same bytes of" if shared else "held the same values in"
    return Finding(
        "checkpoint-mismatch",
        "warning",
        run_name,
        f"{one} and {two} {how} {before.where} and differ in {after.where}: they are tied no longer",
        metric=one,
        first_step=before.at,
        last_step=after.at,
        evidence={
            "what": f"untied {one}",
            "save": after.name,
            "save_before": before.name,
            "tied_with": two,
            "shared_bytes": shared,
        },
        causes=(
            "the tie was lost when the weights were loaded or moved: each became a parameter of its own",
            "one of them was replaced (a new head, a resized vocabulary) and not tied again",
        ),
        suggestions=(
            "tie the weights again after loading (model.tie_weights() in transformers), before the optimizer is made",
            *KINDS["checkpoint-mismatch"].suggestions[2:],
        ),
    )
