"""Embeddings as the recorder really wrote them, and the sample run that was really trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aftertrain as at


def test_what_the_recorder_wrote_is_judged_as_the_arrays_themselves(voices: Callable[..., Any], tmp_path: Path):
    X, labels, _ = voices(0, noise=0.5)
    names, paths = [f"speaker {v}" for v in labels], [f"{i}.wav" for i in range(len(X))]
    names[5] = "speaker 9"
    with at.Recorder(tmp_path / "exp") as rec:
        rec.embeddings(10, np.random.default_rng(0).normal(size=X.shape).astype(np.float32), labels=names, paths=paths)
        rec.embeddings(20, X.astype(np.float32), labels=names, paths=paths)
    recorded = at.speaker_embeddings(at.load(tmp_path / "exp"))
    direct = at.speaker_embeddings(X.astype(np.float32), names)
    assert recorded.frame["step"].to_list() == [10, 20]
    assert recorded.frame.row(1)[2:] == pytest.approx(direct.frame.row(0)[2:], nan_ok=True)
    assert recorded.mislabelled.select("row", "path", "label", "suggested").rows() == [
        (5, "5.wav", "speaker 9", "speaker 0")
    ]
    assert recorded.unread == ()


def test_the_trained_speaker_encoder_is_healthy_and_was_not_at_its_first_step(samples: Path):
    result = at.speaker_embeddings(at.load(samples / "speaker-encoder"))
    assert result.status == "healthy" and result.not_applicable == () and result.unread == ()
    first, last = result.frame.row(0, named=True), result.frame.row(-1, named=True)
    assert first["mean_cosine"] > 0.95 and first["eer"] > 0.3
    assert last["separation"] > 0.6 and last["eer_low"] <= last["eer"] <= last["eer_high"] < 0.1
