"""The Trainer of transformers itself, recorded: what stands in the stream, and that the training is what it was."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

import aftertrain as at
from eventstream.batches import Batches
from eventstream.errors import InputError, RecordingWarning
from parsers.run import Run
from tests.eventstream.tiny_models import WORDS, Spoken, TextAndAudio, arguments, language_model, sentences, spoken

TOKEN = "hf_" + "Ab1" * 12


class Recorded(at.RecordingTrainer, Trainer):
    """What a user writes."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(folder: Path, cls: type[Any] = Recorded, *, every: int = 5, callbacks: Any = None, **changes: Any) -> Any:
    """A trainer of the tiny language model with the callback, recording into `folder / run`."""
    rows = sentences()
    given = [at.AftertrainCallback(folder / "run", every=every)] if callbacks is None else callbacks
    return cls(
        model=language_model(),
        args=arguments(folder, **changes),
        train_dataset=rows,
        eval_dataset=rows[:8],
        callbacks=given,
    )


def payloads(run: Run, kind: str, split: str | None = None) -> list[dict[str, Any]]:
    events = run.events_of(kind)
    events = events if split is None else events.filter(pl.col("split") == split)
    return [json.loads(payload) for payload in events["payload"]]


def steps(run: Run, metric: str, split: str = "train") -> list[int]:
    return run.series(metric, split=split, live=False)["step"].to_list()


def texts(run: Run) -> list[str]:
    return [payload["text"] for payload in payloads(run, "note")]


def test_the_first_batch_is_recorded_in_full_and_every_nth_as_numbers(tmp_path: Path):
    trainer = made(tmp_path)
    trainer.train()
    run = at.load(tmp_path / "run")
    before, inside = payloads(run, "inputs", "train")
    assert (before["stage"], inside["stage"]) == ("training_step", "forward")
    about = {"shape": [4, 12], "dtype": "int64", "device": "cpu"}
    assert before["tensors"] == dict.fromkeys(["input_ids", "attention_mask", "labels"], about)
    assert about == inside["tensors"]["labels"] and inside["status"] == {"input_ids": "present"}
    (outputs,) = payloads(run, "outputs", "train")
    assert outputs["tensors"]["logits"] == {"shape": [4, 12, WORDS], "dtype": "float32", "device": "cpu"}
    assert outputs["status"] == {"logits": "present"}
    assert steps(run, "inputs/padding_share") == steps(run, "outputs/logits/entropy") == [1, 5, 10]
    for metric, value in (
        ("padding_share", 0.25),
        ("labels/ignored_share", 2 / 12),
        ("length_mean", 9),
        ("batch_size", 4),
    ):
        assert run.series(f"inputs/{metric}")["value"].to_list() == pytest.approx([value] * 3)


def test_the_numbers_are_those_of_the_model_itself(tmp_path: Path):
    model, batch = language_model(), {k: torch.stack([row[k] for row in sentences()[:4]]) for k in sentences()[0]}
    model.eval()
    with torch.no_grad():
        logits = model(**batch).logits
    trainer = made(tmp_path, max_steps=1)
    trainer.evaluate(sentences()[:4])
    run = at.load(tmp_path / "run")
    found = {row["metric"]: row["value"] for row in run.scalars.filter(pl.col("split") == "eval").to_dicts()}
    assert found["outputs/logits/min"] == pytest.approx(float(logits.min()))
    assert found["outputs/logits/max"] == pytest.approx(float(logits.max()))
    kept = batch["labels"][:, 1:] != -100
    entropy = torch.distributions.Categorical(logits=logits[:, :-1]).entropy()
    assert found["outputs/logits/entropy"] == pytest.approx(float(entropy[kept].mean()), rel=1e-5)
    hits = logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]
    assert found["outputs/logits/top1_agreement"] == pytest.approx(float(hits[kept].float().mean()))


def test_logs_evaluations_and_checkpoints_are_those_of_the_trainer(tmp_path: Path):
    trainer = made(tmp_path, save_strategy="steps", save_steps=6, eval_strategy="steps", eval_steps=4)
    trainer.train()
    trainer.predict(trainer.eval_dataset)
    run = at.load(tmp_path / "run")
    for tag in ("loss", "eval_loss", "grad_norm", "learning_rate"):
        expected = [(e["step"], e[tag], e["epoch"]) for e in trainer.state.log_history if tag in e]
        rows = run.scalars.filter((pl.col("tag") == tag) & (pl.col("attempt") == 0))
        assert rows.select("step", "value", "epoch").rows() == expected and len(expected) >= 3
    assert run.series("loss", split="train").height == 4 and run.series("loss", split="eval").height == 3
    assert run.series("loss", split="test").height == 1
    assert "train_loss" not in run.metrics and payloads(run, "summary")[0]["train_loss"] > 0
    saved = payloads(run, "checkpoint")
    assert [Path(c["path"]).name for c in saved] == ["checkpoint-6", "checkpoint-12"]
    size = sum(f.stat().st_size for f in (tmp_path / "checkpoint-12").rglob("*") if f.is_file())
    assert saved[1]["bytes"] == size
    assert steps(run, "outputs/logits/max", "eval") == [4, 8, 12, 12]
    assert at.diagnose(run).status == "healthy"


def test_a_digest_of_each_checkpoint_is_recorded_where_asked_for(tmp_path: Path):
    callback = at.AftertrainCallback(tmp_path / "run", digests=True)
    made(tmp_path, callbacks=[callback], save_strategy="steps", save_steps=12).train()
    (saved,) = payloads(at.load(tmp_path / "run"), "checkpoint")
    assert len(saved["sha256"]) == 64


def test_configuration_and_plan_are_recorded_and_no_secret_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_ENVIRONMENT", "enviro" + TOKEN)
    trainer = made(tmp_path, hub_token=TOKEN, learning_rate=1e-3, warmup_steps=4, lr_scheduler_type="cosine")
    trainer.model.config.api_key = TOKEN
    trainer.train()
    run = at.load(tmp_path / "run")
    assert run.config["learning_rate"] == 1e-3 and run.config["seed"] == 7
    assert run.config["model"]["class"] == "GPT2LMHeadModel" and run.config["model"]["config"]["n_layer"] == 2
    assert run.config["model"]["parameters"] == sum(p.numel() for p in trainer.model.parameters())
    assert run.plan["lr"] == {"schedule": "cosine", "peak": 1e-3, "warmup_steps": 4, "total_steps": 12}
    assert (
        run.plan["max_steps"] == 12
        and "hub_token" not in run.config
        and "eos_token_id" in run.config["model"]["config"]
    )
    assert not any(TOKEN.encode() in f.read_bytes() for f in (tmp_path / "run").iterdir() if f.is_file())
    assert TOKEN not in str(run.config) + str(run.events["payload"].to_list())


def _weights(model: Any) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 3}, {"label_smoothing_factor": 0.1}])
def test_training_is_bit_for_bit_what_it_is_without_recording(tmp_path: Path, changes: dict[str, Any]):
    plain = made(tmp_path / "plain", Trainer, callbacks=[], **changes)
    plain.train()
    recorded = made(tmp_path / "seen", every=1, **changes)
    with at.watch_inputs(recorded, forbid={"reward"}, require={"input_ids"}):
        recorded.train()
    assert _weights(recorded.model) == _weights(plain.model)
    assert [e.get("loss") for e in recorded.state.log_history] == [e.get("loss") for e in plain.state.log_history]


def test_accumulated_micro_batches_are_looked_at_once_a_step(tmp_path: Path):
    made(tmp_path, every=2, gradient_accumulation_steps=4, max_steps=6).train()
    run = at.load(tmp_path / "run")
    assert steps(run, "inputs/batch_size") == [1, 2, 4, 6] and steps(run, "loss") == [3, 6]
    assert len(payloads(run, "outputs", "train")) == 1


def test_a_resumed_training_is_the_next_attempt_of_the_same_run(tmp_path: Path):
    made(tmp_path, max_steps=12, save_strategy="steps", save_steps=6).train()
    second = made(tmp_path, max_steps=18)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    run = at.load(tmp_path / "run")
    rows = run.series("loss", live=False)
    assert rows.select("attempt", "step").rows() == [(0, 3), (0, 6), (0, 9), (0, 12), (1, 9), (1, 12), (1, 15), (1, 18)]
    assert run.series("loss", split="train")["step"].to_list() == [3, 6, 9, 12, 15, 18]
    assert texts(run) == ["training begins", "training ends", "training is resumed after step 6", "training ends"]
    assert steps(run, "inputs/batch_size") == [1, 5, 10, 7, 10, 15]
    assert run.plan["max_steps"] == 18


def test_evaluations_around_the_training_leave_its_rows_alone(tmp_path: Path):
    trainer = made(tmp_path)
    trainer.evaluate()
    assert at.diagnose(at.load(tmp_path / "run")).status == "healthy"
    trainer.train()
    assert steps(at.load(tmp_path / "run"), "loss") == [3, 6, 9, 12]
    trainer.evaluate()
    trainer.evaluate()
    run = at.load(tmp_path / "run")
    assert run.series("loss", split="eval", live=False)["attempt"].to_list() == [0, 1, 1]
    assert run.series("loss", split="train").height == 4
    assert run.events_of("end")["attempt"].unique().sort().to_list() == [0, 1]
    assert at.diagnose(run).status == "healthy"


def test_a_second_training_of_one_process_is_another_attempt(tmp_path: Path):
    trainer = made(tmp_path, max_steps=3)
    trainer.train()
    trainer.args.max_steps = 6
    trainer.train()
    run = at.load(tmp_path / "run")
    assert {end["status"] for end in payloads(run, "end")} == {"finished"}
    assert run.series("loss", live=False).select("attempt", "step").rows() == [(0, 3), (1, 3), (1, 6)]


class Breaking(TrainerCallback):
    """Ends the training in its fifth step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("out of luck"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_how_a_training_ended_badly_is_recorded_and_raised(tmp_path: Path, error: BaseException, status: str):
    callbacks = [at.AftertrainCallback(tmp_path / "run"), Breaking(error)]
    with pytest.raises(type(error)):
        made(tmp_path, callbacks=callbacks).train()
    (end,) = payloads(at.load(tmp_path / "run"), "end")
    assert end["status"] == status and type(error).__name__ in end["error"]


def test_a_process_that_ends_in_the_training_leaves_its_end(tmp_path: Path):
    program = (
        "import sys; from types import SimpleNamespace as N; from eventstream.trainer_callback import CallbackCore\n"
        f"callback = CallbackCore({str(tmp_path / 'run')!r}); args = N(output_dir='.'); state = N(global_step=0)\n"
        "callback.on_train_begin(args, state, None); sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 3
    (end,) = payloads(at.load(tmp_path / "run"), "end")
    assert end["status"] == "interrupted"


def test_a_given_recorder_stays_open_and_others_may_write_into_it(tmp_path: Path):
    with at.Recorder(tmp_path / "run", plan={"inputs": {"forward": {"require": ["input_ids"]}}}) as recorder:
        trainer = made(tmp_path, callbacks=[at.AftertrainCallback(recorder, every=3)])
        trainer.train()
        recorder.log(12, {"mine": 1.0})
    run = at.load(tmp_path / "run")
    assert run.config["seed"] == 7 and run.series("mine").height == 1 and run.events_of("end").height == 1
    assert at.diagnose(run).status == "healthy"


def test_without_a_callback_one_is_added_and_the_output_folder_is_the_run(tmp_path: Path):
    made(tmp_path / "tiny-run", callbacks=[EarlyStoppingCallback(3)], save_strategy="steps", save_steps=6,
         eval_strategy="steps", eval_steps=6, load_best_model_at_end=True).train()  # fmt: skip
    run = at.load(tmp_path / "tiny-run")
    assert run.name == "tiny-run" and run.series("loss", split="eval").height == 2
    assert run.series("outputs/logits/entropy", split="train").height == 1
    assert [r.name for r in at.load_all(tmp_path)] == ["tiny-run"]
    assert payloads(at.load(tmp_path / "tiny-run" / "aftertrain"), "best")[0]["best_metric"] > 0


class BlindCallback(TrainerCallback):
    """The four callbacks of seed 000 in one: they look for inputs and outputs where there are none."""

    def __init__(self, recorder: at.Recorder) -> None:
        self.recorder = recorder

    def on_log(self, args: Any, state: Any, control: Any, inputs: Any = None, outputs: Any = None, **kw: Any) -> None:
        step, found = state.global_step, {True: "FOUND", False: "NOT FOUND"}
        self.recorder.inputs(step, "on_log", {}, {"Input IDs": found[inputs is not None]})
        self.recorder.outputs(step, "on_log", {}, {"Logits": found[outputs is not None]})


def test_callbacks_see_nothing_and_the_trainer_sees_it_and_the_diagnosis_says_so(tmp_path: Path):
    with at.Recorder(tmp_path / "run") as recorder:
        made(tmp_path, callbacks=[BlindCallback(recorder), at.AftertrainCallback(recorder)]).train()
    found = {f.kind: f for f in at.diagnose(at.load(tmp_path / "run")).findings}
    assert set(found) == {"missing-input", "missing-output"}
    assert found["missing-output"].evidence["held_by"] == "forward"
    assert found["missing-input"].evidence["held_by"] == "training_step"
    assert "stage 'on_log' is blind" in found["missing-output"].causes[0]
    assert found["missing-output"].evidence["affected"] == found["missing-output"].evidence["reports"] == 5


def test_a_plain_trainer_shows_its_callback_nothing_and_that_is_not_called_healthy(tmp_path: Path):
    made(tmp_path, Trainer).train()
    run = at.load(tmp_path / "run")
    assert run.series("loss").height == 4 and "outputs/logits/max" not in run.metrics
    reasons = {n.kind: n.reason for n in at.diagnose(run, checks=["contracts"]).not_applicable}
    assert "only stage recorded (on_log) was handed no inputs and no outputs" in reasons["missing-output"]


class OldSteps(Trainer):
    """A trainer with the signatures of releases before 4.46."""

    def training_step(self, model: Any, inputs: Any) -> Any:  # type: ignore[override]
        return super().training_step(model, inputs)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class OldRelease(at.RecordingTrainer, OldSteps):
    """Called as those releases call: two arguments, by position."""


class OldCaller(OldRelease):
    def training_step(self, model: Any, inputs: Any, *_: Any) -> Any:  # type: ignore[override]
        return super().training_step(model, inputs)


class ByName(Recorded):
    """A release that passes everything by name."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        return super().training_step(model=model, inputs=inputs, num_items_in_batch=num_items_in_batch)


class OwnLoss(Recorded):
    """A user's loss that knows nothing of return_outputs in training, and takes the labels out of the batch."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("cls", [OldCaller, ByName, OwnLoss])
def test_other_signatures_and_own_losses_are_recorded_alike(tmp_path: Path, cls: type[Any]):
    trainer = made(tmp_path, cls)
    with at.watch_inputs(trainer, require={"input_ids"}) as watch:
        trainer.train()
    assert watch.calls["training_step"] == watch.calls["forward"] == 12
    run = at.load(tmp_path / "run")
    assert steps(run, "outputs/logits/top1_agreement") == [1, 5, 10]
    assert at.diagnose(run).status == "healthy"


def test_the_arguments_of_the_step_are_handed_on_as_they_came():
    got: list[tuple[Any, ...]] = []

    class Base:
        def training_step(self, *args: Any, **kwargs: Any) -> str:
            got.append((args, kwargs))
            return "loss"

    class Mine(at.RecordingTrainer, Base): ...

    assert Mine().training_step("m", "i") == Mine().training_step("m", "i", 8) == "loss"
    Mine().training_step(inputs="i", model="m", num_items_in_batch=9)
    assert got == [(("m", "i"), {}), (("m", "i", 8), {}), (("m", "i"), {"num_items_in_batch": 9})]


def test_bases_in_the_wrong_order_are_refused_with_the_right_one():
    with pytest.raises(
        TypeError, match=r"RecordingTrainer must stand before Trainer.*Mine\(RecordingTrainer, Trainer\)"
    ):

        class Mine(Trainer, at.RecordingTrainer): ...


class Data(torch.nn.DataParallel):
    """DataParallel without a GPU calls the module itself."""


def test_a_wrapped_model_is_seen_through(tmp_path: Path):
    trainer = made(tmp_path)
    wrapped = Data(trainer.model)
    trainer._wrap_model = lambda model, *_, **__: wrapped
    with at.watch_inputs(trainer, require={"input_ids"}) as watch:
        trainer.train()
    assert watch.calls["wrapper:Data"] == watch.calls["forward"] == 12
    run = at.load(tmp_path / "run")
    assert steps(run, "outputs/logits/top1_agreement") == [1, 5, 10]  # the class inside says that labels are shifted
    stages = dict.fromkeys(p["stage"] for p in payloads(run, "inputs", "train"))
    assert list(stages)[-3:] == ["compute_loss", "wrapper:Data", "forward"]


def two_heads(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Run:
    callback = at.AftertrainCallback(folder / "run", every=4, **options)
    args = arguments(folder, remove_unused_columns=False, max_steps=8)
    Recorded(model=TextAndAudio(), args=args, train_dataset=rows, callbacks=[callback]).train()
    return at.load(folder / "run")


def test_text_and_audio_are_told_apart_with_their_attention_and_the_voice(tmp_path: Path):
    run = two_heads(tmp_path, spoken(), shift_labels=False)
    for head in ("text", "audio"):
        for number in ("min", "max", "entropy", "top1_agreement"):
            assert steps(run, f"outputs/{head}_logits/{number}") == [1, 4, 8]
    shares = [run.series(f"outputs/attention/{way}")["value"] for way in ("audio_to_text", "text_to_audio")]
    assert all(0.2 < value < 0.8 for share in shares for value in share)
    assert run.series("speaker_similarity").height == run.series("speaker_similarity_min").height == 3
    assert run.series("inputs/audio_labels/ignored_share")["value"].to_list() == [0.5] * 3
    (outputs,) = payloads(run, "outputs", "train")
    assert outputs["status"] == {"text_logits": "present", "audio_logits": "present"}
    status = payloads(run, "inputs", "train")[1]["status"]
    assert status == {"input_ids": "present", "speaker_embedding": "present", "x_vector": "not given"}
    assert at.diagnose(run).status == "healthy"


class Disabling(torch.nn.Module):
    """Hands None on in the place of the speaker."""

    accepts_loss_kwargs = False

    def __init__(self) -> None:
        super().__init__()
        self.model = TextAndAudio()

    def forward(self, **kwargs: Any) -> Spoken:
        return self.model(**{**kwargs, "speaker_embedding": None})


def test_conditioning_that_is_switched_off_is_found(tmp_path: Path):
    callback = at.AftertrainCallback(tmp_path / "run")
    args = arguments(tmp_path, remove_unused_columns=False)
    trainer = Recorded(model=Disabling(), args=args, train_dataset=spoken(), callbacks=[callback])
    with at.watch_inputs(trainer, require={"input_ids"}, inner="model"):
        trainer.train()
    (finding,) = at.diagnose(at.load(tmp_path / "run")).findings
    assert (finding.kind, finding.metric) == ("disabled-conditioning", "speaker_embedding")
    assert finding.evidence["statuses"] == "disabled (None)"


def test_where_nothing_tells_what_is_audio_a_note_says_so(tmp_path: Path):
    rows = [{k: v for k, v in row.items() if k != "audio_token_mask"} for row in spoken()]
    run = two_heads(tmp_path, rows)
    assert "outputs/attention/audio_to_text" not in run.metrics
    assert any("pass audio_positions=" in text for text in texts(run))
    told = two_heads(tmp_path / "b", rows, audio_positions=lambda batch: batch["input_ids"] >= WORDS)
    assert told.series("outputs/attention/audio_to_text").height == 3


def test_a_voice_is_compared_where_the_training_says_so(tmp_path: Path):
    class Cloning(Recorded):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 3:
                self.speaker_similarity(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 1.0]]))
            return super().training_step(*args, **kwargs)

    made(tmp_path, Cloning).train()
    rows = at.load(tmp_path / "run").series("speaker_similarity")
    assert rows["step"].to_list() == [3] and rows["value"].to_list() == pytest.approx([0.5**0.5])


def test_a_failure_of_looking_is_said_once_and_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, model: Any) -> Any:
        raise ZeroDivisionError("a model like no other")

    monkeypatch.setattr(Batches, "settings", broken)
    trainer = made(tmp_path, every=1)
    with pytest.warns(RecordingWarning, match="a model like no other") as caught:
        trainer.train()
    assert len(caught) == 1 and trainer.state.global_step == 12
    assert at.load(tmp_path / "run").series("loss").height == 4


def test_a_model_that_is_called_past_its_hooks_is_said_to_be_unseen(tmp_path: Path):
    class Past(Recorded):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return model.forward(**inputs).loss

    made(tmp_path, Past).train()
    run = at.load(tmp_path / "run")
    assert any("called past its hooks" in text for text in texts(run)) and steps(run, "inputs/padding_share") == [
        1,
        5,
        10,
    ]


def _text_to_text() -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import T5Config, T5ForConditionalGeneration

    size = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": WORDS}
    row = {"input_ids": torch.arange(1, 9), "labels": torch.arange(1, 6)}
    return T5ForConditionalGeneration(T5Config(**size, decoder_start_token_id=0, pad_token_id=0)), row


def _classifier() -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertForSequenceClassification

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    row = {
        "input_ids": torch.arange(1, 9),
        "attention_mask": torch.ones(8, dtype=torch.long),
        "labels": torch.tensor(1),
    }
    return BertForSequenceClassification(BertConfig(**size, vocab_size=WORDS)), row


def _regressor() -> tuple[Any, dict[str, torch.Tensor]]:
    model, row = _classifier()
    model.config.num_labels = model.num_labels = 1
    model.classifier = torch.nn.Linear(16, 1)
    return model, {**row, "labels": torch.tensor(0.5)}


def _pictures() -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import ViTConfig, ViTForImageClassification

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    row = {"pixel_values": torch.rand(3, 8, 8), "labels": torch.tensor(1)}
    return ViTForImageClassification(ViTConfig(**size, image_size=8, patch_size=4)), row


@pytest.mark.parametrize(
    ("make", "metrics"),
    [
        (_text_to_text, {"outputs/logits/top1_agreement", "inputs/length_mean", "inputs/padding_share"}),
        (_classifier, {"outputs/logits/top1_agreement", "outputs/logits/entropy", "inputs/padding_share"}),
        (_regressor, {"outputs/logits/min", "inputs/padding_share"}),
        (_pictures, {"outputs/logits/top1_agreement", "inputs/labels/ignored_share"}),
    ],
)
def test_models_of_other_kinds_are_recorded_too(tmp_path: Path, make: Any, metrics: set[str]):
    torch.manual_seed(0)
    model, row = make()
    args = arguments(tmp_path, max_steps=3, bf16=make is _classifier)
    callback = at.AftertrainCallback(tmp_path / "run", every=1)
    Recorded(model=model, args=args, train_dataset=[row] * 16, callbacks=[callback]).train()
    run = at.load(tmp_path / "run")
    assert metrics <= set(run.metrics) and run.series("outputs/logits/max")["step"].to_list() == [1, 2, 3]
    assert ("outputs/logits/entropy" in run.metrics) == (make is not _regressor)
    assert at.diagnose(run).status == "healthy"


def _of_many_lengths(seed: int) -> list[dict[str, torch.Tensor]]:
    """Arithmetic progressions modulo the vocabulary, padded: something to learn, with lengths that vary."""
    made, rows = torch.Generator().manual_seed(seed), []
    for _ in range(256):
        length, start, pace = (int(torch.randint(a, b, (), generator=made)) for a, b in ((4, 12), (1, WORDS), (1, 4)))
        ids = (torch.arange(12) * pace + start) % (WORDS - 1) + 1
        mask = (torch.arange(12) < length).long()
        rows.append({"input_ids": ids * mask, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
    return rows


@pytest.mark.parametrize("seed", [0, 1])
def test_a_healthy_training_with_every_second_batch_recorded_is_called_healthy(tmp_path: Path, seed: int):
    rows = _of_many_lengths(seed)
    args = arguments(tmp_path, max_steps=240, logging_steps=2, learning_rate=5e-3, seed=seed, eval_strategy="steps",
                     eval_steps=40, log_level="error")  # fmt: skip
    callback = at.AftertrainCallback(tmp_path / "run", every=2)
    Recorded(
        model=language_model(), args=args, train_dataset=rows[64:], eval_dataset=rows[:64], callbacks=[callback]
    ).train()
    run = at.load(tmp_path / "run")
    assert run.series("outputs/logits/top1_agreement", split="train").height == 121
    assert [f for f in at.diagnose(run).findings if f.severity != "info"] == []


def test_a_copy_of_the_callback_records_a_run_of_its_own(tmp_path: Path):
    callback = at.AftertrainCallback(tmp_path / "run", every=2)
    made(tmp_path, callbacks=[callback], max_steps=2).train()
    copied = pickle.loads(pickle.dumps(callback))
    assert type(copied) is type(callback) and copied.batches.every == 2
    made(tmp_path, callbacks=[copied], max_steps=2).train()
    assert at.load(tmp_path / "run").events_of("config")["attempt"].to_list() == [0, 1]


def test_a_new_callback_takes_over_the_folder_of_a_training_that_was_interrupted(tmp_path: Path):
    class Interrupting(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    first = at.AftertrainCallback(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, callbacks=[first, Interrupting()], max_steps=4).train()
    second = at.AftertrainCallback(tmp_path / "run")
    made(tmp_path, callbacks=[second], max_steps=2).train()
    second.close()
    first.close()  # which changes nothing any more
    ends = at.load(tmp_path / "run").events_of("end")
    told = [(row["attempt"], json.loads(row["payload"])["status"]) for row in ends.iter_rows(named=True)]
    assert told[0] == (0, "interrupted") and {status for attempt, status in told if attempt == 1} == {"finished"}


def test_nothing_of_a_batch_is_kept_after_its_step(tmp_path: Path):
    alive: list[int] = []

    class Watching(Recorded):
        seen: list[weakref.ref[torch.Tensor]] = []  # noqa: RUF012 - one trainer, one list

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            gc.collect()
            alive.append(sum(ref() is not None for ref in self.seen))
            return super().training_step(model, inputs, *args, **kwargs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = model(**inputs)
            self.seen.append(weakref.ref(outputs.logits))
            return outputs.loss

    trainer = made(tmp_path, Watching, every=1, max_steps=3)
    trainer.train()
    assert alive == [0] * 3
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


@pytest.mark.parametrize("every", [0, -1, 2.5, "5", True])
def test_a_pace_that_is_none_is_refused(every: Any):
    with pytest.raises(ValueError, match="every must be a whole number of steps from 1"):
        at.AftertrainCallback("run", every=every)


def test_a_place_that_cannot_hold_a_run_is_refused_before_the_first_step(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        made(tmp_path, callbacks=[at.AftertrainCallback(tmp_path / "file")]).train()
    with pytest.raises(InputError, match="must be a Recorder or the folder of the run, got int"):
        at.AftertrainCallback(5)


def test_the_names_are_there_without_the_frameworks():
    program = (
        "import sys, aftertrain as at; at.RecordingTrainer, at.watch_inputs\n"
        "sys.exit(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)) != [])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_the_guide_shows_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    block = (Path(__file__).parents[2] / "docs" / "recording.md").read_text().split("```python\n")[2].split("```")[0]
    names = {"at": at, "Trainer": Trainer, "model": language_model(), "args": arguments(tmp_path), "data": sentences()}
    exec(compile(block, "recording.md", "exec"), names)
    run = at.load("runs/exp-1")
    assert run.series("loss").height == 4 and run.series("outputs/logits/entropy").height == 1
    assert run.events_of("watched").height == 1 and at.diagnose(run).status == "healthy"
