"""Which saves belong to a run: those of its folder, and never those of the folder that one works in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.weights.kept import NoSavesError, beside, saves_of
from parsers import registry
from parsers.finish import finish


def test_a_run_in_memory_has_no_saves_whatever_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    np.savez(tmp_path / "model.npz", **{"fc.weight": np.eye(3)})
    rows = pl.DataFrame({"tag": ["loss"] * 3, "step": range(3), "value": [3.0, 2.0, 1.0]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoSavesError, match="no checkpoints lie in the folder of this run"):
        saves_of(finish("r", "", "memory", rows))
    assert [len(saves) for saves in saves_of(finish("r", str(tmp_path), "memory", rows))] == [1]


def test_files_that_nobody_names_like_a_log_are_not_opened_in_search_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for step in range(5):
        np.savez(tmp_path / f"step_{step}.npz", **{"fc.weight": np.eye(3)})
        (tmp_path / f"step_{step}.safetensors").write_bytes(b"weights")
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(9)))
    asked: list[str] = []
    detect = registry.detect
    monkeypatch.setattr(registry, "detect", lambda path: asked.append(path.name) or detect(path))
    run = beside(tmp_path)
    assert run is not None and run.series("loss").height == 9
    assert "log.jsonl" in asked and not any(name.endswith(".safetensors") for name in asked)
