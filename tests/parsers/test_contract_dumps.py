"""Contract dumps: what logs print of inputs and outputs becomes events that the analysis of contracts judges."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.contracts import contracts
from eventstream.errors import InputError
from parsers.contract_dumps import read, sniff
from parsers.loading import load
from parsers.registry import detect
from parsers.run import Run
from parsers.text_logs.contract_lines import read_line

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"
KEYS = ["input_ids", "attention_mask", "audio_features"]
BROKEN = f"""Loading checkpoint shards
{{'loss': 2.5, 'learning_rate': 0.001, 'epoch': 0.1}}
Step 10
2025-07-09 10:00:00,123 - trainer - INFO - Input keys: {[*KEYS, "labels"]}
WARNING:trainer:Found 'labels' in training_step inputs - removing it!
DEBUG:trainer:Removing 'labels' from inputs before model forward pass
Step 20
ERROR:model:FOUND LABELS IN FORWARD METHOD! Input keys: {[*KEYS, "labels"]}
ERROR:model:This should not happen with our fixes!
Calling HiggsAudioModel with: {KEYS}
Logits: NOT FOUND
Whisper Embedding Status: ❌ DISABLED or NOT FOUND
Input IDs: ❌ NOT FOUND
"""
HEALTHY = f"""step=10 loss=2.5
Found 'labels' in training_step inputs - removing it!
Calling HiggsAudioModel with: {KEYS}
Logits: ✅ FOUND
Whisper Embedding Status: ✅ ENABLED
Input IDs: ✅ FOUND
"""
#: A write-up that quotes messages, and shows the source code that prints them.
WRITE_UP = """# Fix summary
From error logs:
- Input keys: `['input_ids', 'reward']`

```python
    logger.warning("Found 'labels' in training_step inputs - removing it!")
    logger.error(f"FOUND LABELS IN FORWARD METHOD! Input keys: {list(kwargs.keys())}")
```
- `"Calling HiggsAudioModel with: [clean_input_keys]"` - Confirms clean inputs
This should resolve "Logits: NOT FOUND", "Whisper Embedding Status: ❌ DISABLED or NOT FOUND" at step 1.
"""


def save(folder: Path, text: str, name: str = "train.log") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def payloads(run: Run, kind: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in run.events_of(kind)["payload"]]


def test_messages_become_events_with_their_stage_and_step(tmp_path: Path) -> None:
    run = load(save(tmp_path, BROKEN))
    found = [(p["stage"], list(p.get("tensors", p.get("status")))) for p in payloads(run, "inputs")]
    assert found == [
        ("", [*KEYS, "labels"]),
        ("training_step", ["labels"]),
        ("_prepare_inputs", ["labels"]),
        ("forward", [*KEYS, "labels"]),
        ("forward", KEYS),
        ("", ["Whisper Embedding"]),
        ("", ["Input IDs"]),
    ]
    assert run.events_of("inputs")["step"].to_list() == [10, 10, 10, 20, 20, 20, 20]
    assert payloads(run, "inputs")[4]["model"] == "HiggsAudioModel"
    assert payloads(run, "outputs") == [{"stage": "", "status": {"Logits": "NOT FOUND"}}]
    assert run.format == "contract-dumps" and run.plan == {"inputs": {"forward": {"forbid": ["labels"]}}}


def test_the_analysis_finds_each_breach_of_a_broken_run_and_none_in_a_healthy_one(tmp_path: Path) -> None:
    found = contracts(load(save(tmp_path, BROKEN))).findings
    told = {f.kind: (f.severity, f.metric) for f in found}
    assert told == {
        "forbidden-input": ("critical", "labels"),
        "missing-output": ("warning", "Logits"),
        "disabled-conditioning": ("warning", "Whisper Embedding"),
        "missing-input": ("warning", "Input IDs"),
    }
    (kept_out,) = contracts(load(save(tmp_path, HEALTHY, "healthy.log"))).findings
    assert (kept_out.kind, kept_out.severity, kept_out.metric) == ("forbidden-input", "info", "labels")


def test_the_numbers_of_the_log_are_read_by_the_format_it_has_besides(tmp_path: Path) -> None:
    rows = "".join(f"step: {s} loss: {3 - s / 10}\nInput keys: {KEYS}\n" for s in range(1, 20))
    plain = load(save(tmp_path, rows.replace(f"Input keys: {KEYS}\n", ""), "plain.log"))
    run = load(save(tmp_path, rows))
    assert plain.format != run.format == "contract-dumps"
    assert run.series("loss")["value"].to_list() == plain.series("loss")["value"].to_list()
    assert run.events_of("inputs")["step"].to_list() == list(range(1, 20))


def test_debug_blocks_beside_the_messages_are_read_too(tmp_path: Path) -> None:
    block = Path(__file__).with_name("debug_blocks.log").read_text(encoding="utf-8")
    run = load(save(tmp_path, f"Logits: NOT FOUND\n{block}"))
    assert run.events_of("losses").height and run.scalars.height and run.events_of("outputs").height == 1
    assert set(run.events["run"]) == {run.name}


def test_a_write_up_gives_the_messages_that_it_quotes_and_not_its_source_code(tmp_path: Path) -> None:
    run = load(save(tmp_path, WRITE_UP, "fix.txt"))
    assert payloads(run, "inputs") == [
        {"stage": "", "tensors": {"input_ids": {}, "reward": {}}, "quoted": True},
        {"stage": "", "status": {"Whisper Embedding": "DISABLED or NOT FOUND"}, "quoted": True},
    ]
    assert payloads(run, "outputs") == [{"stage": "", "status": {"Logits": "NOT FOUND"}, "quoted": True}]
    assert run.rejects["reason"].to_list() == ["the list holds no names in quotes"] and run.plan == {}


@pytest.mark.parametrize(("number", "kinds"), [("000", {"missing-output", "disabled-conditioning", "missing-input"}),
                                               ("001", {"forbidden-input"})])  # fmt: skip
def test_the_founding_documents_give_the_events_that_they_quote(number: str, kinds: set[str]) -> None:
    for path in SEEDS.glob(f"{number}_*.txt"):
        run = load(path)
        assert run.format == "contract-dumps" and {f.kind for f in contracts(run).findings} == kinds
        assert all(p["quoted"] for p in payloads(run, "inputs"))


@pytest.mark.parametrize(
    ("text", "stage", "names"),
    [
        ("[forward] Input keys: dict_keys(['a', 'b'])", "forward", ("a", "b")),
        ('compute_loss: Input keys: ["it\'s", "b\\"c", "<script>"]', "compute_loss", ("it's", 'b\\"c', "<script>")),
        ("_prepare_model_inputs_from_dict - Input keys: ['a', 'a']", "_prepare_model_inputs_from_dict", ("a",)),
        ("Cleaned kwargs: ['a']", "forward", ("a",)),
    ],
)  # fmt: skip
def test_printed_lists_are_read_by_their_quotes_and_never_evaluated(
    text: str, stage: str, names: tuple[str, ...]
) -> None:
    (said,) = read_line(text)
    assert (said.stage, said.names, said.damage) == (stage, names, "")


def test_a_list_that_would_run_code_when_evaluated_gives_only_its_quoted_names() -> None:
    (said,) = read_line("Input keys: [__import__('os').system('true')]")
    assert set(said.names) == {"os", "true"}


def test_a_cut_list_gives_its_whole_names_and_is_a_reject(tmp_path: Path) -> None:
    run = load(save(tmp_path, "Input keys: ['input_ids', 'attention_mask', 'audio_fe"))
    assert payloads(run, "inputs") == [{"stage": "", "tensors": {"input_ids": {}, "attention_mask": {}}}]
    assert run.rejects.select("line", "reason").rows() == [(1, "the list of keys is cut")]


@pytest.mark.parametrize(
    "text",
    [
        "Checkpoint: NOT FOUND\nConfig file: FOUND\n",
        "HTTP 404: NOT FOUND\nGET /index.html\n",
        "step: 1 loss: 0.5\n" * 100,
        '{"input keys": ["a"], "Logits": "NOT FOUND"}\n',
        "the keys of the input were not found\n",
        "",
    ],
)
def test_other_logs_are_not_taken(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, text)
    assert not sniff(path, path.read_bytes())


def test_a_file_without_a_message_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no message about inputs or outputs"):
        read(save(tmp_path, "hello\n"))


def test_messages_after_a_long_preamble_are_found(tmp_path: Path) -> None:
    run = load(save(tmp_path, "Downloading 10%\n" * 10_000 + BROKEN))
    assert run.format == "contract-dumps" and run.events_of("inputs").height == 7


def test_messages_through_the_logging_library_are_found_under_any_prefix(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-8s | %(name)s:%(lineno)d - %(message)s"))
    for message in ("Step 7", "Input IDs: ❌ NOT FOUND", f"Input keys: {KEYS}"):
        handler.emit(logging.LogRecord("trainer", 30, "a.py", 1, message, None, None))
    handler.close()
    run = load(path)
    assert run.events_of("inputs")["step"].to_list() == [7, 7]
    assert payloads(run, "inputs")[0]["status"] == {"Input IDs": "NOT FOUND"}


def test_mis_decoded_signs_before_a_status_are_passed_over() -> None:
    (said,) = read_line("Input IDs: \u201a\u00f9\u00e5 NOT FOUND")
    assert said.status == {"Input IDs": "NOT FOUND"}


@pytest.mark.parametrize("text", ["a/" * 10_000, "Input keys: [" + "'a\\" * 6000, "x " * 10_000, "Found '" * 3000])
def test_lines_made_to_be_slow_for_patterns_end(text: str) -> None:
    assert len(list(read_line(text))) <= 1  # a pattern that searches back and forth would not come to an end here


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 255))
def test_dumps_cut_and_flipped_anywhere_keep_their_whole_lines(cut: float, place: float, flip: int) -> None:
    content = BROKEN.encode()
    data = bytearray(content)
    data[int(place * (len(data) - 1))] ^= flip
    kept = bytes(data[: int(cut * len(data))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.log")
        path.write_bytes(kept)
        format = detect(path)
        if format is None or format.name != "contract-dumps":
            return
        events = format.read(path).events.filter(format.read(path).events["kind"].is_in(["inputs", "outputs"]))
        whole = [line for line in kept.split(b"\n")[:-1] if line in content.split(b"\n")]
        said = sum(len(list(read_line(line.decode()))) for line in whole)
        assert said <= events.height <= 8 + 2
