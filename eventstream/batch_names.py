"""What the tensors of a batch and of a model's output are, from their names: tables as data, nothing computed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "GENERATED_SPEAKER",
    "REFERENCE_SPEAKER",
    "conditioning",
    "given_status",
    "head_labels",
    "label_keys",
    "logit_heads",
    "mask_keys",
    "output_items",
    "returned_status",
]

#: Names of what tells the model how to sound or look, besides the text: a speaker, a reference, a style.
_CONDITIONING = re.compile(
    r"(^|_)(speaker|spk|x_?vectors?|d_?vectors?|cond(itioning)?|global_cond|reference|ref|style|emotion|whisper"
    r"|prompt_(audio|speech|mel|wav)|audio_features?|clap|clip)(_|s?$)",
    re.IGNORECASE,
)
#: Parts of such an input that say how to read it.
_ACCESSORY = re.compile(r"(mask|masks|start|loc|ids?|lengths?|lens?|types?)$", re.IGNORECASE)
_LOGITS = re.compile(r"(?:(?P<head>\w+?)_)?(?:logits?|prediction_scores)", re.IGNORECASE)
_MASK = re.compile(r"(?:(?P<of>\w+?)_)?attention_mask")
_LABELS = re.compile(r"(?:\w+_)?labels?(?:_\w+)?|label_\w+|targets?|\w+_targets?")
#: What the model reads: one of them is enough, and `input_ids` is what people look for first.
_TOKENS = ("input_ids", "inputs_embeds", "input_features", "input_values", "pixel_values", "decoder_input_ids")
#: Speaker embeddings of the voice to be cloned (in the batch) and of what was generated (in the output).
REFERENCE_SPEAKER = (
    "reference_speaker_embedding",
    "reference_embedding",
    "speaker_embedding",
    "speaker_embeddings",
    "speaker_embeds",
    "spk_emb",
    "x_vector",
    "x_vectors",
    "xvector",
)
GENERATED_SPEAKER = (
    "generated_speaker_embedding",
    "generated_speaker_embeddings",
    "generated_embedding",
    "predicted_speaker_embedding",
    "output_speaker_embedding",
)


def conditioning(name: str) -> bool:
    """Whether an input of this name conditions the model, beside the text that it reads.

    >>> [conditioning(n) for n in ("speaker_embeddings", "x_vector", "audio_features", "audio_feature_attention_mask")]
    [True, True, True, False]
    """
    return _CONDITIONING.search(name) is not None and _ACCESSORY.search(name) is None


def given_status(given: Mapping[str, Any], accepted: tuple[str, ...]) -> dict[str, str]:
    """In words, what stands with the tokens and each conditioning input, as given and as `forward` would accept.

    `present`; `disabled (None)` where the call passes None for it; `not given` where `forward` has a parameter for it
    and the call leaves it out, which many models mean to allow.

    >>> given_status({"input_ids": [1], "speaker_embedding": None}, ("input_ids", "x_vector"))
    {'input_ids': 'present', 'speaker_embedding': 'disabled (None)', 'x_vector': 'not given'}
    """
    tokens = [name for name in _TOKENS if given.get(name) is not None][:1]
    status = dict.fromkeys(tokens, "present")
    for name in dict.fromkeys([*given, *accepted]):
        if conditioning(name):
            there = "present" if given.get(name) is not None else "disabled (None)"
            status[name] = there if name in given else "not given"
    return status


def output_items(outputs: Any) -> dict[str, Any]:
    """What a model gave back, by name: of a mapping or dataclass its keys, of a tuple positions (`loss`, `logits`).

    >>> output_items({"logits": [1], "attentions": None})
    {'logits': [1]}
    """
    if isinstance(outputs, Mapping):
        return {str(key): value for key, value in outputs.items() if value is not None}
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        fields = ((field.name, getattr(outputs, field.name)) for field in dataclasses.fields(outputs))
        return {name: value for name, value in fields if value is not None}
    if isinstance(outputs, (tuple, list)):
        return dict(_positions(outputs))
    return {"logits": outputs} if getattr(outputs, "ndim", 0) >= 2 else {"0": outputs}


def _positions(outputs: tuple[Any, ...] | list[Any]) -> Iterator[tuple[str, Any]]:
    """A scalar first is the loss, and the first tensor of two dimensions or more is the logits."""
    named = False
    for place, value in enumerate(outputs):
        if value is None:
            continue
        ndim = getattr(value, "ndim", None)
        if place == 0 and ndim == 0:
            yield "loss", value
        elif not named and ndim is not None and ndim >= 2:
            named = True
            yield "logits", value
        else:
            yield str(place), value


def logit_heads(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The logits of each head, by the name in the output: floating tensors of two dimensions or more.

    >>> import numpy as np
    >>> list(logit_heads({"audio_logits": np.zeros((2, 3)), "loss": np.zeros(()), "logits": None}))
    ['audio_logits']
    """
    return {
        name: value
        for name, value in outputs.items()
        if _LOGITS.fullmatch(name) and getattr(value, "ndim", 0) >= 2 and "float" in str(getattr(value, "dtype", ""))
    }


def head_labels(head: str, batch: Mapping[str, Any]) -> str | None:
    """Key of the labels that belong to the logits of this name, or None where the batch has none.

    >>> head_labels("audio_logits", {"labels": 1, "label_audio_ids": 2}), head_labels("text_logits", {"labels": 1})
    ('label_audio_ids', 'labels')
    >>> head_labels("audio_logits", {"labels": 1}) is None
    True
    """
    found = _LOGITS.fullmatch(head)
    kind = (found["head"] or "") if found else ""
    own = (f"{kind}_labels", f"labels_{kind}", f"label_{kind}_ids", f"{kind}_label_ids", f"{kind}_targets")
    shared = ("labels", "label_ids", "label") if kind in ("", "text", "lm", "prediction") else ()
    return next((key for key in (*(own if kind else ()), *shared) if batch.get(key) is not None), None)


def returned_status(outputs: Any) -> dict[str, str]:
    """In words, which logits a model gave back: `present`, or `not returned` where its output has a place for them."""
    heads = dict.fromkeys(logit_heads(output_items(outputs)), "present")
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        places = (field.name for field in dataclasses.fields(outputs))
        heads |= {name: "not returned" for name in places if _LOGITS.fullmatch(name) and name not in heads}
    return heads


def mask_keys(batch: Mapping[str, Any]) -> dict[str, str]:
    """Key of each two-dimensional attention mask, by what it masks; the text's is the empty name.

    >>> import numpy as np
    >>> mask_keys({"attention_mask": np.ones((2, 3)), "audio_feature_attention_mask": np.ones((2, 9)), "x": 1})
    {'': 'attention_mask', 'audio_feature': 'audio_feature_attention_mask'}
    """
    found = ((key, _MASK.fullmatch(key)) for key, value in batch.items() if getattr(value, "ndim", 0) == 2)
    return {match["of"] or "": key for key, match in found if match}


def label_keys(batch: Mapping[str, Any]) -> list[str]:
    """Keys of integer labels, in the order of the batch."""
    return [
        key
        for key, value in batch.items()
        if _LABELS.fullmatch(key) and "int" in str(getattr(value, "dtype", "")) and getattr(value, "ndim", 0) >= 1
    ]
