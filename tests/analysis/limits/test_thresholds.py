"""Thresholds of a project: they reach every analysis, move it both ways, and mistakes in them are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aftertrain.cli import main
from analysis.checks import CHECKS
from analysis.diagnose import diagnose
from analysis.findings import SEVERITIES, Finding
from analysis.kinds import KINDS
from analysis.limits import Limits
from analysis.rules import rules_of
from analysis.speaker_embeddings import speaker_embeddings
from eventstream.errors import InputError
from parsers.run import Run
from tests.analysis.limits.borderline import BORDERLINE, exploding, run_of

#: Kinds of these checks have their own tests of thresholds, beside what they find.
ELSEWHERE = {"anomalies", "checkpoints", "convergence", "learning_rate", "plan"}
EMBEDDINGS = {"embedding-collapse", "low-separation", "mislabelled-sample"}


def found(run: Run, kind: str, warned: bool, threshold: float | None = None) -> list[Finding]:
    rules: dict[str, Any] = {} if threshold is None else {"threshold": {kind: threshold}}
    told = diagnose(run, checks=[BORDERLINE[kind][0]], rules=rules).findings
    least = SEVERITIES.index("warning" if warned else "info")
    return [f for f in told if f.kind == kind and SEVERITIES.index(f.severity) >= least]


@pytest.mark.parametrize("kind", BORDERLINE)
def test_a_threshold_makes_a_detector_more_and_less_sensitive(kind: str) -> None:
    _, made, (small, large), (milder, stricter), warned = BORDERLINE[kind]
    assert not found(made(small), kind, warned) and found(made(large), kind, warned), "sizes on both sides of the limit"
    assert found(made(small), kind, warned, stricter), "a stricter threshold reports what the default lets pass"
    assert not found(made(large), kind, warned, milder), "a milder one lets pass what the default reports"


@pytest.mark.parametrize("kind", BORDERLINE)
def test_a_finding_tells_the_number_judged_and_its_limit_and_healthy_runs_are_measured_too(kind: str) -> None:
    check, made, (small, large), (_, stricter), warned = BORDERLINE[kind]
    limit = KINDS[kind].limit
    assert limit is not None
    numbers = found(made(large), kind, warned)[0].evidence
    judged = numbers[limit.measure]
    assert isinstance(judged, float)
    assert (abs(judged) >= limit.default * 0.99) if limit.above else (judged <= limit.default * 1.01)
    named = [numbers[name] for name in ("limit", "share_limit") if name in numbers]
    assert any(value == pytest.approx(limit.default, rel=0.01) for value in named)
    measured = [m.value for m in diagnose(made(small), checks=[check]).measures if m.kind == kind]
    assert measured, "what is not reported is measured all the same"
    nearest = max(measured) if limit.above else min(measured)
    # a rise within what counts as none is measured as none: overfitting is asked to be one before it is measured
    if kind not in ("overfitting",):
        assert nearest == pytest.approx(small, rel=0.25)
        assert nearest >= stricter if limit.above else nearest <= stricter


def vectors(offset: float, spread: float, mislabelled: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 32))
    labels = np.repeat(np.arange(20), 40)
    made = centres[labels] + spread * rng.normal(size=(800, 32)) + offset
    for place in range(mislabelled):
        labels[place * 37] = (labels[place * 37] + 7) % 20
    return made, labels


@pytest.mark.parametrize(
    ("kind", "small", "large", "milder", "stricter"),
    [
        ("embedding-collapse", (2.5, 0.3, 0), (6.0, 0.3, 0), 0.99, 0.8),
        ("low-separation", (0.0, 0.95, 0), (0.0, 1.5, 0), 0.2, 0.6),
        ("mislabelled-sample", (0.0, 0.3, 4), (0.0, 0.3, 16), 0.05, 0.004),
    ],
)
def test_thresholds_move_the_judges_of_embeddings_both_ways(
    kind: str, small: Any, large: Any, milder: float, stricter: float
) -> None:
    def warned(made: Any, threshold: float | None = None) -> bool:
        limits = Limits() if threshold is None else Limits(((kind, "*", threshold),))
        told = speaker_embeddings(*vectors(*made), bootstrap=0, limits=limits)
        assert any(measure.kind == kind for measure in told.measures)
        return any(f.kind == kind and f.severity != "info" for f in told.findings)

    assert not warned(small) and warned(large)
    assert warned(small, stricter) and not warned(large, milder)


def test_every_kind_with_a_limit_is_tried() -> None:
    mine = {kind for check in CHECKS if check.name not in ELSEWHERE for kind in check.kinds if KINDS[kind].limit}
    assert mine == {*BORDERLINE, *EMBEDDINGS}


def test_the_last_threshold_that_fits_counts_for_metrics_and_for_layers() -> None:
    limits = Limits((("stall", "*", 50.0), ("exploding-gradient", "enc*", 9.0), ("exploding-gradient", "*/enc*", 5.0)))
    assert limits.of("stall") == 50.0
    assert limits.of("exploding-gradient", "grad_norm") == pytest.approx(10**1.5)
    assert limits.of("exploding-gradient", "grad_norm/encoder.0", "encoder.0") == 5.0
    assert limits.of("exploding-gradient", "norms", "encoder.0") == 9.0, "a layer's name serves as well"


def test_a_threshold_for_one_metric_leaves_the_others() -> None:
    run = exploding(20.0)
    for glob, told in (("grad_norm", 1), ("other*", 0)):
        rules = {"threshold": {f"exploding-gradient:{glob}": 10.0}}
        assert len(diagnose(run, checks=["gradients"], rules=rules).findings) == told


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ({"stal": 8.0}, "unknown kind 'stal'; did you mean 'stall'"),
        ({"non-finite": 1.0}, "'non-finite' is a matter of fact: no number decides"),
        ({"stream": 1.0}, "'stream' is a family, whose kinds have units of their own"),
        ({"stall": "60"}, "stall: is '60'; a number was expected, times_usual, in times the usual interval"),
        ({"stall": True}, "a number was expected"),
        ({"stall": float("nan")}, "a number was expected"),
        ({"stall": -3}, "stall: is -3; it must be above 1: times_usual"),
        ({"clipping": 1.2}, "it must be above 0 and at most 1: share, in share of the steps"),
        ({"throughput-drop": 0.0}, "at or below it a finding is made (default 0.75)"),
        ({"stall": {"loss": 3}}, "put names with dots in quotes"),
        (3, "threshold: is 3; a table of kinds and numbers was expected"),
    ],
)
def test_a_wrong_threshold_is_an_error_that_says_what_the_number_means(threshold: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        rules_of({"threshold": threshold}, "a/aftertrain.toml [findings]")
    assert said in str(error.value) and str(error.value).startswith("a/aftertrain.toml [findings]: threshold")


def test_thresholds_of_the_settings_reach_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").write_text(
        "".join(f'{{"step": {i}, "tokens_per_second": {1000 if i < 100 else 800}}}\n' for i in range(200))
    )
    settings = tmp_path / "aftertrain.toml"
    call = ["check", str(tmp_path / "log.jsonl"), "--config", str(settings), "--fail-on", "warning"]
    settings.write_text("[findings]\n")
    assert main(call) == 0
    settings.write_text('[findings.threshold]\n"throughput-drop" = 0.85\n')
    assert main(call) == 1 and "throughput-drop" in capsys.readouterr().out
    settings.write_text('[findings.threshold]\n"throughput-drop" = 2\n')
    assert main(call) == 2 and "share of the speed that is left" in capsys.readouterr().err


def test_a_run_of_one_point_is_measured_without_a_number_that_says_nothing() -> None:
    measures = diagnose(run_of({"loss": [1.0], "grad_norm": [1.0]})).measures
    assert all(np.isfinite(m.value) for m in measures)
