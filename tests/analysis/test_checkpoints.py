"""Checkpoints from the front: one, a folder of them, beside their log, of several ranks; and what hostile ones get."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import aftertrain as at
from analysis.weights import kept


class Touch:
    """An object whose pickle would make a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.place}",)


def moved(state: dict[str, torch.Tensor], seed: int, size: float = 0.02) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: value + size * torch.randn_like(value) for name, value in state.items()}


def model_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)).state_dict()


def series(folder: Path, steps: tuple[int, ...] = (100, 200, 300, 400)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    state = model_state()
    for step in steps:
        state = moved(state, step)
        save_file(state, folder / f"step_{step}.safetensors")
    return folder


def half_a_file() -> bytes:
    """What a save that was interrupted in the middle leaves."""
    whole = io.BytesIO()
    torch.save(model_state(), whole)
    return whole.getvalue()[: len(whole.getvalue()) // 2]


def kinds(result: Any, *, least: str = "warning") -> set[str]:
    bar = ("info", "warning", "critical", "fatal").index(least)
    return {f.kind for f in result.findings if ("info", "warning", "critical", "fatal").index(f.severity) >= bar}


def test_a_folder_of_saves_is_told_in_the_order_of_training(tmp_path: Path) -> None:
    found = at.checkpoints(series(tmp_path / "run", (1000, 200, 30)))
    assert found.saves["step"].to_list() == [30, 200, 1000]
    assert found.changes["before"].unique(maintain_order=True).to_list() == [
        "step_30.safetensors",
        "step_200.safetensors",
    ]
    assert found.saves["update_ratio"].null_count() == 1 and (found.saves["update_ratio"].drop_nulls() > 0).all()
    assert found.frame.height == 18 and found.status == "healthy"


def test_the_update_ratio_of_a_save_is_that_of_all_weights_together(tmp_path: Path) -> None:
    found = at.checkpoints(series(tmp_path / "run", (1, 2)))
    one, two = (torch.cat([v.double().flatten() for v in s.values()]) for s in _states(tmp_path / "run"))
    assert found.saves["norm"].to_list() == pytest.approx([one.norm().item(), two.norm().item()])
    assert found.saves["update_ratio"][1] == pytest.approx(((two - one).norm() / one.norm()).item())


def _states(folder: Path) -> list[dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    return [load_file(file) for file in sorted(folder.glob("*.safetensors"))]


def test_one_checkpoint_alone_says_what_a_series_is_needed_for(tmp_path: Path) -> None:
    save_file(model_state(), tmp_path / "model.safetensors")
    found = at.checkpoints(tmp_path / "model.safetensors")
    assert {n.kind for n in found.not_applicable} >= {"weight-drift", "frozen-layer"}
    assert found.saves["best"].to_list() == [None]
    with pytest.raises(at.InputError, match="a path needs 2 saves"):
        found.path()


def test_a_path_without_a_checkpoint_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(at.InputError, match=r"no checkpoint is here\. Expected"):
        at.checkpoints(tmp_path)
    with pytest.raises(at.InputError, match="no such file or folder"):
        at.checkpoints(tmp_path / "nothing")


def test_the_log_beside_the_saves_is_found_and_laid_beside_them(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in range(1, 401):
            rec.log(step, {"loss": 3.0 - step / 200}, split="train")
            if step % 100 == 0:
                rec.log(step, {"loss": 2.0 + abs(step - 200) / 100}, split="eval")
    series(tmp_path / "run" / "checkpoints", (100, 200, 300, 400, 500))
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints"):
        saves = at.checkpoints(path).saves
        assert saves.filter(pl.col("best"))["step"].to_list() == [200]
        assert saves["in_log"].to_list() == [True, True, True, True, False]
        assert saves["eval"].to_list()[:3] == [3.0, 2.0, 3.0]


def test_a_log_is_not_looked_for_in_folders_that_are_no_run(tmp_path: Path) -> None:
    series(tmp_path / "weights")
    with at.Recorder(tmp_path / "other" / "run", seal=False) as rec:
        rec.log(1, {"loss": 1.0})
    assert at.checkpoints(tmp_path / "weights").saves["in_log"].to_list() == [None] * 4


def test_a_copy_is_told_as_the_label_of_what_it_is_a_copy_of(tmp_path: Path) -> None:
    folder = series(tmp_path / "run")
    shutil.copy(folder / "step_400.safetensors", folder / "last.safetensors")
    (folder / "best.safetensors").symlink_to(folder / "step_200.safetensors")
    saves = at.checkpoints(folder).saves
    assert dict(saves.select("step", "label").iter_rows()) == {100: "", 200: "best", 300: "", 400: "last"}


def test_players_of_a_gan_are_two_stories(tmp_path: Path) -> None:
    for name, seed in (("G", 1), ("D", 2)):
        for step in (100, 200):
            save_file(moved(model_state(seed), step), tmp_path / f"{name}_{step}.safetensors")
    found = at.checkpoints(tmp_path)
    assert found.saves["series"].to_list() == ["d", "d", "g", "g"]
    assert found.changes.select("before", "save").unique(maintain_order=True).rows() == [
        ("D_100.safetensors", "D_200.safetensors"),
        ("G_100.safetensors", "G_200.safetensors"),
    ]


def test_ranks_that_should_be_replicas_and_are_not_are_found_and_equal_ones_are_not(tmp_path: Path) -> None:
    state = model_state()
    for rank in (0, 1):
        save_file(state, tmp_path / f"step_100_rank{rank}.safetensors")
    assert kinds(at.checkpoints(tmp_path)) == set()
    save_file(moved(state, 5), tmp_path / "step_100_rank1.safetensors")
    assert kinds(at.checkpoints(tmp_path)) == {"rank-divergence"}


def test_what_a_pickle_would_have_called_is_listed_and_not_called(tmp_path: Path) -> None:
    mark = tmp_path / "made"
    torch.save({"model": model_state(), "extra": {"deep": [Touch(mark)]}}, tmp_path / "evil.pt")
    found = at.checkpoints(tmp_path / "evil.pt")
    (finding,) = [f for f in found.findings if f.kind == "checkpoint-unsafe"]
    assert finding.severity == "critical" and "system" in finding.message
    assert not mark.exists() and found.frame.height == 6


def test_damage_costs_its_tensor_and_nothing_else(tmp_path: Path) -> None:
    save_file(model_state(), tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-200])
    found = at.checkpoints(tmp_path / "cut.safetensors")
    assert kinds(found, least="critical") == {"checkpoint-corrupt"} and 0 < found.frame.height < 6


def test_a_flipped_bit_shows_when_checksums_are_asked_for(tmp_path: Path) -> None:
    torch.save(model_state(), tmp_path / "model.pt")
    raw = bytearray((tmp_path / "model.pt").read_bytes())
    at_byte = raw.find(model_state()["0.weight"].numpy().tobytes()[:32])
    raw[at_byte + 5] ^= 1
    (tmp_path / "model.pt").write_bytes(raw)
    assert kinds(at.checkpoints(tmp_path / "model.pt")) == set()
    assert kinds(at.checkpoints(tmp_path / "model.pt", verify=True)) == {"checkpoint-corrupt"}


def test_weights_without_a_number_are_critical(tmp_path: Path) -> None:
    state = model_state()
    state["2.weight"][:] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    (finding,) = at.checkpoints(tmp_path / "nan.safetensors").findings
    assert (finding.kind, finding.severity, finding.metric) == ("checkpoint-non-finite", "critical", "2.weight")


def test_a_run_with_more_weights_than_a_diagnosis_reads_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        rec.log(1, {"loss": 1.0})
    series(tmp_path / "run" / "checkpoints")
    monkeypatch.setattr(kept, "MOST_BYTES", 1000)
    result = at.checkpoints(at.load(tmp_path / "run"))
    assert result.saves.is_empty() and {n.kind for n in result.not_applicable} == set(kept.KINDS_OF_SAVES)
    assert "more than a diagnosis reads" in result.not_applicable[0].reason


def test_a_diagnosis_judges_the_saves_of_its_run_and_weights_count_where_the_log_is_silent(samples: Path) -> None:
    run = at.load(samples / "classifier-frozen-layer")
    diagnosis = at.diagnose(run)
    assert {f.kind for f in diagnosis.findings if f.severity != "info"} == {"frozen-layer"}
    assert "frozen-layer" in diagnosis.judged and "weight-drift" in diagnosis.judged
    assert at.diagnose(run, checks=["gradients"]).findings == ()


def test_spectra_are_measured_when_asked_for(tmp_path: Path) -> None:
    save_file(
        {"w": torch.from_numpy(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32))},
        tmp_path / "m.safetensors",
    )
    assert at.checkpoints(tmp_path / "m.safetensors").spectra.is_empty()
    found = at.checkpoints(tmp_path / "m.safetensors", spectra=True)
    expected = np.linalg.norm(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32), 2)
    assert found.spectra["spectral_norm"].to_list() == pytest.approx([expected]) and "spectra" in found.views


def test_spectra_for_a_report_are_left_out_by_the_work_that_they_take(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    save_file({"w": torch.randn(64, 32, generator=made), "conv": torch.randn(8, 4, 3, 3)}, tmp_path / "m.safetensors")
    found, work = at.checkpoints(tmp_path / "m.safetensors"), 32**2 * (64 + 128) + 9 * 4**2 * (8 + 16)
    assert found.with_spectra(most=work - 1).spectra.is_empty()
    assert found.with_spectra(most=work).spectra.height == found.with_spectra().spectra.height == 2


@pytest.mark.parametrize(("decay", "kinds"), [(0.9, set()), (0.995, {"checkpoint-mismatch"})])
def test_an_average_is_held_against_the_decay_of_the_runs_configuration(
    decay: float, kinds: set[str], tmp_path: Path
) -> None:
    made = torch.Generator().manual_seed(0)
    weights = torch.randn(40, 40, generator=made)
    average = weights.clone()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with at.Recorder(tmp_path / "run", config={"ema_decay": 0.9}, seal=False) as rec:
        for step in range(1, 181):
            rec.log(step, {"loss": 1.0 / step}, split="train")
            weights = weights + 0.02 * torch.randn(40, 40, generator=made)
            average = decay * average + (1 - decay) * weights
            if step % 60 == 0:
                state = {"model": {"fc.weight": weights}, "ema": {"fc.weight": average}}
                torch.save(state, tmp_path / "run" / "checkpoints" / f"step_{step}.pt")
    found = at.checkpoints(at.load(tmp_path / "run")).findings
    assert {one.kind for one in found if one.severity != "info"} == kinds


def test_a_figure_shows_one_series_and_names_it_where_there_are_others(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        save_file({"gen.weight": torch.eye(8) * step}, tmp_path / f"G_{step}.safetensors")
        if step < 300:
            save_file({"disc.weight": torch.eye(8) * step}, tmp_path / f"D_{step}.safetensors")
    found = at.checkpoints(tmp_path, spectra=True)
    assert found.saves["series"].n_unique() == 2
    for view in ("updates", "norms"):
        drawn = found.plot(view=view)
        drawn.figure.canvas.draw()
        assert [label.get_text() for label in drawn.get_yticklabels()] == ["gen"]
        assert drawn.get_title(loc="left").startswith(f"{tmp_path.name}: {found.series[-1].series}: ")


def test_what_has_no_checksums_is_said_not_to_be_verified(tmp_path: Path) -> None:
    for step in (1, 2):
        save_file({"w": torch.ones(2, 2) * step}, tmp_path / f"step_{step}.safetensors")
    (told,) = (one for one in at.checkpoints(tmp_path, verify=True).not_applicable if one.kind == "checkpoint-corrupt")
    assert told.reason.startswith("step_1.safetensors and 1 more: safetensors has no checksums")
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "m.pt")
    alone = at.checkpoints(tmp_path / "m.pt", verify=True)
    assert "checkpoint-corrupt" not in {one.kind for one in alone.not_applicable}


HOSTILE = [
    "", ".", "..weight", "<script>alert(1)</script>.weight", '"><img src=x onerror=alert(1)>.weight', "$x^2_{$.weight",
    "\x1b[31mred.weight", "a" * 5000 + ".weight", "\u202eevil.weight", "nul\x00.weight", "line\nbreak.weight",
    "\\frac{.weight", "a|b`c*.weight",
]  # fmt: skip


def test_names_that_are_anything_at_all_go_through_every_judge_and_figure(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(16, 16, generator=made) for name in HOSTILE}
    for step in (20, 40, 60):
        weights = {name: value + 0.01 * (i % 2) for i, (name, value) in enumerate(weights.items())}
        save_file(weights, tmp_path / f"step_{step}.safetensors")
    found = at.checkpoints(tmp_path, spectra=True)
    assert set(found.frame["parameter"]) == set(HOSTILE) and found.spectra.height == 3 * len(HOSTILE)
    assert len(found.path().left_out) == 0 and found.path().parameters == len(HOSTILE)
    for view in ("updates", "norms", "spectra"):
        title = found.plot(view=view).get_title(loc="left")
        assert "\x1b" not in title and "\u202e" not in title and "\x00" not in title
    assert not any("\x1b" in line or "\u202e" in line for line in repr(found).splitlines())


def test_the_learning_rate_summed_over_the_steps_stands_beside_what_each_layer_moved(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in range(0, 301, 10):
            rec.log(step, {"loss": 1.0, "lr": 1e-3 * (1 - step / 300)}, split="train")
    (tmp_path / "run" / "checkpoints").mkdir()
    for step in (100, 200, 300):
        save_file({"w": torch.full((4,), float(step))}, tmp_path / "run" / "checkpoints" / f"step_{step}.safetensors")
    changes = at.checkpoints(at.load(tmp_path / "run")).changes
    sums = [sum(1e-3 * (1 - step / 300) for step in range(last - 99, last + 1)) for last in (200, 300)]
    assert changes["lr_steps"].to_list() == pytest.approx(sums)
    alone = at.checkpoints(tmp_path / "run" / "checkpoints" / "step_100.safetensors", run=tmp_path / "run")
    assert alone.changes.schema == changes.schema


def test_a_save_that_holds_nan_or_that_the_log_does_not_reach_is_not_the_best(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in range(1, 41):
            rec.log(step, {"loss": 1.0 / step}, split="train")
    (tmp_path / "run" / "checkpoints").mkdir()
    for step in (10, 20, 40, 90):
        value = torch.full((4,), float("nan") if step == 40 else float(step))
        save_file({"w": torch.ones(2), "v": value}, tmp_path / "run" / "checkpoints" / f"step_{step}.safetensors")
    saves = at.checkpoints(at.load(tmp_path / "run")).saves
    assert dict(saves.select("step", "best").iter_rows()) == {10: False, 20: True, 40: False, 90: False}


def test_columns_are_the_same_whatever_was_found(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        rec.log(1, {"loss": 1.0})
    empty, full = at.checkpoints(at.load(tmp_path / "run")), at.checkpoints(series(tmp_path / "saves"), spectra=True)
    for table in ("frame", "saves", "changes", "spectra"):
        assert getattr(empty, table).schema == getattr(full, table).schema


@pytest.mark.parametrize("view", ["updates", "norms", "spectra"])
def test_every_view_draws_with_and_without_saves(view: str, tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        rec.log(1, {"loss": 1.0})
    for found in (at.checkpoints(at.load(tmp_path / "run")), at.checkpoints(series(tmp_path / "saves"), spectra=True)):
        drawn = found.plot(view=view)
        drawn.figure.canvas.draw()
        assert drawn.get_title(loc="left")
    with pytest.raises(ValueError, match="did you mean 'norms'"):
        found.plot(view="norm")


def test_an_unknown_save_is_named_with_the_known_ones(tmp_path: Path) -> None:
    found = at.checkpoints(series(tmp_path / "run"))
    with pytest.raises(at.InputError, match=r"did you mean 'step_100\.safetensors'"):
        found.line(lambda state: 0.0, first="step_10.safetensors")
    with pytest.raises(at.InputError, match="there are 4"):
        found.landscape(lambda state: 0.0, save=9)


def test_the_line_between_two_saves_of_a_linear_model_is_a_parabola(tmp_path: Path) -> None:
    for step, value in ((1, -1.0), (2, 3.0)):
        save_file({"w": torch.tensor([value])}, tmp_path / f"step_{step}.safetensors")
    told = at.checkpoints(tmp_path).line(lambda state: float(state["w"][0]) ** 2, points=5)
    assert told.frame["loss"].to_list() == pytest.approx([1.0, 0.0, 1.0, 4.0, 9.0])


def test_counters_and_running_statistics_are_no_part_of_the_norm_of_the_weights(tmp_path: Path) -> None:
    for step in (100, 200):
        state = {"fc.weight": torch.ones(2, 2), "bn.running_var": torch.full((2,), 1e3 * step)}
        save_file({**state, "bn.num_batches_tracked": torch.tensor(step)}, tmp_path / f"step_{step}.safetensors")
    saves = at.checkpoints(tmp_path).saves
    assert saves["norm"].to_list() == [2.0, 2.0] and saves["update_ratio"].to_list() == [None, 0.0]


def test_a_save_that_nobody_can_open_is_told_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.weights import reading

    opened = reading.open_checkpoint

    def vanishing(path: Path, **options: Any) -> Any:
        if path.name == "step_200.safetensors":
            raise at.InputError(f"{path}: no such file")
        return opened(path, **options)

    monkeypatch.setattr(reading, "open_checkpoint", vanishing)
    found = at.checkpoints(series(tmp_path / "run"))
    assert found.saves.height == 4 and found.frame["save"].n_unique() == 3
    assert any("no such file" in f.message for f in found.findings)


def test_healthy_is_not_said_where_no_tensor_could_be_read(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "step_3.pt")
    assert at.checkpoints(tmp_path / "step_3.pt").verdict == "not judged"


def test_that_a_save_was_made_is_no_story_of_what_was_found_in_it(samples: Path) -> None:
    (incident,) = at.diagnose(at.load(samples / "classifier-dead-units")).incidents
    assert incident.root.kind == "dead-units" and incident.facts == ()


def test_saves_beyond_the_end_of_the_log_are_told_and_those_before_its_next_record_are_not(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in range(0, 401, 50):
            rec.log(step, {"loss": 1.0}, split="train")
    series(tmp_path / "run" / "checkpoints", (100, 200, 430))
    assert kinds(at.checkpoints(tmp_path / "run")) == set()
    series(tmp_path / "run" / "checkpoints", (900,))
    found = at.checkpoints(tmp_path / "run")
    (finding,) = [
        f for f in found.findings if f.severity != "info" and f.evidence.get("what") == "saves beyond the log"
    ]
    assert (finding.kind, finding.first_step, finding.evidence["late"]) == ("checkpoint-mismatch", 900, 1)


def test_a_file_that_is_not_what_the_log_recorded_is_told(tmp_path: Path) -> None:
    folder = series(tmp_path / "run" / "checkpoints", (100, 200))
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in (100, 200, 300):
            rec.log(step, {"loss": 1.0}, split="train")
        for step in (100, 200):
            rec.checkpoint(step, folder / f"step_{step}.safetensors")
    assert kinds(at.checkpoints(tmp_path / "run", verify=True)) == set()
    state = model_state(3)
    save_file(state, folder / "step_200.safetensors")  # as long as before, other weights
    assert kinds(at.checkpoints(tmp_path / "run")) == set()
    assert "checkpoint-mismatch" in kinds(at.checkpoints(tmp_path / "run", verify=True))
    save_file({**state, "extra": torch.ones(3)}, folder / "step_200.safetensors")
    told = [f.message for f in at.checkpoints(tmp_path / "run").findings]
    assert any(
        "is not the file that the log recorded" in message and "bytes, recorded were" in message for message in told
    )


def test_the_best_save_is_told_beside_the_last(tmp_path: Path) -> None:
    with at.Recorder(tmp_path / "run", seal=False) as rec:
        for step in (100, 200, 300, 400):
            rec.log(step, {"loss": 2.0 + abs(step - 200) / 100}, split="eval")
    series(tmp_path / "run" / "checkpoints")
    told = at.checkpoints(tmp_path / "run").best_against_last
    assert told == (
        "best of those kept: checkpoints/step_200.safetensors (eval loss 2); "
        "the last, checkpoints/step_400.safetensors, has 4"
    )
    assert at.checkpoints(series(tmp_path / "alone")).best_against_last == ""


@pytest.mark.parametrize("content", [b"", bytes(5000), half_a_file()])
def test_a_save_that_was_interrupted_is_told_and_the_story_goes_on_around_it(tmp_path: Path, content: bytes) -> None:
    place = series(tmp_path, (100, 200, 400))
    for step in (300, 500):
        (place / f"step_{step}.pt").write_bytes(content)
    found = at.checkpoints(place)
    assert found.saves["step"].to_list() == [100, 200, 300, 400, 500]
    assert [(f.kind, f.first_step) for f in found.findings] == [
        ("checkpoint-corrupt", 300),
        ("checkpoint-corrupt", 500),
    ]
    moved_then = found.saves.filter(pl.col("step") == 400)["update_ratio"].item()
    assert moved_then is not None and moved_then > 0


def test_a_frozen_layer_that_the_last_save_lacks_is_judged_by_the_saves_that_have_it(tmp_path: Path) -> None:
    states = [moved(model_state(), seed) for seed in range(4)]
    for step, state in enumerate(states):
        state["2.weight"] = states[0]["2.weight"]
        if step == 3:
            del state["2.weight"]
        save_file(state, tmp_path / f"step_{step * 100}.safetensors")
    found = at.checkpoints(tmp_path)
    assert [f.metric for f in found.findings if f.kind == "frozen-layer"] == ["2.weight"]


def test_a_link_that_leads_to_itself_is_no_checkpoint_and_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "self.pt").symlink_to("self.pt")
    with pytest.raises(at.InputError, match="a link that leads nowhere"):
        at.checkpoints(tmp_path / "self.pt")


def test_weights_that_are_all_nan_are_not_told_as_the_same_weights_saved_twice(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        state = model_state() if step == 100 else {k: torch.full_like(v, torch.nan) for k, v in model_state().items()}
        save_file(state, tmp_path / f"step_{step}.safetensors")
    assert kinds(at.checkpoints(tmp_path)) == {"checkpoint-non-finite"}


def adam_saves(folder: Path, steps: tuple[int, ...], *, anew: tuple[int, ...] = ()) -> Path:
    """Saves with the optimizer's own count, which begins again at the steps in `anew`; at these it is still empty."""
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    torch.manual_seed(3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(1, max(steps) + 1):
        optimizer.zero_grad()
        model(torch.randn(8, 8)).square().mean().backward()
        optimizer.step()
        if step in anew:
            optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        if step in steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, folder / f"step_{step}.pt")
    return folder


def test_an_optimizer_made_anew_is_told_once_and_from_the_last_count_before_it(tmp_path: Path) -> None:
    found = at.checkpoints(adam_saves(tmp_path, (20, 40, 60, 70, 80), anew=(60,)))
    (one,) = (f for f in found.findings if f.severity != "info")
    assert (one.first_step, one.last_step, one.evidence["counted_before"], one.evidence["counted"]) == (40, 70, 40, 10)
    assert one.suggestions[0].startswith("load the state of the optimizer")


def test_a_save_under_the_name_of_twice_its_step_is_no_other_unit_beside_true_names(tmp_path: Path) -> None:
    place = adam_saves(tmp_path, (20, 40, 60))
    shutil.copy(place / "step_40.pt", place / "step_80.pt")
    (one,) = (f for f in at.checkpoints(place).findings if f.severity != "info")
    assert one.evidence["what"] == "name at another step" and "another unit" not in one.message


def test_weights_that_lightning_averaged_at_the_end_are_no_leap(tmp_path: Path) -> None:
    place = adam_saves(tmp_path, (100, 200, 300, 400))
    last = torch.load(place / "step_400.pt")
    leapt = {**last, "model": {key: value + 0.2 for key, value in last["model"].items()}, "step": 401}
    torch.save(leapt, place / "step_401.pt")
    assert "weight-drift" in kinds(at.checkpoints(place))
    torch.save({**leapt, "callbacks": {"StochasticWeightAveraging": {"n_averaged": 5}}}, place / "step_401.pt")
    assert kinds(at.checkpoints(place)) == set()


def test_a_rank_that_stays_apart_is_told_once(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        for rank in (0, 1, 2):
            state = model_state(step) if rank < 2 else moved(model_state(step), 5, 0.01)
            torch.save(state, tmp_path / f"step_{step}_rank{rank}.pt")
    (one,) = (f for f in at.checkpoints(tmp_path).findings if f.kind == "rank-divergence")
    assert (one.evidence["rank"], one.evidence["saves"], one.first_step, one.last_step) == (2, 3, 100, 300)


def test_names_that_steer_a_terminal_are_not_printed_by_the_result(tmp_path: Path) -> None:
    names = ("\x1b[31mred.weight", "new\nline.weight", "\u202ertl.weight")
    save_file({name: torch.full((4, 4), torch.nan) for name in names}, tmp_path / "model\x1b[2J.safetensors")
    said = repr(at.checkpoints(tmp_path / "model\x1b[2J.safetensors"))
    assert "checkpoint-non-finite" in said and all(c.isprintable() for line in said.split("\n") for c in line)


def test_the_one_save_that_was_asked_for_must_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.weights import reading

    def refused(path: Path, **options: Any) -> Any:
        raise at.InputError(f"{path}: cannot be opened (Permission denied)")

    monkeypatch.setattr(reading, "open_checkpoint", refused)
    with pytest.raises(at.InputError, match="Permission denied"):
        at.checkpoints(series(tmp_path / "run", (100,)) / "step_100.safetensors")
