"""What one batch in many went in with and came out with: contracts of the first in full, numbers of every N-th."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from eventstream import batch_statistics
from eventstream.attention_sharing import AudioPositions, attention_parts, audio_positions
from eventstream.batch_names import (
    GENERATED_SPEAKER,
    REFERENCE_SPEAKER,
    given_status,
    logit_heads,
    output_items,
    returned_status,
)
from eventstream.batch_statistics import Parts
from eventstream.layers import argument_names, bare_module, model_layers, named_arguments
from eventstream.payloads import tensors as described
from eventstream.recorder import Recorder
from eventstream.troubles import Troubles

__all__ = ["Batch", "Batches", "check_every", "label_shift"]

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "DoubleHeadsModel")
_ALIGNED = ("ForMaskedLM", "ForTokenClassification", "ForSequenceClassification", "ForPreTraining", "ForCTC")


def check_every(every: object) -> int:
    """`every` where it is a whole number from 1, else ValueError."""
    if type(every) is not int or every < 1:
        raise ValueError(f"every must be a whole number of steps from 1, got {every!r}")
    return every


def label_shift(model: Any) -> bool | None:
    """Whether the labels of a model are the next tokens (it shifts them inside), by its class; None for a foreign one.

    >>> class GPT2LMHeadModel: ...
    >>> class Mine: ...
    >>> label_shift(GPT2LMHeadModel()), label_shift(Mine()) is None
    (True, True)
    """
    name = type(model).__name__
    if any(part in name for part in _ALIGNED):
        return False
    if any(part in name for part in _CAUSAL):
        return not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return None


class Batches:
    """Decides which batches are looked at, and keeps what is known of the model between them.

    The first batch of training and of evaluation is recorded in full (`inputs` and `outputs` events); the first
    micro-batch of every `every`-th step, and the first batch of each evaluation, as numbers.
    """

    def __init__(self, every: int, shift_labels: bool | None, audio: AudioPositions | None) -> None:
        self.every = every
        self.inner: Any = None
        self._shift, self._audio = shift_labels, audio
        self._troubles: Troubles | None = None
        self.start()

    def start(self) -> None:
        """Begin anew: the next batch of each split is a first one."""
        self._full: set[str] = set()
        self._last: dict[str, int] = {}

    def next_evaluation(self) -> None:
        """The evaluation is over: the next batch of one is looked at."""
        self._last.pop("eval", None)

    def due(self, step: int, split: str) -> bool:
        """Whether the batch that begins now is to be looked at; asked once for each."""
        last = self._last.get(split)
        if last == step or (split == "train" and last is not None and step % self.every):
            return False
        if split != "train" and last is not None:
            return False
        self._last[split] = step
        return True

    def watch(self, recorder: Recorder, model: Any, batch: Any, step: int, split: str) -> Batch:
        """A `with` block around one training or prediction step."""
        full = split not in self._full
        self._full.add(split)
        return Batch(self, recorder, model, batch, step, split, full)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_troubles": None}  # what was said in this process is not said in another

    def settings(self, model: Any) -> tuple[bool | None, AudioPositions | None, Any]:
        """Whether labels are shifted, where audio is, and the configuration of the model."""
        bare = bare_module(model)
        return (label_shift(bare) if self._shift is None else self._shift, self._audio, getattr(bare, "config", None))

    def trouble(self, recorder: Recorder, error: Exception) -> None:
        """Say once that batches cannot be recorded as they should; the training goes on."""
        if self._troubles is None:
            self._troubles = Troubles(str(recorder.path))
        self._troubles.lose(error)


class Batch:
    """One batch that is looked at: a hook sees the model's call, and only numbers of it outlive the call."""

    def __init__(
        self, owner: Batches, recorder: Recorder, model: Any, batch: Any, step: int, split: str, full: bool
    ) -> None:
        self._owner, self._recorder, self._model, self._full = owner, recorder, model, full
        self._step, self._split = step, split
        self._given: Mapping[str, Any] = batch if isinstance(batch, Mapping) else {"0": batch}
        self._parts: Parts = {}
        self._handle: Any = None
        self._names: tuple[str, ...] = ()

    def __enter__(self) -> Batch:
        try:
            stage = "training_step" if self._split == "train" else "prediction_step"
            if self._full:
                self._event("inputs", stage, self._given, {})
            target = model_layers(self._model, self._owner.inner)[-1][1]
            self._names = argument_names(target)
            self._handle = target.register_forward_hook(self._called, with_kwargs=True)
        except Exception as error:  # noqa: BLE001 - models raise what they like, and training must go on
            self._owner.trouble(self._recorder, error)
        return self

    def _called(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        """The hook: of the first call of the model within the step, everything is taken that will be recorded."""
        if self._handle is None:
            return
        self._release()
        try:
            given = named_arguments(self._names, args, kwargs)
            if self._full:
                self._event("inputs", "forward", _without_none(given), given_status(given, self._names))
                self._event("outputs", "forward", output_items(outputs), returned_status(outputs))
            self._parts = self._statistics(given, output_items(outputs))
        except Exception as error:  # noqa: BLE001 - as above
            self._owner.trouble(self._recorder, error)

    def _statistics(self, given: Mapping[str, Any], outputs: Mapping[str, Any]) -> Parts:
        import torch

        shifted, audio, config = self._owner.settings(self._model)
        # What forward was given counts; of the batch only what it was not given, such as labels for an outer loss.
        batch = {**self._given, **_without_none(given)}
        with torch.no_grad():
            parts = batch_statistics.input_parts(batch, getattr(config, "pad_token_id", None))
            parts |= batch_statistics.output_parts(outputs, batch, shifted)
            parts |= self._attention(batch, outputs, config, audio)
            return parts | _speakers(batch, outputs)

    def _attention(
        self, batch: Mapping[str, Any], outputs: Mapping[str, Any], config: object, audio: AudioPositions | None
    ) -> Parts:
        layers = outputs.get("attentions")
        if not isinstance(layers, (tuple, list)):
            return {}
        where = audio_positions(batch, config, audio)
        if where is not None:
            return attention_parts(layers, where, batch.get("attention_mask"))
        if self._full and _about_audio(batch, outputs):
            text = (
                "the model returns attentions and reads audio, and nothing tells which positions are audio: pass "
                "audio_positions= (the key of a mask, or a function of the batch) to record how they share attention"
            )
            self._recorder.note(text, step=self._step)
        return {}

    def _event(self, kind: str, stage: str, tensors: Mapping[str, Any], status: Mapping[str, str]) -> None:
        payload = described(stage, tensors, status or None)
        self._recorder.event(kind, payload, step=self._step, split=self._split)

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unseen = self._handle is not None
        self._release()
        given, self._given = self._given, {}
        try:
            if unseen and kind is None:
                self._parts = batch_statistics.input_parts(given)
                if self._full:
                    text = "the model's call was not seen within the step: it was called past its hooks, or not at all"
                    self._recorder.note(text, step=self._step, level="warning")
            values = batch_statistics.read(self._parts)
        except Exception as trouble:  # noqa: BLE001 - as above
            self._owner.trouble(self._recorder, trouble)
        else:
            if values:
                self._recorder.log(self._step, values, split=self._split)
        self._parts = {}


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _about_audio(batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    return any("audio" in name or "mel" in name for name in (*batch, *logit_heads(outputs)))


def _speakers(batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> Parts:
    """Similarity of the voice that was asked for and the one that came out, where both embeddings are there."""
    reference = next((batch[name] for name in REFERENCE_SPEAKER if batch.get(name) is not None), None)
    generated = next((outputs[name] for name in GENERATED_SPEAKER if outputs.get(name) is not None), None)
    if reference is None or generated is None:
        return {}
    return batch_statistics.similarity_parts("speaker_similarity", reference, generated)
