"""Which keys reach each stage: found where they came in or were taken out, in trainers and plain loops, untouched."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer

import aftertrain as at
from analysis.contracts import contracts
from eventstream.errors import InputError, RecordingWarning
from eventstream.layers import argument_names, bare_module, model_layers
from parsers.run import Run
from tests.eventstream.tiny_models import WIDTH, WORDS, arguments, language_model, sentences

LAYERS = ("training_step", "_prepare_inputs", "compute_loss", "wrapper")
STAGES = ("training_step", "_prepare_inputs", "_prepare_inputs:returned", "compute_loss", "wrapper:Wrapper", "forward")
#: Where the work of each layer shows first: stages are recorded as they are given the batch.
NEXT = dict(zip(LAYERS, ("_prepare_inputs", "_prepare_inputs:returned", "wrapper:Wrapper", "forward"), strict=True))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class HiggsAudioModel(nn.Module):
    """Must not be given labels; takes them silently, as `**kwargs` do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        return {"logits": self.head(self.embed(input_ids))}


class Wrapper(nn.Module):
    """The user's own wrapper: the last line of defence, or the leak."""

    def __init__(self, defends: bool, leaks: bool) -> None:
        super().__init__()
        self.model, self.defends, self.leaks = HiggsAudioModel(), defends, leaks

    def forward(self, **kwargs: Any) -> dict[str, torch.Tensor]:
        if self.defends:
            kwargs.pop("labels", None)
        if self.leaks:
            kwargs["labels"] = kwargs["input_ids"]
        return self.model(**kwargs)


class Defended(Trainer):
    """The layers of seed 001. Those in `removing` take the labels out, the one named by `adding` puts them back."""

    removing: tuple[str, ...] = ()
    adding = ""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        self.kept = inputs["labels"]
        return super().training_step(model, self._defend("training_step", inputs), num_items_in_batch)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return self._defend("_prepare_inputs", super()._prepare_inputs(inputs))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.get("labels", self.kept)
        outputs = model(**self._defend("compute_loss", inputs))
        loss = nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten())
        return (loss, outputs) if return_outputs else loss

    def _defend(self, stage: str, inputs: Any) -> Any:
        kept = {k: v for k, v in inputs.items() if k != "labels" or stage not in self.removing}
        return {**kept, "labels": self.kept} if stage == self.adding else kept


def trained(folder: Path, removing: tuple[str, ...] = (), adding: str = "", steps: int = 6) -> Run:
    """A run of the layered trainer under watch."""
    model = Wrapper("wrapper" in removing, adding == "wrapper")
    args = arguments(folder, remove_unused_columns=False, max_steps=steps)
    trainer = Defended(model=model, args=args, train_dataset=sentences())
    trainer.removing, trainer.adding = removing, adding
    with at.watch_inputs(trainer, folder / "run", forbid={"labels"}, require={"input_ids"}, inner="model") as watch:
        trainer.train()
    assert watch.calls == dict.fromkeys(STAGES, steps)
    return at.load(folder / "run")


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_of_defence_keeps_forward_clean_and_is_named(tmp_path: Path, layer: str):
    (finding,) = at.diagnose(trained(tmp_path, (layer,)), checks=["contracts"]).findings
    assert (finding.kind, finding.severity, finding.metric) == ("forbidden-input", "info", "labels")
    assert finding.evidence["removed"] == NEXT[layer] and "(6 calls, all clean)" in finding.message


@pytest.mark.parametrize("adding", ["_prepare_inputs", "compute_loss", "wrapper"])
def test_labels_that_come_back_are_found_with_the_stage_that_brings_them(tmp_path: Path, adding: str):
    finding = at.diagnose(trained(tmp_path, LAYERS[: LAYERS.index(adding)], adding), checks=["contracts"]).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("forbidden-input", "critical", 1)
    maker = adding.replace("wrapper", "wrapper:Wrapper")
    assert (finding.evidence["last_clean_stage"], finding.evidence["entered_stage"]) == (maker, NEXT[adding])
    assert f"stage {maker!r} puts 'labels' in again" in finding.causes[0]


def test_labels_that_nobody_takes_out_come_from_the_first_stage(tmp_path: Path):
    (finding,) = at.diagnose(trained(tmp_path), checks=["contracts"]).findings
    assert finding.evidence["entered_stage"] == "training_step"
    assert finding.evidence["way"] == " > ".join(STAGES)


def test_labels_in_evaluation_alone_are_told_as_such(tmp_path: Path):
    args = arguments(tmp_path, remove_unused_columns=False, eval_strategy="steps", eval_steps=4, label_names=[])
    trainer = Defended(model=Wrapper(False, False), args=args, train_dataset=sentences(), eval_dataset=sentences()[:4])
    trainer.removing = ("training_step",)
    with at.watch_inputs(trainer, tmp_path / "run", forbid="labels", inner="model"):
        trainer.train()
    (finding,) = at.diagnose(at.load(tmp_path / "run"), checks=["contracts"]).findings
    assert "in evaluation alone, first at step 4" in finding.message
    assert (finding.evidence["splits"], finding.evidence["entered_stage"]) == ("eval", "prediction_step")


def events(folder: Path, kind: str = "inputs") -> list[tuple[int, dict[str, Any]]]:
    rows = at.load(folder).events_of(kind)
    return [(step, json.loads(payload)) for step, payload in rows.select("step", "payload").rows()]


def plain_loop(folder: Path, leak_at: tuple[int, ...], steps: int = 250, **options: Any) -> Run:
    """A loop without any framework, whose batch holds labels at some steps."""
    model = HiggsAudioModel()
    ids = torch.ones(2, 4, dtype=torch.long)
    with at.watch_inputs(model, folder, forbid=["labels", "*_target"], require={"input_ids"}, **options):
        for step in range(1, steps + 1):
            model(ids, **({"labels": ids} if step in leak_at else {}))
    return at.load(folder)


@pytest.mark.parametrize("leak_at", [(1,), (137,), (250,), (3, 4, 5)])
def test_one_leaking_step_of_a_plain_loop_is_found_between_the_recorded_ones(tmp_path: Path, leak_at: tuple[int, ...]):
    (finding,) = contracts(plain_loop(tmp_path / "run", leak_at)).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("forbidden-input", "critical", leak_at[0])
    assert f"was seen in {len(leak_at)} of 250 calls" in finding.message


def test_a_clean_loop_is_silent_and_its_stream_small(tmp_path: Path):
    run = plain_loop(tmp_path / "run", ())
    assert contracts(run).findings == () and contracts(run).status == "healthy"
    assert [step for step, _ in events(tmp_path / "run")] == [1, 101, 201]


def test_steps_are_those_of_the_loop_where_it_tells_them(tmp_path: Path):
    model, at_step = HiggsAudioModel(), [0]
    with at.watch_inputs(model, tmp_path / "run", every=10, step=lambda: at_step[0]):
        for at_step[0] in range(1000, 1030):
            model(torch.ones(1, 2, dtype=torch.long))
            model(torch.ones(1, 2, dtype=torch.long))
    assert [step for step, _ in events(tmp_path / "run")] == [1000, 1010, 1020]


def test_the_open_recorder_and_its_step_are_taken(tmp_path: Path):
    model = HiggsAudioModel()
    with at.Recorder(tmp_path / "run") as recorder:
        recorder.step = 40
        with at.watch_inputs(model, forbid={"labels"}):
            model(torch.ones(1, 2, dtype=torch.long))
    assert [step for step, _ in events(tmp_path / "run")] == [40]
    with pytest.raises(InputError, match=r"no open recorder to watch into; make at\.Recorder"):
        at.watch_inputs(model)


def test_a_recorder_that_was_closed_first_is_left_alone(tmp_path: Path):
    model = HiggsAudioModel()
    with at.Recorder(tmp_path / "run") as recorder:
        watch = at.watch_inputs(model, recorder, forbid={"labels"})
        model(torch.ones(1, 2, dtype=torch.long))
    watch.remove()
    assert events(tmp_path / "run", "watched") == [] and len(events(tmp_path / "run")) == 1


def test_what_never_arrives_is_missing_and_what_never_comes_back_too(tmp_path: Path):
    model = HiggsAudioModel()
    options: dict[str, Any] = {"require": ["input_ids", "speaker_embedding"], "require_outputs": ["audio_logits"]}
    with at.watch_inputs(model, tmp_path / "run", **options):
        model(torch.ones(1, 2, dtype=torch.long), speaker_embedding=None)
    found = {(f.kind, f.metric) for f in contracts(at.load(tmp_path / "run")).findings}
    assert found == {
        ("disabled-conditioning", "speaker_embedding"),
        ("missing-output", "audio_logits"),
    }


def test_none_is_not_held_and_positions_have_their_names(tmp_path: Path):
    model = HiggsAudioModel()
    with at.watch_inputs(model, tmp_path / "run", forbid={"labels"}):
        model(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2), labels=None)
    ((_, payload),) = events(tmp_path / "run")
    assert list(payload["tensors"]) == ["input_ids", "attention_mask"]
    assert contracts(at.load(tmp_path / "run")).findings == ()


def test_tensors_left_on_another_device_are_found(tmp_path: Path):
    class Anywhere(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return input_ids

    model = Anywhere()
    with at.watch_inputs(model, tmp_path / "run"):
        model(torch.ones(2, 3, device="meta"), torch.ones(2, 3))
    (finding,) = contracts(at.load(tmp_path / "run")).findings
    assert finding.kind == "device-mismatch" and finding.evidence["devices"] == "cpu, meta"


def test_the_batch_and_the_results_are_the_very_same_objects(tmp_path: Path):
    batches, results = [], []

    class Keeping(Defended):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            batches.append((inputs, list(inputs.items())))
            loss = super().training_step(model, inputs, num_items_in_batch)
            results.append(loss)
            return loss

    args = arguments(tmp_path, remove_unused_columns=False, max_steps=2)
    trainer = Keeping(model=Wrapper(False, False), args=args, train_dataset=sentences())
    originals = {name: getattr(trainer, name).__func__ for name in ("training_step", "compute_loss", "prediction_step")}
    watch = at.watch_inputs(trainer, tmp_path / "run", forbid={"labels"})
    handed: list[Any] = []
    covered = trainer.training_step
    trainer.training_step = lambda *a, **k: handed.append((a[1], covered(*a, **k))) or handed[-1][1]  # type: ignore[method-assign]
    trainer.train()
    assert all(a is b[0] for (a, _), b in zip(handed, batches, strict=True))
    assert all(r is h for h, r in zip([r for _, r in handed], results, strict=True))
    assert all(dict(items) == given and list(given) == [k for k, _ in items] for given, items in batches)
    watch.remove()
    trainer.train()  # the cover below the foreign one passes on, and sees nothing more
    assert watch.calls["training_step"] == 2 and not trainer.model._forward_pre_hooks
    del trainer.training_step
    assert {name: getattr(trainer, name).__func__ for name in originals} == originals


def test_removing_puts_the_methods_back_and_takes_the_hooks_off(tmp_path: Path):
    trainer = Trainer(model=language_model(), args=arguments(tmp_path), train_dataset=sentences())
    before = dict(vars(trainer))
    with at.watch_inputs(trainer, forbid={"reward"}) as watch:
        assert {"training_step", "compute_loss", "_prepare_inputs", "prediction_step"} <= set(vars(trainer))
    watch.remove()
    assert set(vars(trainer)) == set(before) and not trainer.model._forward_pre_hooks


def test_a_trainer_without_a_callback_gets_one_and_two_watches_coexist(tmp_path: Path):
    trainer = Trainer(model=language_model(), args=arguments(tmp_path), train_dataset=sentences())
    with at.watch_inputs(trainer, forbid={"labels"}), at.watch_inputs(trainer, require={"labels"}) as second:
        trainer.train()
    assert second.calls["forward"] == 12
    run = at.load(tmp_path)
    assert run.series("loss").height == 4
    (finding,) = at.diagnose(run, checks=["contracts"]).findings
    assert (finding.kind, finding.metric) == ("forbidden-input", "labels")


def test_every_attempt_says_its_contract_and_begins_anew(tmp_path: Path):
    trainer = Trainer(model=language_model(), args=arguments(tmp_path, max_steps=2), train_dataset=sentences())
    with at.watch_inputs(trainer, forbid={"reward"}):
        trainer.train()
        trainer.train()
    rows = at.load(tmp_path / "aftertrain").events_of("contract")
    assert rows["attempt"].to_list() == [0, 1]
    assert json.loads(rows["payload"][0]) == {"inputs": {"forward": {"forbid": ["reward"]}}}


def test_copies_of_a_watched_model_carry_hooks_that_do_nothing(tmp_path: Path):
    model = HiggsAudioModel()
    with at.watch_inputs(model, tmp_path / "run", require_outputs={"logits"}) as watch:
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(torch.ones(1, 2, dtype=torch.long))
    assert watch.calls == {}


def test_a_failure_of_watching_is_said_once_and_the_model_is_called(tmp_path: Path):
    class Odd:
        @property
        def dtype(self) -> Any:
            raise ZeroDivisionError("odd")

    class Takes(nn.Module):
        def forward(self, thing: Any) -> str:
            return "called"

    model = Takes()
    with at.watch_inputs(model, tmp_path / "run"), pytest.warns(RecordingWarning, match="odd") as caught:
        assert [model(Odd()) for _ in range(3)] == ["called"] * 3
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("given", "options", "error", "match"),
    [
        ("model", {}, InputError, "got str"),
        (HiggsAudioModel(), {"inner": "nowhere"}, InputError, "no submodule 'nowhere'.*embed, head"),
        (HiggsAudioModel(), {"forbid": {"a"}, "require": ["a"]}, ValueError, "'a' is both forbidden and required"),
        (HiggsAudioModel(), {"forbid": 5}, ValueError, "forbid must be names of tensors.*got 5"),
        (HiggsAudioModel(), {"forbid": [5]}, ValueError, r"forbid must be names of tensors.*got \[5\]"),
        (HiggsAudioModel(), {"every": 0}, ValueError, "every must be a whole number"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_the_reason(
    tmp_path: Path, given: Any, options: dict[str, Any], error: type[Exception], match: str
):
    with pytest.raises(error, match=match):
        at.watch_inputs(given, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


class DistributedDataParallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class BaseTuner(nn.Module):
    """As PEFT's: calls `forward` past the hooks of the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.peft_config = model, {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.forward(*args, **kwargs)


class PeftModel(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model, self.peft_config = BaseTuner(model), {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)


def test_wrappers_of_other_libraries_are_seen_through(tmp_path: Path):
    inner = HiggsAudioModel()
    model = DistributedDataParallel(PeftModel(inner))
    assert [stage for stage, _ in model_layers(model)] == [
        "wrapper:DistributedDataParallel",
        "wrapper:PeftModel",
        "forward",
    ]
    assert bare_module(model) is inner and argument_names(model) == ("input_ids", "attention_mask")
    with at.watch_inputs(model, tmp_path / "run", forbid={"labels"}) as watch:
        model(torch.ones(1, 2, dtype=torch.long), labels=torch.ones(1))
    assert watch.calls == {"wrapper:DistributedDataParallel": 1, "wrapper:PeftModel": 1, "forward": 1}
    (finding,) = contracts(at.load(tmp_path / "run")).findings
    assert finding.evidence["entered_stage"] == "wrapper:DistributedDataParallel"


def test_a_compiled_model_is_watched_from_outside(tmp_path: Path):
    inner = HiggsAudioModel()
    model = torch.compile(inner, backend="eager")
    assert model_layers(model) == [("forward", model)] and bare_module(model) is inner
    with at.watch_inputs(model, tmp_path / "run", forbid={"labels"}) as watch:
        model(input_ids=torch.ones(1, 2, dtype=torch.long))
    assert watch.calls == {"forward": 1}


def test_a_model_that_the_trainer_compiles_later_is_counted_once_and_not_broken_up(tmp_path: Path):
    options = {"torch_compile": True, "torch_compile_backend": "eager", "eval_strategy": "steps", "eval_steps": 2}
    args = arguments(tmp_path, max_steps=4, remove_unused_columns=False, label_names=["labels"], **options)
    rows = sentences(16)
    trainer = Defended(model=HiggsAudioModel(), args=args, train_dataset=rows, eval_dataset=rows[:4])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with at.watch_inputs(trainer, tmp_path / "run", forbid={"labels"}) as watch:
        trainer.train()
    assert watch.calls["training_step"] == 4 and watch.calls["prediction_step"] == 2
    assert watch.calls["forward"] == watch.calls["compute_loss"] == 6
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 1
