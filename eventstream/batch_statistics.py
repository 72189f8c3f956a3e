"""Numbers that say what a batch and the model's answer look like: sums left on their device, read once at the end.

Nothing here waits for a device but `read`: each statistic is a pair of 0-d tensors, a sum and how much it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventstream.batch_names import head_labels, label_keys, logit_heads, mask_keys
from eventstream.optional import need

__all__ = [
    "IGNORED",
    "Parts",
    "head_parts",
    "input_parts",
    "output_parts",
    "read",
    "shifted_labels",
    "similarity_parts",
]

#: The label that the losses of PyTorch leave out.
IGNORED = -100
#: Most positions of the logits that are looked at: a vocabulary of 128k at 512 positions is 256 MiB in float32.
POSITIONS = 512
#: A prime larger than most batches: its multiples modulo the number of rows visit rows all over without repeating.
_STRIDE = 2_654_435_761

#: Name of a statistic -> (sum, count), both 0-d tensors; a count of None means the sum is the statistic itself.
Parts = dict[str, tuple[Any, Any]]


def _torch() -> Any:
    return need("torch", feature="recording batches", extra="checkpoints")


def input_parts(batch: Mapping[str, Any], pad_token_id: int | None = None) -> Parts:
    """Batch size, lengths (mean, min, max), share of padding for each mask, share of ignored labels (-100).

    Lengths come from two-dimensional attention masks; without one from `input_ids` that are not `pad_token_id`; without
    both the width of `input_ids` is the length and padding is not known. Names begin with `inputs/`.

    >>> import torch
    >>> batch = {"attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), "labels": torch.tensor([[1, -100]])}
    >>> read(input_parts(batch))["inputs/padding_share"], read(input_parts(batch))["inputs/labels/ignored_share"]
    (0.25, 0.5)
    """
    parts: Parts = {}
    masks = mask_keys(batch)
    for kind, key in masks.items():
        parts |= _length_parts(f"inputs/{kind}" if kind else "inputs", batch[key] != 0)
    tokens = batch.get("input_ids")
    if "" not in masks and getattr(tokens, "ndim", 0) == 2:
        kept = _torch().ones_like(tokens, dtype=_torch().bool) if pad_token_id is None else tokens != pad_token_id
        parts |= _length_parts("inputs", kept, padding=pad_token_id is not None)
    for key in label_keys(batch):
        ignored = batch[key] == IGNORED
        parts[f"inputs/{key}/ignored_share"] = (ignored.sum(), _count(ignored))
    return parts


def _length_parts(name: str, kept: Any, padding: bool = True) -> Parts:
    if not kept.numel():
        return {}
    lengths = kept.sum(dim=-1)
    parts: Parts = {
        f"{name}/batch_size": (_count(lengths), None),
        f"{name}/length_mean": (lengths.sum(), _count(lengths)),
        f"{name}/length_min": (lengths.amin(), None),
        f"{name}/length_max": (lengths.amax(), None),
    }
    return parts | ({f"{name}/padding_share": ((~kept).sum(), _count(kept))} if padding else {})


def _count(tensor: Any) -> float:
    return float(tensor.numel())


def output_parts(outputs: Mapping[str, Any], batch: Mapping[str, Any], shifted: bool | None) -> Parts:
    """The statistics of each head of logits apart (`head_parts`); names begin with `outputs/` and the head's name."""
    parts: Parts = {}
    for name, logits in logit_heads(outputs).items():
        key = head_labels(name, batch)
        mask = batch.get("attention_mask")
        parts |= head_parts(f"outputs/{name}", logits, None if key is None else batch[key], mask, shifted)
    return parts


def head_parts(name: str, logits: Any, labels: Any = None, mask: Any = None, shifted: bool | None = False) -> Parts:
    """Range and entropy (nats) of logits of shape (..., classes), and how often the largest is the label.

    At most `POSITIONS` (512) positions are looked at, spread over the whole tensor, so that the cost does not grow with
    the batch. Logits of minus infinity are masked classes and no part of the range; NaN and infinity show. The entropy
    is the mean over positions with a label, else over those that `mask` keeps, else over all. `labels` of the shape
    (...) are compared where they are not -100: with `shifted` the logits of a position with the next label, without it
    with its own; with None, where nobody knows which is meant, both are told, as `top1_agreement_next` and
    `top1_agreement_same`. Labels of another shape are not compared.

    >>> import torch
    >>> logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0], [4.0, 0.0]]])
    >>> labels = torch.tensor([[-100, 0, 1]])
    >>> read(head_parts("lm", logits, labels, shifted=True))["lm/top1_agreement"]
    1.0
    """
    torch = _torch()
    classes = int(logits.shape[-1])
    rows = logits.detach().reshape(-1, classes) if classes else logits[:0]
    if not rows.numel():
        return {}
    picked = _spread(int(rows.shape[0]), rows.device)
    sample = rows.index_select(0, picked).float()
    lowest = sample.masked_fill(sample == float("-inf"), float("inf")).amin()
    parts: Parts = {f"{name}/min": (lowest, None), f"{name}/max": (sample.amax(), None)}
    if classes == 1:
        return parts
    wanted = _wanted(logits, labels, shifted, picked)
    valid = [(suffix, label, (label >= 0) & (label < classes)) for suffix, label in wanted.items()]
    weights = valid[0][2] if valid else _kept(logits, mask, picked)
    entropy = torch.special.entr(torch.softmax(sample, dim=-1)).sum(dim=-1)
    parts[f"{name}/entropy"] = (entropy.masked_fill(~weights, 0.0).sum(), weights.sum())
    best = sample.argmax(dim=-1)
    for suffix, label, counted in valid:
        parts[f"{name}/top1_agreement{suffix}"] = (((best == label) & counted).sum(), counted.sum())
    return parts


def _spread(rows: int, device: Any) -> Any:
    """Up to `POSITIONS` row numbers all over the tensor; the same ones for the same number of rows."""
    torch = _torch()
    if rows <= POSITIONS:
        return torch.arange(rows, device=device)
    return (torch.arange(POSITIONS, device=device, dtype=torch.int64) * _STRIDE) % rows


def _wanted(logits: Any, labels: Any, shifted: bool | None, picked: Any) -> dict[str, Any]:
    """Labels at the picked rows, by the suffix that tells how they are aligned."""
    if labels is None or tuple(labels.shape) != tuple(logits.shape[:-1]):
        return {}
    labels = labels.detach().to(logits.device, non_blocking=True)
    ways = {"": shifted} if shifted is not None or labels.ndim < 2 else {"_next": True, "_same": False}
    return {
        suffix: (shifted_labels(labels) if shift and labels.ndim >= 2 else labels).reshape(-1).index_select(0, picked)
        for suffix, shift in ways.items()
    }


def shifted_labels(labels: Any) -> Any:
    """Labels moved one position to the left, so that each position holds the next one's; the last is ignored.

    >>> import torch
    >>> shifted_labels(torch.tensor([[5, 6, 7]])).tolist()
    [[6, 7, -100]]
    """
    moved = labels.roll(-1, dims=-1)
    moved[..., -1] = IGNORED
    return moved


def _kept(logits: Any, mask: Any, picked: Any) -> Any:
    torch = _torch()
    if mask is None or tuple(getattr(mask, "shape", ())) != tuple(logits.shape[:-1]):
        return torch.ones(picked.shape, dtype=torch.bool, device=logits.device)
    return (mask != 0).to(logits.device, non_blocking=True).reshape(-1).index_select(0, picked)


def similarity_parts(name: str, reference: Any, generated: Any) -> Parts:
    """Cosine similarity of embeddings of shape (d) or (n, d): mean and smallest; pairs are rows of the same number.

    A single reference is compared with every generated one. Vectors of length zero have a similarity of 0. Shapes that
    do not fit raise ValueError.

    >>> import torch
    >>> parts = similarity_parts("speaker_similarity", torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> read(parts)
    {'speaker_similarity': 0.5, 'speaker_similarity_min': 0.0}
    """
    torch = _torch()
    first, second = (torch.as_tensor(t).detach().float() for t in (reference, generated))
    first, second = (t.reshape(-1, t.shape[-1]) if t.ndim else t.reshape(1, 1) for t in (first, second))
    if first.shape[-1] != second.shape[-1] or (1 not in (len(first), len(second)) and len(first) != len(second)):
        raise ValueError(
            f"speaker embeddings of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be compared; "
            "pass one reference or as many as there are generated ones, of the same width"
        )
    similarity = torch.nn.functional.cosine_similarity(first.to(second.device), second, dim=-1)
    if not similarity.numel():
        return {}
    return {name: (similarity.sum(), _count(similarity)), f"{name}_min": (similarity.amin(), None)}


def read(parts: Parts) -> dict[str, float]:
    """The numbers, with one wait for each device; a statistic of nothing (a count of 0) is left out."""
    torch = _torch()
    flat = [tensor for pair in parts.values() for tensor in pair if hasattr(tensor, "device")]
    by_device: dict[Any, list[Any]] = {}
    for tensor in flat:
        by_device.setdefault(tensor.device, []).append(tensor)
    values: dict[int, float] = {}
    for device, tensors in by_device.items():
        wide = torch.float32 if device.type == "mps" else torch.float64
        listed = torch.stack([tensor.detach().to(wide) for tensor in tensors]).tolist()
        values |= {id(tensor): value for tensor, value in zip(tensors, listed, strict=True)}

    def number(given: Any) -> float:
        return values[id(given)] if id(given) in values else float(given)

    counted = [(name, number(total), 1.0 if of is None else number(of)) for name, (total, of) in parts.items()]
    return {name: total / of for name, total, of in counted if of != 0}
