"""The Hugging Face adapter at default settings: what it adds to a step of the Trainer with a tiny model.

One in a hundred is far below the noise of whole trainings on a shared machine, so that what is added is measured by
itself: the same step with and without recording in turn, batches that are looked at and batches between apart, and put
together as they come in a training with the Trainer's and our own defaults. Seconds are those of the thread.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.measure import Row

#: Defaults of `AftertrainCallback` and of TrainingArguments.
EVERY, LOGGING = 100, 500
WORDS, LENGTH, BATCH = 64, 64, 8


def _model() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, **ids))


def _trainer(cls: Any, folder: Path, callbacks: list[Any], steps: int) -> Any:
    import torch
    from transformers import TrainingArguments

    ids = torch.randint(1, WORDS, (256, LENGTH), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids]
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return cls(model=_model(), args=args, train_dataset=rows, callbacks=callbacks)


def _turns(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median milliseconds of each call, taking turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for own, call in zip(times, calls, strict=True):
            start = time.thread_time()
            call()
            own.append((time.thread_time() - start) * 1e3)
    return [statistics.median(own) for own in times]


def _whole_step(folder: Path, steps: int) -> float:
    """Milliseconds of a step of the plain Trainer: data, forward, backward, optimiser, everything."""
    from transformers import Trainer

    trainer = _trainer(Trainer, folder / "plain", [], steps)
    trainer.train()
    start = time.thread_time()
    trainer.train()
    return (time.thread_time() - start) / steps * 1e3


def _looked(folder: Path, rounds: int) -> tuple[float, float]:
    """Milliseconds added by a batch that is looked at, forward and backward included in both; and by a log."""
    from transformers import Trainer

    import aftertrain as at

    class Recorded(at.RecordingTrainer, Trainer): ...

    callback = at.AftertrainCallback(folder / "run")
    trainer = _trainer(Recorded, folder / "recorded", [callback], 3)
    trainer.train()
    model, batch = trainer.model_wrapped, next(iter(trainer.get_train_dataloader()))

    def plain() -> None:
        Trainer.training_step(trainer, model, batch, None)

    def looked() -> None:
        callback.batches._last["train"], trainer.state.global_step = -1, EVERY - 1
        trainer.training_step(model, batch, None)

    without, full = _turns([plain, looked], rounds)
    logs = {"loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.5}
    (log,) = _turns([lambda: callback.on_log(trainer.args, trainer.state, trainer.control, logs=logs)], rounds)
    return full - without, log


def _between(folder: Path, calls: int, rounds: int) -> tuple[float, float]:
    """Milliseconds added to a step that is not looked at by the mixin, and by `watch_inputs`: nothing else is done."""
    import torch
    from transformers import Trainer

    import aftertrain as at

    class Idle(torch.nn.Module):
        def forward(self, **kwargs: Any) -> None:
            return None

    class Bare(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            return self.compute_loss(model, self._prepare_inputs(inputs))

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return model(**inputs)

    class Recorded(at.RecordingTrainer, Bare): ...

    callback = at.AftertrainCallback(folder / "idle")
    made = [
        _trainer(cls, folder / "bare", callbacks, 1)
        for cls, callbacks in ((Bare, []), (Recorded, [callback]), (Bare, []))
    ]
    batch = next(iter(made[0].get_train_dataloader()))
    with at.Recorder(folder / "watched") as recorder:
        models = [Idle() for _ in made]
        made[2].model = models[2]
        at.watch_inputs(made[2], recorder, forbid={"reward"}, require={"input_ids"})
        callback.batches._last["train"] = 1  # the first batch has been looked at

        def steps(trainer: Any, model: Any) -> Callable[[], None]:
            def call() -> None:
                for _ in range(calls):
                    trainer.training_step(model, batch, None)

            return call

        times = _turns([steps(trainer, model) for trainer, model in zip(made, models, strict=True)], rounds)
    bare, recorded, watched = (total / calls for total in times)
    return recorded - bare, watched - bare


def rows(quick: bool = False) -> list[Row]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")  # the frameworks warn of each other
            step = _whole_step(Path(name), 20 if quick else 200)
            looked, log = _looked(Path(name), 9 if quick else 301)
            between, watched = _between(Path(name), 50, 5 if quick else 101)
    finally:
        torch.set_num_threads(threads)
    recorded = step + between + looked / EVERY + log / LOGGING
    other = "Trainer without it"
    note = f"added: {between * 1e3:.1f} us a step, {looked:.2f} ms a batch looked at (1 in {EVERY}), {log:.2f} ms a log"
    watching = f"added: {watched * 1e3:.0f} us a step"
    return [
        Row.at_most("a step of the HF Trainer, recorded", recorded, other, step, 1.01, unit="ms", note=note),
        Row.at_most("the same under watch_inputs", step + watched, other, step, 1.01, unit="ms", note=watching),
    ]
