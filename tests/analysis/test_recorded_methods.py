"""Each method of the recorder, from its call to the judgement: faults are found, healthy runs are silent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import aftertrain as at
from analysis.contracts import contracts
from analysis.gan import gan
from analysis.result import Result

STEPS = range(0, 600, 2)
PLAN = {
    "max_steps": 600,
    "curriculum": {
        "phases": [
            {"name": "warm", "start": 0, "weights": {"kd": 0.7, "feature": 0.0}},
            {"name": "align", "start": 200, "weights": {"kd": 0.5, "feature": 0.3}},
        ]
    },
    "inputs": {"forward": {"require": ["input_ids"], "forbid": ["labels"]}},
}
Make = Callable[[at.Recorder, np.random.Generator], None]


def recorded(folder: Path, make: Make, *, seal: bool = True) -> at.Run:
    with at.Recorder(folder, plan=PLAN, seal=seal) as rec:
        make(rec, np.random.default_rng(3))
    assert rec.lost == 0
    return at.load(folder)


def told(result: Result) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in result.findings if f.severity != "info"]


def weights_at(step: int) -> tuple[float, float]:
    return (0.7, 0.0) if step < 200 else (0.5, 0.3)


def losses(*, forgotten_from: int | None = None) -> Make:
    """A distillation whose total is what its components say, until a weight is no longer applied."""

    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        for step in STEPS:
            kd, feature = (math.exp(-step / 300) * (1 + 0.05 * rng.normal()) for _ in range(2))
            kd_weight, feature_weight = weights_at(step)
            entered = kd if forgotten_from is not None and step >= forgotten_from else kd * kd_weight
            total = entered + feature * feature_weight
            rec.losses(
                step,
                {
                    "kd": {"raw": torch.tensor(kd, dtype=torch.float64), "weight": kd_weight, "weighted": entered},
                    "feature": (np.float64(feature), feature_weight),
                },
                total=torch.tensor(total, dtype=torch.float64),
                displayed=total,
            )

    return make


def test_losses_that_add_up_are_silent_and_a_weight_that_is_not_applied_is_found(tmp_path: Path):
    healthy = at.losses(recorded(tmp_path / "healthy", losses()))
    assert told(healthy) == [] and healthy.totals.height == len(STEPS)
    ill = at.losses(recorded(tmp_path / "ill", losses(forgotten_from=300)))
    assert [f.kind for f in ill.findings][:1] == ["weight-not-applied"]
    assert ill.findings[0].first_step == 300


def curriculum(*, late: int = 0) -> Make:
    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        for step in STEPS:
            kd, feature = weights_at(step - late)
            phase = "warm" if step - late < 200 else "align"
            rec.curriculum(step, phase, {"kd": torch.tensor(kd), "feature": feature}, step / 600)
            rec.losses(step, {"kd": (1.0, kd), "feature": (1.0, feature)}, total=kd + feature)

    return make


def test_a_curriculum_on_schedule_is_silent_and_one_that_is_late_is_found(tmp_path: Path):
    healthy = at.curriculum(recorded(tmp_path / "healthy", curriculum()))
    assert told(healthy) == [] and "curriculum-off-schedule" not in {n.kind for n in healthy.not_applicable}
    ill = at.curriculum(recorded(tmp_path / "ill", curriculum(late=150)))
    assert ("curriculum-off-schedule", ill.findings[0].severity) in told(ill)
    assert ill.findings[0].first_step == 200


SUBS = ("mpd.0", "mpd.1", "mpd.2", "msd.0", "msd.1")


def adversaries(*, winners: int = 0, collapse: bool = False, d_loss: str = "sum") -> Make:
    """A GAN in balance with five sub-discriminators, of which some win at the half, or whose samples become one."""

    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        for step in STEPS:
            won = SUBS[:winners] if step >= 300 else ()
            real = {name: 0.99 if name in won else 0.55 + 0.05 * rng.normal() for name in SUBS}
            fake = {name: 0.01 if name in won else 0.45 + 0.05 * rng.normal() for name in SUBS}
            parts = {name: -math.log(real[name]) - math.log(1 - fake[name]) for name in SUBS}
            rec.gan(
                step,
                d_real={name: torch.tensor(value) for name, value in real.items()},
                d_fake=fake,
                d_loss=parts if d_loss == "parts" else sum(parts.values()) / 5,
                g_loss=torch.tensor(sum(-math.log(value) for value in fake.values()) / 5),
                grad_norms={"generator": 1 + 0.1 * rng.random(), "mpd.0": 2.0},
                diversity=0.05 if collapse and step >= 300 else 0.8 + 0.02 * rng.normal(),
                split="train",
            )
            rec.gan(step, d_real=dict.fromkeys(SUBS, 0.99), d_fake=dict.fromkeys(SUBS, 0.01), split="eval")

    return make


@pytest.mark.parametrize("d_loss", ["sum", "parts"])
def test_a_gan_in_balance_is_silent_and_looked_at_in_all_respects(tmp_path: Path, d_loss: str):
    result = gan(recorded(tmp_path / "gan", adversaries(d_loss=d_loss)))
    assert result.findings == ()
    assert {n.kind for n in result.not_applicable} == {"discriminator-overfitting"}, "r_t is no part of `rec.gan`"
    roles = dict(zip(result.frame["role"], result.frame["metric"], strict=True))
    assert roles["d_real"] == "d_real (mean of 5)"
    assert roles["discriminator_loss"] == ("d_loss" if d_loss == "sum" else "d_loss (mean of 5)")


def test_samples_that_become_one_are_a_collapse(tmp_path: Path):
    (finding,) = gan(recorded(tmp_path / "gan", adversaries(collapse=True))).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("mode-collapse", "critical", 300)


@pytest.mark.parametrize(("winners", "severity"), [(1, "info"), (2, "info"), (3, "warning")])
def test_sub_discriminators_that_have_won_are_named(tmp_path: Path, winners: int, severity: str):
    (finding,) = gan(recorded(tmp_path / "gan", adversaries(winners=winners))).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("discriminator-dominance", severity, 300)
    assert finding.evidence["won"] == ", ".join(SUBS[:winners])
    assert f"{winners} of 5 sub-discriminators" in finding.message


@pytest.mark.parametrize("d_loss", ["sum", "parts"])
def test_when_all_have_won_the_game_is_lost_and_told_once(tmp_path: Path, d_loss: str):
    (finding,) = gan(recorded(tmp_path / "gan", adversaries(winners=5, d_loss=d_loss))).findings
    assert (finding.kind, finding.severity) == ("discriminator-dominance", "critical")
    assert finding.evidence["separation"] == pytest.approx(0.98, abs=0.01)


def test_gradient_norms_of_a_gan_are_series_of_their_networks(tmp_path: Path):
    run = recorded(tmp_path / "gan", adversaries())
    assert run.series("grad_norm/mpd.0")["value"].to_list() == [2.0] * len(STEPS)
    assert run.series("grad_norm/generator")["value"].is_between(1.0, 1.1).all()


def voices(*, collapsed: bool) -> Make:
    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        speakers = rng.normal(size=(8, 32))
        labels = np.repeat(range(8), 15)
        for step in (100, 200, 300):
            vectors = speakers[labels] + 0.4 * rng.normal(size=(120, 32))
            if collapsed and step == 300:
                vectors = np.ones((120, 32)) + 1e-4 * vectors
            rec.embeddings(step, torch.tensor(vectors), labels, [f"{n}.wav" for n in range(120)])

    return make


def test_embeddings_that_separate_are_silent_and_a_collapse_is_found(tmp_path: Path):
    healthy = at.speaker_embeddings(recorded(tmp_path / "healthy", voices(collapsed=False)))
    assert told(healthy) == [] and healthy.frame["step"].to_list() == [100, 200, 300] and healthy.unread == ()
    ill = at.speaker_embeddings(recorded(tmp_path / "ill", voices(collapsed=True)))
    assert "embedding-collapse" in {kind for kind, _ in told(ill)}


def inputs(*, leak_from: int | None = None) -> Make:
    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        for step in STEPS:
            batch = {"input_ids": torch.zeros(2, 3, dtype=torch.long)}
            if leak_from is not None and step >= leak_from:
                batch["labels"] = torch.zeros(2, 3)
            rec.inputs(step, "forward", batch)

    return make


def test_inputs_that_keep_the_contract_are_silent_and_a_leak_is_found(tmp_path: Path):
    assert told(contracts(recorded(tmp_path / "healthy", inputs()))) == []
    (leak,) = contracts(recorded(tmp_path / "ill", inputs(leak_from=400))).findings
    assert (leak.kind, leak.first_step) == ("forbidden-input", 400)


def test_data_samples_and_checkpoints_are_read_back_as_they_were_told(tmp_path: Path):
    model = tmp_path / "model.pt"
    model.write_bytes(b"w" * 100)

    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        for step in STEPS:
            rec.data(step, files=step + 1, augmented=torch.tensor(step // 2), cache_hits=np.int64(step))
        rec.data(files=601)
        for kind, file in (("audio", "a.wav"), ("midi", "b.mid"), ("image", "c.png"), ("text", "d.txt")):
            rec.sample(600, kind, [rec.path / "samples" / file], {"prompt": "x", "score": torch.tensor(0.5)})
        rec.checkpoint(600, model)

    run = recorded(tmp_path / "run", make)
    assert run.series("data/augmented")["value"].to_list() == [step // 2 for step in STEPS]
    assert run.series("data/files")["value"].max() == 601
    samples = [content(text) for text in run.events_of("samples")["payload"]]
    assert [sample["kind"] for sample in samples] == ["audio", "midi", "image", "text"]
    assert samples[0]["files"] == ["samples/a.wav"] and samples[0]["metadata"] == {"prompt": "x", "score": 0.5}
    (checkpoint,) = (content(text) for text in run.events_of("checkpoint")["payload"])
    assert checkpoint["bytes"] == 100 and len(checkpoint["sha256"]) == 64
    assert at.diagnose(run).status == "healthy"


def content(text: str) -> dict[str, object]:
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_the_calls_of_the_guide_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = (Path(__file__).parents[2] / "docs" / "recording.md").read_text().split("```python\n")[1:]
    (block,) = (text.split("```")[0] for text in blocks if text.startswith("rec.losses("))
    (tmp_path / "runs" / "gpt-1").mkdir(parents=True)
    (tmp_path / "runs" / "gpt-1" / "ckpt.pt").write_bytes(b"w" * 10)
    numbers = dict.fromkeys(["it", "max_iters", "seen", "augmented", "hits", "r0", "r1", "f0", "f1", "d", "g"], 1)
    losses = {"kd": torch.tensor(1.0), "feature": torch.tensor(2.0), "loss": torch.tensor(1.3), "shown": 1.3}
    given = {"vectors": torch.eye(3), "speakers": ["a", "b", "a"], "files": ["1", "2", "3"], "prompt": "x"}

    def make(rec: at.Recorder, rng: np.random.Generator) -> None:
        exec(compile(block, "recording.md", "exec"), {"rec": rec, "spread": 0.8, **numbers, **losses, **given})

    run = recorded(tmp_path / "run", make)
    assert set(run.events["kind"]) == {"losses", "curriculum", "data", "embeddings", "samples", "checkpoint", "end"}
    assert {"d_real/mpd.0", "d_fake/msd.0", "d_loss", "diversity", "losses/kd/weight"} <= set(run.metrics)
    assert not [f for f in at.losses(run).findings if f.severity != "info"]
