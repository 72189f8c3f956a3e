from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.debug_blocks import read, sniff
from parsers.run import Run

FIXTURE = Path(__file__).parent / "debug_blocks.log"
SEED = Path(__file__).parents[2].parent / "shared" / "seeds" / "003_e0b66e98c715fb19.txt"
RULE = "=" * 60

# step, tag and value as the fixture and the founding write-up print them
EXPECTED = {
    "losses/displayed": 15.5268,
    "losses/total": 15.5068,
    "losses/sum": 15.5068,
    "losses/scaled_total": 15.5068,
    "losses/kd/raw": 21.2,
    "losses/kd/weight": 0.7,
    "losses/kd/weighted": 14.84,
    "losses/kd/contribution": 14.84,
    "losses/routing_feature_matching/raw": 412.2,
    "losses/routing_feature_matching/weight": 0.0,
    "losses/routing_feature_matching/weighted": 0.0,
    "losses/routing_feature_matching/contribution": 0.5234,
    "losses/routing_expert_importance/raw": 8.9567,
    "losses/routing_expert_importance/weight": 0.0,
    "losses/routing_expert_importance/weighted": 0.0,
    "losses/routing_expert_importance/contribution": 0.1434,
    "losses/routing_attention_alignment/raw": 4.7234,
    "losses/routing_attention_alignment/weight": 0.0,
    "losses/routing_attention_alignment/weighted": 0.0,
    "curriculum/progress": 0.027,
    "curriculum/weight/kd": 0.7,
    "curriculum/weight/feature": 0.0,
    "curriculum/weight/attention": 0.0,
    "curriculum/weight/layerwise": 0.0,
    "curriculum/weight/contrastive": 0.0,
}


def values(run: Run) -> dict[str, float]:
    return dict(run.scalars.select("tag", "value").iter_rows())


def written(folder: Path, text: str | bytes, name: str = "train.log") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def kd_block(step: object, raw: str = "2.0000", weight: str = "0.5000", weighted: str = "1.0000") -> str:
    return (
        f"{RULE}\n[KD LOSS] Step {step}\n{RULE}\n  Raw KD loss: {raw}\n  Curriculum weight: {weight}\n"
        f"  Weighted KD loss: {weighted}\n{RULE}\n"
    )


def test_every_number_of_the_four_blocks_is_read() -> None:
    run = read(FIXTURE)
    assert values(run) == EXPECTED
    assert run.scalars["step"].unique().to_list() == [2000]
    assert run.rejects.is_empty()


def test_the_founding_write_up_reads_like_the_fixture() -> None:
    if SEED.exists():
        assert values(read(SEED)) == EXPECTED
        assert read(SEED).rejects.is_empty()
    assert SEED.exists() or values(read(FIXTURE)) == EXPECTED


def test_blocks_in_a_fenced_document_are_read(tmp_path: Path) -> None:
    text = "# notes\nThe [KD LOSS] block, see below\n```\n" + FIXTURE.read_text() + "```\nafter\n"
    assert values(read(written(tmp_path, text, "notes.txt"))) == EXPECTED


def test_events_keep_the_printed_precision_of_each_number() -> None:
    run = read(FIXTURE)
    assert run.events["kind"].to_list() == ["curriculum", "losses", "losses", "losses"]
    decimals: dict[str, int] = {}
    for kind, payload in run.events.select("kind", "payload").iter_rows():
        decimals |= {f"{kind}/{key}": count for key, count in json.loads(payload)["decimals"].items()}
    assert decimals.pop("curriculum/progress") == 3
    assert set(decimals) == set(EXPECTED) - {"curriculum/progress"}
    assert set(decimals.values()) == {4}


def test_prefixes_windows_ends_and_progress_bars_do_not_disturb(tmp_path: Path) -> None:
    lines = []
    for line in FIXTURE.read_text().splitlines():
        bar = "\r 12%|\u2588\u258f        | 12/100 [00:01<00:10,  9.95it/s, loss=15.5]\r"
        lines.append(f"{bar}2025-10-02 12:00:01,123 - trainer - INFO - {line}")
        lines.append("WARNING: something else entirely")
        lines.append("lr: 0.001")
    text = "\r\n".join(lines) + "\r\n"
    run = read(written(tmp_path, text))
    assert values(run) == EXPECTED
    assert run.rejects.is_empty()


def test_undecodable_bytes_and_nul_bytes_do_not_disturb(tmp_path: Path) -> None:
    text = FIXTURE.read_bytes().replace(b"\n  Raw", b" \xff\xfe\x80\n\xe2\x9c\n  Raw")
    assert values(read(written(tmp_path, b"\0\0\0\n" + text))) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks_of_windows_shells_are_understood(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, FIXTURE.read_text().encode(encoding))
    assert sniff(path, path.read_bytes()[:65536])
    assert values(read(path)) == EXPECTED


def test_a_cut_block_keeps_its_whole_numbers_and_is_a_reject_with_its_line(tmp_path: Path) -> None:
    text = FIXTURE.read_text()
    cut = text[: text.index("attention_alignment_loss:") + len("attention_alignment_loss:\n    Raw: 4.72")]
    run = read(written(tmp_path, cut))
    assert "losses/routing_attention_alignment/raw" not in values(run)
    assert values(run)["losses/routing_expert_importance/raw"] == 8.9567
    assert run.rejects.height == 1
    line, reason = run.rejects.row(0, named=True)["line"], run.rejects["reason"][0]
    assert line == cut.count("\n") + 1
    assert "[ROUTING LOSSES] block of step 2000 (begun in line 20) is cut here" in reason


def test_a_block_that_another_header_interrupts_is_cut_there(tmp_path: Path) -> None:
    half = kd_block(5).split("  Weighted")[0]
    run = read(written(tmp_path, half + kd_block(6)))
    assert run.rejects["line"].to_list() == [6]
    assert run.series("losses/kd/raw")["step"].to_list() == [5, 6]
    assert run.series("losses/kd/weighted")["step"].to_list() == [6]


def test_a_header_without_a_step_and_a_value_that_is_no_number_are_rejects(tmp_path: Path) -> None:
    text = kd_block("?") + FIXTURE.read_text().replace("feature: 0.0000", "feature: broken")
    run = read(written(tmp_path, text))
    assert sorted(run.rejects["line"].to_list()) == [2, 14]
    assert "not a number: 'broken'" in " ".join(run.rejects["reason"].to_list())
    assert "curriculum/weight/feature" not in values(run)
    assert values(run)["curriculum/weight/attention"] == 0.0


def test_nan_and_infinite_losses_survive(tmp_path: Path) -> None:
    run = read(written(tmp_path, kd_block(1, raw="nan", weighted="inf")))
    assert str(values(run)["losses/kd/raw"]) == "nan"
    assert values(run)["losses/kd/weighted"] == float("inf")
    assert json.loads(run.events["payload"][0])["components"]["kd"]["weighted"] == "Infinity"


def test_a_step_that_goes_back_begins_an_attempt_and_the_dead_branch_is_left_out(tmp_path: Path) -> None:
    text = "".join(kd_block(s, raw=f"{s}.0000") for s in (100, 200, 300)) + kd_block(200, raw="7.0000")
    run = read(written(tmp_path, text))
    assert run.series("losses/kd/raw")["value"].to_list() == [100.0, 7.0]
    assert run.series("losses/kd/raw", live=False).height == 4


def test_two_ranks_interleaved_line_by_line_are_kept_apart(tmp_path: Path) -> None:
    first, second = kd_block(3, raw="1.0000").splitlines(), kd_block(3, raw="9.0000").splitlines()
    lines = [f"[rank{r}] {line}" for pair in zip(first, second, strict=True) for r, line in enumerate(pair)]
    run = read(written(tmp_path, "\n".join(lines) + "\n"))
    assert run.scalars.filter(pl.col("tag") == "losses/kd/raw").select("rank", "value").rows() == [(0, 1.0), (1, 9.0)]


def test_components_of_the_routing_block_are_matched_without_their_prefix(tmp_path: Path) -> None:
    text = FIXTURE.read_text().replace("routing_feature_matching_loss", "feature_matching_loss")
    assert values(read(written(tmp_path, text))) == EXPECTED


def test_a_file_without_blocks_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "nothing\n[KD LOSS] is only mentioned\n")
    assert not sniff(path, path.read_bytes())
    with pytest.raises(InputError, match="no \\[TRAIN DEBUG\\]"):
        read(path)


def test_blocks_after_a_long_preamble_are_found(tmp_path: Path) -> None:
    path = written(tmp_path, "downloading shard\n" * 10_000 + kd_block(1))
    assert sniff(path, path.read_bytes()[:65536])


def test_a_line_of_many_megabytes_is_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, kd_block(1) + "[x" * 4_000_000 + "\n" + kd_block(2))
    assert read(path).series("losses/kd/raw")["step"].to_list() == [1, 2]


names = st.from_regex(r"[a-z]{1,8}(_[a-z]{1,5})?", fullmatch=True).filter(
    lambda n: not n.endswith("_loss") and n not in ("raw", "weight", "scaled", "phase")
)
numbers = st.decimals(min_value=0, max_value=10**6, places=4).map(lambda d: f"{d:.4f}")


@settings(max_examples=60, deadline=None)
@given(
    step=st.integers(0, 10**9),
    parts=st.dictionaries(names, numbers, min_size=1, max_size=6),
    totals=st.tuples(numbers, numbers),
)
def test_what_is_printed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, step: int, parts: dict[str, str], totals: tuple[str, str]
) -> None:
    listed = "".join(f"    {name}_loss: {value}\n" for name, value in parts.items())
    text = (
        f"{RULE}\n[TRAIN DEBUG] Step {step}, Batch 7\n{RULE}\n  Progress bar loss: {totals[0]}\n  \n"
        f"  Raw loss components:\n{listed}    \n  Total loss (outputs['loss']): {totals[1]}\n{RULE}\n"
    )
    run = read(written(tmp_path_factory.mktemp("printed"), text))
    expected = {f"losses/{name}/contribution": float(value) for name, value in parts.items()}
    expected |= {"losses/displayed": float(totals[0]), "losses/total": float(totals[1])}
    assert values(run) == expected
    assert run.scalars["step"].unique().to_list() == [step]
    assert run.rejects.is_empty()


@settings(max_examples=80, deadline=None)
@given(data=st.binary(max_size=400), place=st.integers(0, 2000))
def test_no_bytes_inside_a_log_raise_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int
) -> None:
    text = FIXTURE.read_bytes()
    place = min(place, len(text))
    path = written(tmp_path_factory.mktemp("hostile"), text[:place] + data + text[place:])
    assert read(path).scalars.height >= 15
