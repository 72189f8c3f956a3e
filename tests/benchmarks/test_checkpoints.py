"""What the benchmark of checkpoints compares with gives the same numbers, so that the ratio is one of equal work."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from analysis.checkpoints import checkpoints
from analysis.weights.differences import differences
from analysis.weights.statistics import statistics
from benchmarks import checkpoints as benchmark
from benchmarks import checkpoints_series
from parsers.checkpoints.opening import open_checkpoint


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(benchmark, "_WORDS", (64, 32))
    monkeypatch.setattr(benchmark, "_FLOATS", (64, 64))
    found = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for seed, file in enumerate(found):
        save_file(benchmark.weights(seed, scale=1), file)
    return found


def test_the_plain_torch_loop_gives_the_same_statistics(files: tuple[Path, Path]) -> None:
    with open_checkpoint(files[0]) as checkpoint:
        ours = {row["name"]: row for row in statistics(checkpoint).iter_rows(named=True)}
    keys = ["mean", "std", "norm", "minimum", "maximum", "zeros", "nan", "inf", "subnormals", "kurtosis"]
    keys += ["dead_rows", "dead_columns"]
    theirs = benchmark.torch_statistics(files[0])
    assert len(theirs) == len(ours) == 9
    for name, *values, exponents in theirs:
        row = ours[str(name)]
        for key, value in zip(keys, values, strict=True):
            expected = None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)
            assert row[key] == expected, (name, key)
        assert isinstance(exponents, list) and sum(exponents) == row["elements"]


def test_the_plain_torch_loop_gives_the_same_differences(files: tuple[Path, Path]) -> None:
    with open_checkpoint(files[0]) as a, open_checkpoint(files[1]) as b:
        ours = {row["name"]: row for row in differences(a, b).iter_rows(named=True)}
    for name, norm_a, norm_b, update, _, most, share, *counts in benchmark.torch_differences(*files):
        row = ours[str(name)]
        told = [row[key] for key in ("norm_a", "norm_b", "update_norm", "max_change", "share_changed")]
        assert told == pytest.approx([norm_a, norm_b, update, most, share], rel=1e-4)
        assert [row[key] for key in ("nan_a", "nan_b", "inf_a", "inf_b")] == counts


def test_the_mapped_read_looks_at_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(bytes([1, 0, 0, 0, 0, 0, 0, 0]) * 1000)
    assert benchmark.mapped_read(file) == benchmark.mapped_read(file, threads=2) == 1000
    assert benchmark.plain_read(file) == 8000


def test_what_only_moves_the_bytes_takes_files_that_are_no_multiple_of_its_buffer(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(benchmark._BUFFER + 5))
    assert benchmark.plain_read(file) == benchmark._BUFFER + 5
    benchmark.mapped_copy(file)
    benchmark.cat(file)


def test_a_series_of_the_benchmark_is_one_of_saves_that_move_and_are_healthy(tmp_path: Path) -> None:
    files = checkpoints_series.series(tmp_path, saves=3, width=16, layers=2)
    found = checkpoints(tmp_path)
    assert found.saves["path"].to_list() == [str(file) for file in files] and not found.findings
    assert found.changes.height == 12 and (found.changes["update_ratio"] > 0).all()
