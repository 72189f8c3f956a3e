"""Text logs of strangers: counts, first and last values as they were counted without this code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from eventstream.errors import InputError
from parsers.loading import load
from parsers.registry import detect
from parsers.run import Run
from tests.parsers.wild import WILD, told, wild

KINDS = ("megatron_text", "nanogpt_text", "llmc_stdout", "nanochat_text", "marian_text", "coqui_text", "speaker_text",
         "speech_text", "gan_text")  # fmt: skip
#: Names that the counting script gave and that differ from what the log prints.
PRINTED = {
    "validation lm loss": "lm loss value",
    "valid ce-mean-words": "ce-mean-words",
    "valid bleu-detok": "bleu-detok",
    "valid perplexity": "perplexity",
}
FILES = [(kind, path, facts) for kind in KINDS for path, facts in wild(kind)]


def same(value: object, counted: object) -> bool:
    number, expected = float(str(value)), float(str(counted))
    return (math.isnan(number) and math.isnan(expected)) or math.isclose(number, expected, rel_tol=2e-6, abs_tol=0.0)


def iteration(run: Run, epoch: float, step: int) -> int:
    """The iteration as printed, where these begin again with every epoch and the step counts on."""
    length = json.loads(run.events_of("note")["payload"][0])["iterations_per_epoch"]
    return step if length is None else step - (int(epoch) - 1) * int(length)


@pytest.mark.parametrize(("kind", "path", "facts"), FILES, ids=[f"{k}-{p.name[:12]}" for k, p, _ in FILES])
def test_a_strangers_log_tells_what_was_counted_in_it(kind: str, path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.format == "text"
    for name, fact in facts.items():
        rows = told(run, PRINTED.get(name.removeprefix("eval/"), name.removeprefix("eval/")))
        assert rows.height == fact["n"], name
        for place, (at, value) in ((0, fact["first"]), (-1, fact["last"])):
            assert same(rows["value"][place], value), (name, place)
            step, epoch = rows["step"][place], rows["epoch"][place]
            if isinstance(at, int):
                assert at == (epoch if step is None else step), (name, place)
            elif isinstance(at, list):
                assert tuple(at) in {(epoch, iteration(run, epoch, step)), ("epoch", epoch)}, (name, place)
        finite = rows["value"].filter(rows["value"].is_finite())
        if fact["min"] is not None:
            assert same(finite.min(), fact["min"]), name
            assert same(finite.max(), fact["max"]), name
    assert run.rejects.height <= 1
    note = run.events_of("note")["payload"][0]
    assert '"used"' in note


@pytest.mark.parametrize("path", sorted((WILD / "olmo_text").rglob("train.log")) if WILD.exists() else [])
def test_an_olmo_console_gives_each_value_the_step_of_its_header(path: Path) -> None:
    run = load(path)
    loss = run.series("loss", split="train")
    assert loss["step"].to_list() == list(range(10, 1011, 10))
    assert run.series("grad_norm").height == 101
    assert run.scalars["tag"].n_unique() == 20
    assert loss["time"].null_count() == 0


@pytest.mark.parametrize("path", sorted((WILD / "edge_cases").rglob("train.log.*")) if WILD.exists() else [])
def test_a_log_that_crashed_before_its_first_number_is_refused_with_a_sentence(path: Path) -> None:
    assert detect(path) is None
    with pytest.raises(InputError, match="not a format that is known"):
        load(path)


@pytest.mark.parametrize("path", sorted((WILD / "edge_cases").rglob("main.log")) if WILD.exists() else [])
def test_a_pointer_in_place_of_a_log_says_that_it_is_one(path: Path) -> None:
    with pytest.raises(InputError, match="Git LFS pointer to a file of 793,878 bytes"):
        load(path)
