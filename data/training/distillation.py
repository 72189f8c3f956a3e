"""Distils a transformer with routed experts from a trained teacher on the digits, under a declared curriculum."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .curriculum import phase_at, weights_at
from .digits import Digits, augment, load_digits
from .distillation_losses import COMPONENTS, Distiller
from .loop import Meter, descend, lr_at, progress, seed_all
from .recording import Recording
from .students import Seen, Transformer

__all__ = ["BYPASS", "config", "plan", "prepare", "train"]

#: What the planted fault adds to the total, times the raw loss and whatever the curriculum says.
BYPASS = {"routing_expert_importance": 0.5, "routing_feature_matching": 0.016}
TEACHER = {"width": 64, "heads": 4, "layers": 3}
STUDENT = {"width": 32, "heads": 2, "layers": 2, "experts": 4}
PAIRS = {0: 0, 1: 2}  # student layer -> teacher layer
BATCH = 64
STEPS = 1200
EVAL_EVERY, DETAIL_EVERY = 25, 5
TEACHER_STEPS = 600


def plan(steps: int = STEPS) -> dict[str, Any]:
    """The curriculum in four phases of a quarter each; routing starts last and ramps in."""
    quarter = steps // 4
    ramp = {"ramp": "linear", "ramp_length": max(1, quarter // 3)}
    none = dict.fromkeys(COMPONENTS, 0.0)
    warm = none | {"hard": 0.3, "kd": 0.7}
    align = warm | {"kd": 0.5, "feature": 0.3, "attention": 0.2}
    deepen = align | {"kd": 0.4, "layerwise": 0.2, "contrastive": 0.1}
    route = deepen | {"routing_load_balance": 0.1, "routing_expert_importance": 0.2, "routing_feature_matching": 0.1}
    phases = [
        {"name": "warm", "start": 0, "weights": warm},
        {"name": "align", "start": quarter, "weights": align, **ramp},
        {"name": "deepen", "start": 2 * quarter, "weights": deepen, "ramp": "constant"},
        {"name": "route", "start": 3 * quarter, "weights": route, **ramp},
    ]
    return {
        "max_steps": steps,
        "curriculum": {"axis": "step", "phases": phases},
        "aggregation": "sum",
        "lr": {"schedule": "cosine", "peak": 2e-3, "warmup_steps": steps // 20, "total_steps": steps, "min": 1e-5},
        "inputs": {"forward": {"require": ["images"], "forbid": ["labels"]}, "loss": {"require": ["labels"]}},
    }


def config(seed: int) -> dict[str, Any]:
    """Hyper-parameters, the same for healthy and faulty runs: the fault is in the code, as it is in life."""
    return {
        "task": "distillation",
        "dataset": "scikit-learn digits, 8 x 8",
        "seed": seed,
        "batch_size": BATCH,
        "optimizer": "AdamW",
        "weight_decay": 0.01,
        "clip_grad_norm": 5.0,
        "teacher": TEACHER,
        "student": STUDENT,
        "augmentation": "shift by 1 pixel (half of the images), Gaussian noise 0.1",
    }


def prepare(seed: int, steps: int = TEACHER_STEPS) -> tuple[Digits, Transformer]:
    """The digits and a teacher trained on them.

    The held-out images are moved and made noisy once, with a seed of their own, so that train and eval loss measure
    the same task.
    """
    raw = load_digits()
    moved = augment(raw.eval, np.random.default_rng(20240102))
    digits = Digits(raw.train, raw.train_labels, moved, raw.eval_labels)
    rng = seed_all(seed + 1000)
    teacher = Transformer(**TEACHER)
    optimizer = torch.optim.AdamW(teacher.parameters(), weight_decay=0.01)
    schedule = {"schedule": "cosine", "peak": 3e-3, "warmup_steps": 20, "total_steps": steps}
    for step in range(1, steps + 1):
        images, labels = _batch(digits, rng)
        loss = functional.cross_entropy(teacher(images).logits, labels, label_smoothing=0.05)
        descend(loss, optimizer, lr_at(step, schedule), teacher.parameters(), clip=5.0)
    return digits, teacher.eval().requires_grad_(False)


def _batch(digits: Digits, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = torch.from_numpy(rng.integers(0, digits.train.shape[0], BATCH))
    return augment(digits.train[chosen], rng), digits.train_labels[chosen]


def total_of(weighted: dict[str, torch.Tensor], raw: dict[str, torch.Tensor], bypass: dict[str, float]) -> torch.Tensor:
    """Sum of the weighted components in float32, in order, and of whatever slips past the curriculum."""
    total = torch.zeros(())
    for part in weighted.values():
        total = total + part
    for name, constant in bypass.items():
        total = total + constant * raw[name]
    return total


def train(
    rec: Recording, *, seed: int, prepared: tuple[Digits, Transformer], bypass: bool = False, steps: int = STEPS
) -> float:
    """Trains one student and records it; returns its accuracy on the held-out images."""
    digits, teacher = prepared
    planned, rng, meter = plan(steps), seed_all(seed), Meter()
    student, distiller = Transformer(**STUDENT), Distiller(STUDENT["width"], TEACHER["width"], PAIRS)
    learned = [*student.parameters(), *distiller.parameters()]
    optimizer = torch.optim.AdamW(learned, weight_decay=0.01)
    extra, accuracy = (BYPASS if bypass else {}), 0.0
    for step in range(1, steps + 1):
        images, labels = _batch(digits, rng)
        if step == 1:
            _record_inputs(rec, images, labels)
        weights = weights_at(step, planned["curriculum"])
        seen = student(images)
        raw = distiller(seen, teacher(images), labels)
        weighted = {name: raw[name] * weights[name] for name in COMPONENTS}
        total = total_of(weighted, raw, extra)
        lr = lr_at(step, planned["lr"])
        norm = descend(total, optimizer, lr, learned, clip=5.0)
        meter.count(BATCH)
        rec.log(step, {"loss": total.item(), "lr": lr, "grad_norm": norm}, split="train")
        if step % DETAIL_EVERY == 0 or step == 1:
            _record_losses(rec, step, raw, weights, weighted, total)
            _record_curriculum(rec, step, planned, weights)
        if step % EVAL_EVERY == 0 or step == steps:
            accuracy = _evaluate(rec, step, student, distiller, teacher, digits, weights, extra)
            rec.log(step, {"accuracy": _accuracy(seen, labels)}, split="train")
            rec.data(step, files=step * BATCH, augmented=step * BATCH)
            meter.record(rec, step)
            progress("distillation", step, steps, f"eval accuracy {accuracy:.3f}")
    return accuracy


def _accuracy(seen: Seen, labels: torch.Tensor) -> float:
    return (seen.logits.argmax(-1) == labels).to(torch.float32).mean().item()


def _record_inputs(rec: Recording, images: torch.Tensor, labels: torch.Tensor) -> None:
    rec.inputs(1, "forward", {"images": images})
    rec.inputs(1, "loss", {"labels": labels})


def _record_losses(
    rec: Recording,
    step: int,
    raw: dict[str, torch.Tensor],
    weights: dict[str, float],
    weighted: dict[str, torch.Tensor],
    total: torch.Tensor,
) -> None:
    """Components as the code has them, and the loss as a progress bar shows it: to four decimals."""
    components = {
        name: {"raw": raw[name].item(), "weight": weights[name], "weighted": weighted[name].item()} for name in raw
    }
    rec.losses(step, components, total=total.item(), displayed=float(f"{total.item():.4f}"))


def _record_curriculum(rec: Recording, step: int, planned: dict[str, Any], weights: dict[str, float]) -> None:
    phases = planned["curriculum"]["phases"]
    name = phases[phase_at(step, planned["curriculum"])]["name"]
    rec.curriculum(step, phase=name, weights=weights, progress=step / planned["max_steps"])


@torch.no_grad()
def _evaluate(
    rec: Recording,
    step: int,
    student: Transformer,
    distiller: Distiller,
    teacher: Transformer,
    digits: Digits,
    weights: dict[str, float],
    extra: dict[str, float],
) -> float:
    """Total (with the step's own weights, in batches as in training) and accuracy on the held-out images."""
    totals, correct = [], 0
    count = digits.eval.shape[0] // BATCH * BATCH  # whole batches: the contrastive term depends on their size
    for start in range(0, count, BATCH):
        images, labels = digits.eval[start : start + BATCH], digits.eval_labels[start : start + BATCH]
        seen = student(images)
        raw = distiller(seen, teacher(images), labels)
        totals.append(total_of({name: raw[name] * weights[name] for name in COMPONENTS}, raw, extra).item())
        correct += int((seen.logits.argmax(-1) == labels).sum())
    accuracy = correct / count
    rec.log(step, {"loss": float(np.mean(totals)), "accuracy": accuracy}, split="eval")
    return accuracy
