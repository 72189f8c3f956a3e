"""Logs of one run that tell different numbers are said, with the cause that the numbers support."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.diagnose import diagnose
from analysis.sources import sources
from parsers.loading import load
from tests.parsers.test_sources import STEPS, curve, write_csv, write_events


def written(folder: Path, other: list[float]) -> Path:
    write_events(folder, curve(1))
    write_csv(folder / "metrics.csv", other)
    return folder


def test_logs_that_agree_are_judged_and_silent(tmp_path: Path) -> None:
    result = sources(load(written(tmp_path / "exp", curve(1))))
    assert (result.findings, result.not_applicable) == ((), ())
    assert result.frame.select("compared", "differing").row(0) == (60, 0)


@pytest.mark.parametrize(
    ("other", "severity", "cause"),
    [
        ([v * 8 for v in curve(1)], "warning", "8 x the other's"),
        ([0.0, *curve(1)[:-1]], "warning", "moved by 1 records"),
        ([v if i != 20 else float("nan") for i, v in enumerate(curve(1))], "warning", "not finite"),
        ([v + 0.3 * (i % 3) for i, v in enumerate(curve(1))], "warning", "single steps"),
    ],
)
def test_a_disagreement_is_told_with_the_cause_that_the_numbers_support(
    tmp_path: Path, other: list[float], severity: str, cause: str
) -> None:
    run = load(written(tmp_path / "exp", other))
    (finding,) = sources(run).findings
    assert (finding.kind, finding.severity) == ("source-disagreement", severity)
    assert cause in finding.causes[0]
    assert finding.evidence["compared"] == 60
    assert any(f.kind == "source-disagreement" for f in diagnose(run).findings)


def test_one_number_of_many_is_information_only(tmp_path: Path) -> None:
    folder, steps = tmp_path / "exp", range(1, 501)
    losses = [3.0 / s + (s % 7) / 100 for s in steps]
    write_events(folder, losses, steps=steps)
    losses[250] += 0.5
    (folder / "log.jsonl").write_text(
        "".join(json.dumps({"step": s, "train_loss": v}) + "\n" for s, v in zip(steps, losses, strict=True))
    )
    (finding,) = sources(load(folder)).findings
    assert (finding.severity, finding.first_step, finding.evidence["differing"]) == ("info", 251, 1)


def test_hostile_names_are_told_as_they_are_and_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    name = '$<script>"\\n'
    for file, factor in (("log.jsonl", 1), ("metrics.csv", 2)):
        values = [v * factor for v in curve(1)]
        if file.endswith("jsonl"):
            rows = [json.dumps({"step": s, name: v}) for s, v in zip(STEPS, values, strict=True)]
        else:
            rows = ['step,"$<script>""\\n"', *(f"{s},{v}" for s, v in zip(STEPS, values, strict=True))]
        (folder / file).write_text("\n".join(rows) + "\n")
    result = sources(load(folder))
    assert result.findings[0].metric == name
    drawn = result.plot()
    assert "numbers that differ (%)" in drawn.get_xlabel()


def test_a_run_of_one_log_is_not_judged(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", curve(1))
    assert [n.kind for n in sources(load(tmp_path / "a.csv")).not_applicable] == ["source-disagreement"]
