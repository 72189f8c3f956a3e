"""The pieces that the training scripts stand on, against obvious versions and reference libraries."""

import doctest
import importlib
import pkgutil
import shutil
import string

import numpy as np
import pytest
import torch
from scipy import special
from sklearn import metrics

import data.training
from data.training.charlm import Options, plan
from data.training.curriculum import phase_at, weights_at
from data.training.digits import augment, load_digits
from data.training.distillation_losses import CONTRASTIVE_TEMPERATURE, TEMPERATURE, Distiller
from data.training.grammar import characters, write
from data.training.loop import lr_at
from data.training.speaker_encoder import equal_error_rate, pair_cosines
from data.training.speech import BANDS, RATE, VOICES, espeak, log_mel
from data.training.students import Experts, Seen, Transformer

MODULES = [f"data.training.{found.name}" for found in pkgutil.iter_modules(data.training.__path__)]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_in_the_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_weights_on_linear_ramps_are_those_of_interpolation() -> None:
    phases = [
        {"name": "a", "start": 0, "weights": {"kd": 0.7}},
        {"name": "b", "start": 40, "weights": {"kd": 0.1}, "ramp": "linear", "ramp_length": 20},
        {"name": "c", "start": 80, "weights": {"kd": 0.9}, "ramp": "linear", "ramp_length": 10},
    ]
    curriculum = {"axis": "step", "phases": phases}
    steps = np.arange(0, 120)
    expected = np.interp(steps, [0, 40, 60, 80, 90, 120], [0.7, 0.7, 0.1, 0.1, 0.9, 0.9])
    assert [weights_at(int(s), curriculum)["kd"] for s in steps] == pytest.approx(expected.tolist())
    assert [phase_at(s, curriculum) for s in (39, 40, 79, 80)] == [0, 1, 1, 2]


def test_the_cosine_schedule_is_torchs_cosine_annealing() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01)
    expected = []
    for _ in range(51):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = {"schedule": "cosine", "peak": 0.1, "warmup_steps": 0, "total_steps": 50, "min": 0.01}
    assert [lr_at(step, ours) for step in range(51)] == pytest.approx(expected)


def test_a_constant_schedule_stays_at_its_peak_after_the_warm_up() -> None:
    schedule = plan(Options())["lr"]
    assert [lr_at(step, schedule) for step in (20, 40, 800)] == pytest.approx([1.5e-3, 3e-3, 3e-3])


def test_routed_experts_mix_each_experts_output_by_the_gate_of_the_token() -> None:
    torch.manual_seed(0)
    experts = Experts(6, 5, 3)
    x = torch.randn(2, 4, 6)
    mixed, gates = experts(x)
    for b, t in np.ndindex(2, 4):
        outputs = [torch.nn.functional.gelu(x[b, t] @ experts.into[e]) @ experts.back[e] for e in range(3)]
        slow = sum(gates[b, t, e] * outputs[e] for e in range(3))
        assert mixed[b, t].detach().numpy() == pytest.approx(slow.detach().numpy(), abs=1e-5)


def both_seen() -> tuple[Distiller, Seen, Seen, torch.Tensor]:
    torch.manual_seed(1)
    student, teacher = Transformer(width=8, heads=2, layers=2, experts=3), Transformer(width=12, heads=2, layers=3)
    images = torch.rand(5, 8, 8)
    return Distiller(8, 12, {0: 0, 1: 2}), student(images), teacher(images), torch.tensor([0, 1, 2, 3, 4])


def test_each_loss_of_the_distillation_is_what_its_definition_says() -> None:
    distiller, student, teacher, labels = both_seen()
    with torch.no_grad():
        losses = {name: value.item() for name, value in distiller(student, teacher, labels).items()}
        projected = distiller.feature(student.pooled).numpy()
    logits, guides = student.logits.detach().numpy(), teacher.logits.detach().numpy()
    assert losses["hard"] == pytest.approx(metrics.log_loss(labels, special.softmax(logits, 1), labels=range(10)), 1e-5)
    p, q = special.softmax(guides / TEMPERATURE, 1), special.softmax(logits / TEMPERATURE, 1)
    assert losses["kd"] == pytest.approx(TEMPERATURE**2 * special.rel_entr(p, q).sum(1).mean(), rel=1e-4)
    cosine = metrics.pairwise.cosine_similarity(projected, teacher.pooled.detach().numpy()) / CONTRASTIVE_TEMPERATURE
    assert losses["contrastive"] == pytest.approx(-np.diag(special.log_softmax(cosine, 1)).mean(), rel=1e-4)
    attention = [
        special.rel_entr(teacher.attention[j].detach().numpy(), student.attention[i].detach().numpy()).sum(-1).mean()
        for i, j in ((0, 0), (1, 2))
    ]
    assert losses["attention"] == pytest.approx(np.mean(attention), rel=1e-3)


def test_the_routing_losses_follow_their_papers() -> None:
    distiller, student, teacher, labels = both_seen()
    losses = distiller(student, teacher, labels)
    balance, importance = [], []
    for gates in student.gates:
        flat = gates.detach().numpy().reshape(-1, 3)
        chosen = np.bincount(flat.argmax(1), minlength=3) / len(flat)
        balance.append(3 * (chosen * flat.mean(0)).sum())
        importance.append(np.var(flat.sum(0)) / np.mean(flat.sum(0)) ** 2)
    assert losses["routing_load_balance"].item() == pytest.approx(np.mean(balance), rel=1e-5)
    assert losses["routing_expert_importance"].item() == pytest.approx(np.mean(importance), rel=1e-4)


def test_augmented_digits_are_the_image_moved_by_at_most_a_pixel() -> None:
    images = load_digits().train[:50]
    moved = augment(images, np.random.default_rng(0), noise=0.0)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    places = [(i, j) for i in range(3) for j in range(3)]
    for original, after in zip(padded, moved, strict=True):
        assert any(torch.equal(original[i : i + 8, j : j + 8], after) for i, j in places)


def test_the_held_out_digits_are_the_same_for_everyone_and_not_in_training() -> None:
    first, again = load_digits(), load_digits()
    assert torch.equal(first.eval, again.eval)
    assert (first.train.shape[0], first.eval.shape[0]) == (1347, 450)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 4000.0])
def test_a_tone_lands_in_the_mel_band_of_its_frequency(hertz: float) -> None:
    mel = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    nearest = int(np.argmin(np.abs(mel[1:-1] - 2595 * np.log10(1 + hertz / 700))))
    time = np.arange(RATE) / RATE
    # silence in one half, so that the mean over time that is taken off does not hide the tone
    tone = (np.sin(2 * np.pi * hertz * time) * (time < 0.5)).astype(np.float32)
    features = log_mel(tone)
    assert features.shape[1] == BANDS
    assert abs(int(features[10].argmax()) - nearest) <= 1


def test_a_waveform_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="100 samples is shorter than one frame of 512"):
        log_mel(np.zeros(100, dtype=np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_the_equal_error_rate_is_that_of_scikit_learns_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((30, 4)) + 2.0 * np.repeat(np.eye(4)[:3], 10, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same, different = pair_cosines(vectors, np.repeat([0, 1, 2], 10))
    assert (len(same), len(different)) == (3 * 45, 300)
    truth = np.r_[np.ones(len(same)), np.zeros(len(different))]
    alarms, hits, _ = metrics.roc_curve(truth, np.r_[same, different], drop_intermediate=False)
    nearest = np.argmin(np.abs(1 - hits - alarms))
    assert equal_error_rate(same, different) == pytest.approx((1 - hits[nearest] + alarms[nearest]) / 2, abs=1 / 135)


def test_the_grammar_writes_only_characters_that_it_knows_and_the_length_asked_for() -> None:
    text = write(5000, seed=3)
    assert len(text) == 5000
    assert set(text) <= set(characters())
    assert set(characters()) <= set(string.ascii_lowercase + " ,.;")


def test_espeak_speaks_or_its_absence_is_named() -> None:
    if shutil.which("espeak-ng") is None:
        with pytest.raises(FileNotFoundError, match="espeak-ng"):
            espeak(VOICES[0], "One.")
    else:
        said = espeak(VOICES[0], "One.")
        assert len(said) > RATE // 4
        assert 0.05 < np.abs(said).max() <= 1.0
