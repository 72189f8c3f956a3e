"""The Hugging Face Trainer, recorded: `AftertrainCallback` for what it logs, `RecordingTrainer` for its batches too."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from eventstream.optional import need
from eventstream.trainer_callback import CallbackCore

if TYPE_CHECKING:
    from eventstream.trainer_callback import CallbackCore as AftertrainCallback

__all__ = ["AftertrainCallback", "RecordingTrainer", "callback_of", "ensured_callback"]


def __getattr__(name: str) -> Any:
    # A class must name its bases when it is made, and ours is a class of transformers: it is made when first used.
    if name == "AftertrainCallback":
        return _callback_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _callback_class() -> type[CallbackCore]:
    transformers = need("transformers", feature="AftertrainCallback", extra="huggingface")
    body = {"__doc__": CallbackCore.__doc__, "__module__": __name__}
    return type("AftertrainCallback", (CallbackCore, transformers.TrainerCallback), body)


class RecordingTrainer:
    """A mixin that shows the Trainer's batches to the recorder: `class MyTrainer(RecordingTrainer, Trainer)`.

    It stands first among the bases. The first batch of the training and of the evaluation is recorded in full: what
    `training_step` was given and what the model's `forward` was given and gave back (names, shapes, dtypes, devices;
    logits, tokens and conditioning inputs that are present, disabled or not given). Of one batch in `every` steps (of
    the `AftertrainCallback` among the callbacks; `train` adds one where there is none) and of the first batch of each
    evaluation, numbers are recorded under the split `train` or `eval`:

    | name | meaning |
    |---|---|
    | `inputs/batch_size`, `inputs/length_mean`, `..._min`, `..._max` | sequences, and their lengths without padding |
    | `inputs/padding_share` | share of padding; of another mask than the text's, `inputs/audio_feature/...` |
    | `inputs/labels/ignored_share` | share of labels that are -100, for each key of labels |
    | `outputs/logits/min`, `outputs/logits/max` | range; each head by its name (`outputs/audio_logits/...`) |
    | `outputs/logits/entropy` | mean entropy in nats |
    | `outputs/logits/top1_agreement` | share of labels that are the largest logit |
    | `outputs/attention/audio_to_text`, `.../text_to_audio` | share of attention that goes to the other stream |
    | `speaker_similarity`, `speaker_similarity_min` | cosine of reference and generated speaker embeddings |

    Logits are looked at in at most 512 positions, spread over the batch. Whether labels are the next tokens is known by
    the model's class; of a class that does not tell, `top1_agreement_next` and `top1_agreement_same` are recorded.

    The arguments of `training_step` and `prediction_step` are passed on as given, by name or position, whatever the
    release of transformers calls them with. Inputs, outputs and randomness are not touched, and nothing of a batch is
    kept after its step. Between the batches that are looked at a step costs about a microsecond more and never waits
    for the device; a batch that is looked at makes it wait once.

    >>> class Trainer:  # stands for transformers.Trainer
    ...     def training_step(self, model, inputs, num_items_in_batch=None):
    ...         return model(**inputs)
    >>> class MyTrainer(RecordingTrainer, Trainer): ...
    >>> MyTrainer().training_step(lambda x: x + 1, {"x": 1}, num_items_in_batch=8)
    2
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(RecordingTrainer)]
        for base in before:
            if not issubclass(base, RecordingTrainer) and hasattr(base, "train") and hasattr(base, "training_step"):
                raise TypeError(
                    f"{cls.__name__}: RecordingTrainer must stand before {base.__name__} among the bases, "
                    f"else it never sees a batch: class {cls.__name__}(RecordingTrainer, {base.__name__})"
                )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and record how it ended where it did not end well."""
        callback = ensured_callback(self)
        callback.sees_batches = True
        try:
            return super().train(*args, **kwargs)  # type: ignore[misc]
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            callback.close(status, f"{type(error).__name__}: {error}".removesuffix(": ")[:4000])
            raise

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The step of the Trainer below, its batch looked at when it is due."""
        callback = callback_of(self)
        if callback is None or not callback.batches.due(step := self.state.global_step + 1, "train"):  # type: ignore[attr-defined]
            return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        recorder = callback.recorder_for(self.args)  # type: ignore[attr-defined]
        with callback.batches.watch(recorder, model, inputs, step, "train"):
            return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The same for the first batch of each evaluation."""
        callback = callback_of(self)
        if callback is None or not callback.batches.due(step := self.state.global_step, "eval"):  # type: ignore[attr-defined]
            return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        recorder = callback.recorder_for(self.args)  # type: ignore[attr-defined]
        with callback.batches.watch(recorder, model, inputs, step, "eval"):
            return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def speaker_similarity(self, reference: Any, generated: Any) -> None:
        """Record how alike reference and generated speaker embeddings are, at the step that the training is in."""
        callback = callback_of(self)
        if callback is not None:
            callback.speaker_similarity(self.state.global_step, reference, generated)  # type: ignore[attr-defined]


def callback_of(trainer: Any) -> CallbackCore | None:
    """The `AftertrainCallback` of a trainer, or None where it has none."""
    handler = getattr(trainer, "callback_handler", None)
    return next((c for c in getattr(handler, "callbacks", ()) if isinstance(c, CallbackCore)), None)


def ensured_callback(trainer: Any) -> CallbackCore:
    """The `AftertrainCallback` of a trainer, added to it where it has none."""
    found = callback_of(trainer)
    if found is None:
        found = _callback_class()()
        trainer.add_callback(found)
    return found
