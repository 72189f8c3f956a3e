"""Trains a small speaker encoder (TDNN with statistics pooling, additive-margin softmax) on synthesised voices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .loop import Meter, descend, lr_at, progress, seed_all
from .recording import Recording
from .speech import BANDS, SENTENCES, VOICES, Speak, Voice, log_mel

__all__ = ["Speech", "config", "plan", "prepare", "train"]

STEPS, BATCH = 600, 32
CROP_FRAMES, EVAL_FRAMES = 100, 130
CHANNELS, DIM = 48, 48
SCALE, MARGIN = 15.0, 0.2
HELD_OUT = 6  # the last sentences, of every voice
LOG_EVAL_EVERY = 20
NOISE_DB = (10.0, 25.0)
FEATURE_NOISE = 0.8  # added to training crops; without it the encoder learns the fourteen sentences by heart


@dataclass(frozen=True)
class Speech:
    """Features per utterance (frames, bands), speaker numbers and names of the utterances; held-out ones apart."""

    train: list[torch.Tensor]
    train_speakers: torch.Tensor
    eval: torch.Tensor  # (utterances, frames, bands), one fixed piece of each
    eval_speakers: torch.Tensor
    eval_names: list[str]
    voices: tuple[Voice, ...]


class Encoder(nn.Module):
    """Snyder et al. 2018 (x-vectors) in small: dilated convolutions over time, mean and deviation, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(BANDS, CHANNELS, 5),
            nn.ReLU(),
            nn.Conv1d(CHANNELS, CHANNELS, 3, dilation=2),
            nn.ReLU(),
            nn.Conv1d(CHANNELS, CHANNELS, 3, dilation=3),
            nn.ReLU(),
        )
        self.embed = nn.Linear(2 * CHANNELS, DIM)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Unit vectors (utterances, 48) of features (utterances, frames, 40)."""
        inner = self.frames(features.transpose(1, 2))
        pooled = torch.cat([inner.mean(-1), (inner.var(-1, unbiased=False) + 1e-5).sqrt()], dim=-1)
        return functional.normalize(self.embed(pooled), dim=-1)


def plan(steps: int = STEPS) -> dict[str, Any]:
    """Cosine learning rate and what the encoder must see, and must not."""
    lr = {"schedule": "cosine", "peak": 3e-3, "warmup_steps": steps // 20, "total_steps": steps, "min": 1e-5}
    inputs = {"encoder": {"require": ["features"], "forbid": ["speakers"]}, "loss": {"require": ["speakers"]}}
    return {"max_steps": steps, "lr": lr, "inputs": inputs}


def config(seed: int) -> dict[str, Any]:
    """Hyper-parameters and the voices."""
    return {
        "task": "speaker encoder",
        "dataset": f"espeak-ng, {len(VOICES)} voices x {len(SENTENCES)} sentences",
        "seed": seed,
        "batch_size": BATCH,
        "crop_frames": CROP_FRAMES,
        "embedding_dim": DIM,
        "loss": "additive margin softmax",
        "margin": MARGIN,
        "scale": SCALE,
        "optimizer": "Adam",
        "held_out_sentences": HELD_OUT,
        "noise_db": list(NOISE_DB),
        "feature_noise": FEATURE_NOISE,
        "voices": [f"{voice.name}, pitch {voice.pitch}, speed {voice.speed}" for voice in VOICES],
    }


def prepare(
    speak: Speak,
    *,
    voices: tuple[Voice, ...] = VOICES,
    sentences: tuple[str, ...] = SENTENCES,
    held_out: int = HELD_OUT,
) -> Speech:
    """Every voice says every sentence, each time a little higher or lower, faster or slower, and with noise."""
    rng = np.random.default_rng(20240103)
    kept: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    speakers: dict[bool, list[int]] = {True: [], False: []}
    names = []
    for number, voice in enumerate(voices):
        for position, sentence in enumerate(sentences):
            pitch = int(np.clip(voice.pitch + rng.integers(-6, 7), 0, 99))
            said = speak(Voice(voice.name, pitch, voice.speed + int(rng.integers(-15, 16))), sentence)
            for_eval = position >= len(sentences) - held_out
            kept[for_eval].append(torch.from_numpy(log_mel(_with_noise(said, rng))))
            speakers[for_eval].append(number)
            if for_eval:
                names.append(f"{voice.name}/sentence{position:02d}.wav")
    pieces = torch.stack([_fitted(features, EVAL_FRAMES) for features in kept[True]])
    return Speech(kept[False], torch.tensor(speakers[False]), pieces, torch.tensor(speakers[True]), names, voices)


def _with_noise(waveform: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """The waveform with white noise at a signal-to-noise ratio drawn from `NOISE_DB`."""
    power = float(np.mean(waveform**2)) / 10 ** (rng.uniform(*NOISE_DB) / 10)
    return (waveform + np.sqrt(power) * rng.standard_normal(len(waveform))).astype(np.float32)


def _fitted(features: torch.Tensor, frames: int) -> torch.Tensor:
    """The first `frames` frames; a shorter utterance is repeated until it is long enough."""
    repeats = -(-frames // features.shape[0])
    return features.repeat(repeats, 1)[:frames]


def train(
    rec: Recording,
    speech: Speech,
    folder: Path,
    *,
    seed: int,
    save: Callable[[dict[str, torch.Tensor], Path], None],
    steps: int = STEPS,
) -> float:
    """Trains an encoder and records it; embeddings of the held-out utterances and checkpoints four times.

    `save` writes a state dict to a path (safetensors). Returns the last EER.
    """
    rng, meter, planned = seed_all(seed), Meter(), plan(steps)
    encoder = Encoder()
    centres = nn.Parameter(torch.randn(len(speech.voices), DIM))
    optimizer = torch.optim.Adam([*encoder.parameters(), centres])
    keep_at = {0, steps // 6, steps // 2, steps}
    _keep(rec, 0, encoder, speech, folder, save)
    eer = float("nan")
    for step in range(1, steps + 1):
        chosen = rng.integers(0, len(speech.train), BATCH)
        features = torch.stack([_crop(speech.train[i], rng) for i in chosen])
        speakers = speech.train_speakers[torch.from_numpy(chosen)]
        if step == 1:
            rec.inputs(step, "encoder", {"features": features})
            rec.inputs(step, "loss", {"speakers": speakers})
        loss, right = _margin_loss(encoder(features), centres, speakers)
        lr = lr_at(step, planned["lr"])
        norm = descend(loss, optimizer, lr, [*encoder.parameters(), centres], clip=5.0)
        meter.count(BATCH)
        rec.log(step, {"loss": loss.item(), "accuracy": right, "lr": lr, "grad_norm": norm}, split="train")
        if step % LOG_EVAL_EVERY == 0 or step == steps:
            eer = _evaluate(rec, step, encoder, centres, speech)
            rec.data(step, files=step * BATCH)
            meter.record(rec, step)
            progress("speaker-encoder", step, steps, f"EER {eer:.3f}")
        if step in keep_at:
            _keep(rec, step, encoder, speech, folder, save)
    return eer


def _crop(features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    start = int(rng.integers(0, max(1, features.shape[0] - CROP_FRAMES + 1)))
    piece = _fitted(features[start:], CROP_FRAMES)
    return piece + FEATURE_NOISE * torch.from_numpy(rng.standard_normal(tuple(piece.shape)).astype(np.float32))


def _margin_loss(vectors: torch.Tensor, centres: torch.Tensor, speakers: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Wang et al. 2018 (AM-softmax), equation 5, and the share of vectors whose own centre is nearest."""
    cosine = vectors @ functional.normalize(centres, dim=-1).T
    own = functional.one_hot(speakers, centres.shape[0]).to(cosine.dtype)
    right = (cosine.argmax(-1) == speakers).to(torch.float32).mean().item()
    return functional.cross_entropy(SCALE * (cosine - MARGIN * own), speakers), right


@torch.no_grad()
def _evaluate(rec: Recording, step: int, encoder: Encoder, centres: torch.Tensor, speech: Speech) -> float:
    vectors = encoder(speech.eval)
    loss, right = _margin_loss(vectors, centres, speech.eval_speakers)
    same, different = pair_cosines(vectors.numpy(), speech.eval_speakers.numpy())
    eer = equal_error_rate(same, different)
    values = {"loss": loss.item(), "accuracy": right, "eer": eer}
    values |= {"same_cosine": float(same.mean()), "different_cosine": float(different.mean())}
    rec.log(step, values, split="eval")
    return eer


def pair_cosines(vectors: np.ndarray[Any, Any], speakers: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Cosines of all pairs of utterances: those of one speaker, those of two."""
    first, second = np.triu_indices(len(speakers), k=1)
    cosine = (vectors @ vectors.T)[first, second]
    same = speakers[first] == speakers[second]
    return cosine[same], cosine[~same]


def equal_error_rate(same: np.ndarray[Any, Any], different: np.ndarray[Any, Any]) -> float:
    """Where misses and false alarms are nearest to each other over all thresholds: their mean."""
    thresholds = np.sort(np.concatenate([same, different]))
    misses = np.searchsorted(np.sort(same), thresholds) / len(same)
    alarms = 1.0 - np.searchsorted(np.sort(different), thresholds) / len(different)
    nearest = int(np.argmin(np.abs(misses - alarms)))
    return float((misses[nearest] + alarms[nearest]) / 2)


@torch.no_grad()
def _keep(
    rec: Recording,
    step: int,
    encoder: Encoder,
    speech: Speech,
    folder: Path,
    save: Callable[[dict[str, torch.Tensor], Path], None],
) -> None:
    """A checkpoint, and the embeddings of the held-out utterances with it."""
    path = folder / "checkpoints" / f"step{step:06d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(encoder.state_dict(), path)
    rec.checkpoint(step, path)
    labels = [speech.voices[i].name for i in speech.eval_speakers.tolist()]
    rec.embeddings(step, encoder(speech.eval).numpy(), labels, speech.eval_names)
