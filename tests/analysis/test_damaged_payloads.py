"""Events whose payload is no JSON object, as a foreign writer may seal them: the other checks judge all the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analysis.diagnose import diagnose
from analysis.usage.out_of_memory import out_of_memory
from eventstream.recorder import Recorder
from parsers.finish import finish
from parsers.loading import load
from parsers.run import Run

#: Absent, empty, text, cut, another value, and what strict JSON has not.
DAMAGED = (
    None,
    "",
    "text",
    '{"phase": "warm", "decimals":',
    "[1]",
    '"CUDA out of memory. "decimals"',
    "1",
    '{"a":NaN}',
)
KINDS = ("end", "curriculum", "losses", "note", "embeddings", "checkpoint", "inputs", "watched", "contract", "data")
TAGS = ("loss", "lr", "losses/kd/raw", "losses/total", "curriculum/weight/kd", "tokens_per_second")


def _run(payload: str | None) -> Run:
    """Two ranks with a loss, its parts and a speed that falls in the middle, and two events of each kind there."""
    rows = [
        (rank, tag, step, (100.0 if step < 30 else 20.0) if tag == "tokens_per_second" else 1 + 1 / (step + 1))
        for rank in (0, 1)
        for tag in TAGS
        for step in range(60)
    ]
    columns = {"rank": pl.Int32, "tag": pl.String, "step": pl.Int64, "value": pl.Float64}
    schema = {"kind": pl.String, "step": pl.Int64, "payload": pl.String}
    events = pl.DataFrame([(kind, step, payload) for kind in KINDS for step in (30, 31)], schema=schema, orient="row")
    plan = {"curriculum": {"phases": [{"name": "warm", "start": 5, "weights": {"kd": 0.5}}]}}
    return finish("r", "r", "jsonl", pl.DataFrame(rows, schema=columns, orient="row"), events=events, plan=plan)


@pytest.mark.parametrize("payload", DAMAGED)
def test_events_that_say_nothing_change_nothing_that_the_numbers_say(payload: str | None) -> None:
    told = diagnose(_run(payload))
    empty = diagnose(_run("{}"))
    kinds = [{one.kind for one in made.findings} - {"memory-overflow"} for made in (told, empty)]
    assert kinds[0] == kinds[1] and "throughput-drop" in kinds[0]


def test_a_note_of_another_writer_whose_payload_is_plain_text_tells_that_memory_ran_out() -> None:
    found = out_of_memory(_run("torch.OutOfMemoryError: CUDA out of memory."))
    assert {(one.kind, one.step) for one in found} >= {("note", 30), ("end", 30)}
    assert all("CUDA out of memory" in one.text for one in found)


@pytest.mark.parametrize("payload", DAMAGED)
def test_a_sealed_segment_with_damaged_events_is_read_and_judged(tmp_path: Path, payload: str | None) -> None:
    with Recorder(tmp_path / "exp", config={"lr": 0.1}, plan={"max_steps": 60}) as recorder:
        for step in range(60):
            recorder.log(step, {"loss": 1 + 1 / (step + 1)})
    (segment,) = (tmp_path / "exp").glob("*.parquet")
    table = pl.read_parquet(segment)
    event = pl.col("tag").is_null()
    table = table.with_columns(payload=pl.when(event).then(pl.lit(payload, pl.String)).otherwise(pl.col("payload")))
    table.write_parquet(segment)
    run = load(tmp_path / "exp")
    assert isinstance(run, Run) and set(run.events["kind"]) == {"config", "end"}
    assert run.config["lr"] == 0.1, "the manifest has it"
    assert "truncated-stream" in diagnose(run).judged
