"""How much attention text and audio positions pay to each other, where a model hands its attentions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eventstream.batch_statistics import Parts
from eventstream.optional import need

__all__ = ["AudioPositions", "attention_parts", "audio_positions"]

#: How a caller says which positions are audio: the key of a mask in the batch, or a function of the batch.
AudioPositions = str | Callable[[Mapping[str, Any]], Any]

#: Keys of a batch under which a mask over the sequence says what is audio (1) and what is text (0).
_MASKS = ("audio_token_mask", "audio_positions", "audio_mask", "is_audio", "modality_mask", "token_modality")
#: Attributes of a configuration that hold the token that stands for audio in `input_ids`.
_TOKENS = (
    "audio_token_id",
    "audio_token_index",
    "audio_in_token_idx",
    "audio_out_token_idx",
    "audio_placeholder_token_id",
)
#: Most elements of one layer's attention that are averaged at a time.
_ELEMENTS = 1 << 22


def audio_positions(batch: Mapping[str, Any], config: object, given: AudioPositions | None) -> Any:
    """Mask of shape (batch, positions), True where a position is audio; None where nothing tells.

    In order: what the caller `given` says, a mask of the batch known by its name, the audio tokens that the model's
    configuration names (`audio_token_id` and the like) found in `input_ids`.
    """
    if given is not None:
        found = batch.get(given) if isinstance(given, str) else given(batch)
        return None if found is None else found != 0
    width = getattr(batch.get("input_ids"), "shape", None)
    for name in _MASKS:
        mask = batch.get(name)
        if getattr(mask, "ndim", 0) == 2 and (width is None or mask.shape == width):  # type: ignore[union-attr]
            return mask != 0
    tokens = [token for name in _TOKENS if isinstance(token := getattr(config, name, None), int)]
    ids = batch.get("input_ids")
    if not tokens or getattr(ids, "ndim", 0) != 2:
        return None
    found = ids == tokens[0]
    for token in tokens[1:]:
        found = found | (ids == token)
    return found


def attention_parts(attentions: Iterable[Any], audio: Any, mask: Any = None) -> Parts:
    """Share of the attention of audio positions that goes to text, and of text positions that goes to audio.

    `attentions` are the layers' weights of shape (batch, heads, queries, keys), rows adding up to 1; `audio` is a mask
    (batch, positions). Means over layers, heads and the positions that `mask` keeps, over the first sequences of the
    batch (as many as make four million weights a layer, at least one). Layers without weights, or of other widths than
    `audio`, are left out; a batch without audio or without text has no share.

    >>> import torch
    >>> from eventstream.batch_statistics import read
    >>> weights = torch.tensor([[[[1.0, 0.0], [0.75, 0.25]]]])
    >>> read(attention_parts([weights], torch.tensor([[False, True]])))
    {'outputs/attention/audio_to_text': 0.75, 'outputs/attention/text_to_audio': 0.0}
    """
    torch = need("torch", feature="attention sharing", extra="checkpoints")
    width = int(audio.shape[-1])
    layers = [
        layer
        for layer in attentions
        if getattr(layer, "ndim", 0) == 4 and tuple(layer.shape[-2:]) == (width, width) and layer.numel()
    ]
    if not layers:
        return {}
    first = layers[0]
    taken = max(1, min(int(first.shape[0]), _ELEMENTS // (int(first.shape[1]) * width * width)))
    audio = audio[:taken].to(first.device, non_blocking=True)
    real = torch.ones_like(audio) if mask is None else (mask[:taken] != 0).to(first.device, non_blocking=True)
    sound, text = (audio & real).float(), (~audio & real).float()
    to_text, to_audio = torch.zeros((), device=first.device), torch.zeros((), device=first.device)
    for layer in layers:
        heads = layer[:taken].detach().float().mean(dim=1).to(first.device)
        to_text = to_text + (sound * (heads @ text.unsqueeze(-1)).squeeze(-1)).sum()
        to_audio = to_audio + (text * (heads @ sound.unsqueeze(-1)).squeeze(-1)).sum()
    both = (sound.sum() > 0) & (text.sum() > 0)
    return {
        "outputs/attention/audio_to_text": (to_text, both * sound.sum() * len(layers)),
        "outputs/attention/text_to_audio": (to_audio, both * text.sum() * len(layers)),
    }
