"""Copies of a model on several ranks: the same bit by bit, or told; shards are no copies."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from analysis.findings import Finding
from analysis.weights.replicas import findings_of_replicas
from parsers.checkpoints.opening import open_checkpoint

Weights = dict[str, torch.Tensor]


def model(seed: int = 0) -> Weights:
    made = torch.Generator().manual_seed(seed)
    shapes = {"fc1.weight": (16, 8), "ln.weight": (16,), "fc2.weight": (16, 16), "bn.running_mean": (16,)}
    return {name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


def judged(folder: Path, ranks: list[Weights]) -> list[Finding]:
    with ExitStack() as stack:
        opened = []
        for rank, weights in enumerate(ranks):
            torch.save({"model": weights, "global_step": 10}, folder / f"rank-{rank}.pt")
            opened.append((rank, stack.enter_context(open_checkpoint(folder / f"rank-{rank}.pt"))))
        return findings_of_replicas(opened, run_name="r", step=10)


def test_copies_that_are_the_same_bit_by_bit_are_sound(tmp_path: Path) -> None:
    assert judged(tmp_path, [model(), model(), model()]) == []


def test_statistics_of_normalisation_are_each_ranks_own(tmp_path: Path) -> None:
    assert judged(tmp_path, [model(), {**model(), "bn.running_mean": torch.zeros(16)}]) == []


def test_pieces_and_copies_that_were_never_synchronised_look_alike_and_are_information(tmp_path: Path) -> None:
    other = {**model(), "fc1.weight": model(1)["fc1.weight"], "fc2.weight": model(1)["fc2.weight"]}
    (found,) = judged(tmp_path, [model(), other])
    assert (found.severity, found.evidence["rank"], found.evidence["tensors"]) == ("info", 1, 2)
    assert "nothing in common" in found.message and "no DistributedDataParallel" in found.causes[1]


def test_pieces_of_other_shapes_or_names_are_no_copies(tmp_path: Path) -> None:
    wider = {**model(), "fc1.weight": torch.zeros(4, 8)}
    assert judged(tmp_path, [model(), wider]) == []
    assert judged(tmp_path, [model(), {"fc3.weight": torch.zeros(4, 8)}]) == []


@pytest.mark.parametrize(("size", "severity"), [(1e-2, "critical"), (1e-7, "warning")])
def test_a_norm_that_drifts_on_one_rank_is_found_however_little(size: float, severity: str, tmp_path: Path) -> None:
    drifted = {**model(), "ln.weight": model()["ln.weight"] * (1 + size * torch.randn(16))}
    (found,) = judged(tmp_path, [model(), model(), drifted])
    assert (found.kind, found.severity, found.metric) == ("rank-divergence", severity, "ln.weight")
    assert (found.evidence["rank"], found.evidence["tensors"]) == (2, 1)
    assert "not synchronised" in found.causes[0]


def test_ranks_that_all_left_the_first_are_told_each(tmp_path: Path) -> None:
    others = [{name: t * (1 + 0.01 * n) for name, t in model().items()} for n in (1, 2)]
    found = judged(tmp_path, [model(), *others])
    assert [f.evidence["rank"] for f in found] == [1, 2]
    assert float(found[1].evidence["difference"] or 0) == pytest.approx(0.02 / 1.02, rel=1e-3)


def test_a_copy_that_is_nan_is_apart(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, [model(), {**model(), "ln.weight": torch.full((16,), float("nan"))}])
    assert found.severity == "critical"


def test_one_copy_alone_has_nothing_to_be_held_against(tmp_path: Path) -> None:
    assert judged(tmp_path, [model()]) == []
    assert findings_of_replicas([], run_name="r") == []
