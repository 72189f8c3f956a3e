"""The checks of the log, the contract and the GAN on runs that the project's own recorder wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.contracts import contracts
from analysis.gan import gan
from analysis.stream import stream
from analysis.train_eval_gap import train_eval_gap
from eventstream.recorder import Recorder
from parsers.loading import load
from parsers.run import Run

PLAN = {"inputs": {"forward": {"require": ["input_ids"], "forbid": ["labels"]}}}


def record(folder: Path, *, leak_from: int | None = None) -> Run:
    rng = np.random.default_rng(0)
    with Recorder(folder, plan=PLAN) as rec:
        for step in range(0, 400, 2):
            train = 2 * np.exp(-step / 80) * np.exp(0.05 * rng.normal())
            rec.log(step, {"loss": train, "d_loss": 1.3, "g_loss": 0.8, "diversity": 0.9}, split="train")
            if step % 20 == 0:
                rec.log(step, {"loss": 0.6 + abs(step - 200) / 200}, split="eval")
            names = ["input_ids"] + (["labels"] if leak_from is not None and step >= leak_from else [])
            rec.inputs(step, "forward", {name: np.zeros((2, 3), np.float32) for name in names})
    return load(folder)


def test_a_closed_recording_is_whole_and_keeps_its_contract(tmp_path: Path):
    run = record(tmp_path / "a")
    assert stream(run).status == "healthy"
    assert contracts(run).status == "healthy"
    judged = gan(run)
    assert judged.status == "healthy"
    # what rec.gan was not given cannot be judged, and nothing else
    assert {n.kind for n in judged.not_applicable} == {"player-imbalance", "discriminator-overfitting"}


def test_planted_faults_survive_recording_and_reading(tmp_path: Path):
    run = record(tmp_path / "b", leak_from=100)
    (leak,) = contracts(run).findings
    assert (leak.kind, leak.first_step, leak.evidence["seen"]) == ("forbidden-input", 100, 150)
    (turn,) = [f for f in train_eval_gap(run).findings if f.kind == "overfitting"]
    assert (turn.severity, turn.evidence["best_step"]) == ("critical", 200)


def test_a_recording_that_was_cut_is_told(tmp_path: Path):
    rec = Recorder(tmp_path / "c")
    for step in range(50):
        rec.log(step, {"loss": 1.0}, split="train")
    lines = next((tmp_path / "c").glob("*.jsonl"))
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "manifest.json").write_bytes((tmp_path / "c" / "manifest.json").read_bytes())
    (tmp_path / "killed" / lines.name).write_bytes(lines.read_bytes()[:-9])
    rec.close()
    (finding,) = stream(load(tmp_path / "killed")).findings
    assert (finding.kind, finding.severity, finding.evidence["cut"]) == ("truncated-stream", "warning", 1)
    assert stream(load(tmp_path / "c")).status == "healthy"


@pytest.mark.parametrize(
    ("sample", "kind", "severity"),
    [
        ("charlm-overfit", "overfitting", "critical"),
        ("charlm-healthy", None, None),
        ("charlm-killed", "truncated-stream", "warning"),
        ("gan-collapse", "mode-collapse", "critical"),
        ("gan-healthy", None, None),
        ("distillation-healthy-seed0", None, None),
        ("distillation-bypass", None, None),
        ("speaker-encoder", None, None),
    ],
)
def test_the_samples_show_their_planted_fault_and_no_other(
    samples: Path, sample: str, kind: str | None, severity: str | None
):
    run = load(samples / sample)
    findings = [f for check in (stream, train_eval_gap, gan, contracts) for f in check(run).findings]
    told = [(f.kind, f.severity) for f in findings if f.severity != "info"]
    assert told == ([(kind, severity)] if kind else [])
