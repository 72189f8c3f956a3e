"""TensorBoard files as torch's SummaryWriter and TensorBoard's own messages write them, and folders of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, LogMessage, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from benchmarks import formats_tensorboard as made
from eventstream.errors import InputError
from parsers.loading import load, load_all
from parsers.naming.names import split_tag
from parsers.registry import detect
from parsers.run import Run
from parsers.tables import compiled
from parsers.tensorboard import read
from parsers.tfevents import records as tfrecord
from parsers.tfevents.write import record, scalar_event
from tests.parsers.wild import disagreement, wild

T0 = 1.7e9


def series(run: Run, tag: str) -> list[tuple[int, float]]:
    return run.scalars.filter(pl.col("tag") == tag).select("step", "value").rows()


def payloads(run: Run, kind: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in run.events_of(kind)["payload"]]


def write(path: Path, *events: Event) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    version = Event(wall_time=T0, file_version="brain.Event:2")
    path.write_bytes(b"".join(record(event.SerializeToString()) for event in (version, *events)))
    return path


def losses(path: Path, steps: Any, *, begin: float = T0, tag: str = "loss", add: float = 0.0) -> Path:
    data = [scalar_event(tag, step + add, step, begin + place) for place, step in enumerate(steps)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"".join(map(record, data)))
    return path


def value(tag: str, plugin: str = "", **content: Any) -> Event:
    one = Summary.Value(tag=tag, **content)
    if plugin:
        one.metadata.plugin_data.plugin_name = plugin
    return Event(wall_time=T0 + 1, step=7, summary=Summary(value=[one]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30),
            st.floats(width=32),
            st.integers(0, 2**63 - 1),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_scalar_that_summary_writer_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with SummaryWriter(str(folder)) as writer:
        for place, (tag, number, step) in enumerate(rows):
            writer.add_scalar(tag, number, step, walltime=T0 + place / 4)
    run = load(folder)
    found = run.scalars.sort("time").select("tag", "value", "step").rows()
    clean = [(tag.lstrip("/"), number, step) for tag, number, step in rows]  # as summary.scalar cleans names
    assert len(found) == len(rows)
    for ours, (tag, number, step) in zip(found, rows, strict=True):
        assert ours[2] == step and np.array_equal(ours[1], number, equal_nan=True)
        assert ours[0] == tag or ours[0] in {name for name, _, _ in clean}


def test_the_table_is_what_tensorboards_own_reader_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(300):
            for tag in ("train/loss", "lr", "eval/acc"):
                writer.add_scalar(tag, rng.normal(), step * 10)
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    reader.Reload()
    run = load(tmp_path)
    for tag in reader.Tags()["scalars"]:
        ours = run.scalars.filter(pl.col("tag") == tag)
        theirs = reader.Scalars(tag)
        assert ours["step"].to_list() == [e.step for e in theirs]
        assert ours["value"].to_list() == [e.value for e in theirs]
        assert ours["time"].dt.timestamp("us").to_list() == [round(e.wall_time * 1e6) for e in theirs]
        assert ours.select("split", "metric").row(0) == split_tag(tag)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "i8", "i2", "i1", "u1", "u2", "u4", "u8", "?"])
@pytest.mark.parametrize("walker", ["plain", "compiled"])
@pytest.mark.parametrize("packed", [False, True])
def test_tensors_of_one_number_are_scalars_whatever_their_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, walker: str, packed: bool
) -> None:
    monkeypatch.setattr(tfrecord, "FIRST", 1 if walker == "compiled" else 1 << 20)
    tensor = make_tensor_proto(np.array(1, dtype))
    if packed:
        for name in [field.name for field, _ in tensor.ListFields() if field.name.endswith("_val")]:
            tensor.ClearField(name)
        tensor.tensor_content = np.array(1, dtype).tobytes()
    path = write(tmp_path / "a.tfevents", value("x", "scalars", tensor=tensor), value("x", tensor=tensor))
    assert series(read(path), "x") == [(7, 1.0), (7, 1.0)]


@pytest.mark.parametrize("walker", ["plain", "compiled"])
def test_negative_and_double_tensors_keep_their_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker: str
) -> None:
    monkeypatch.setattr(tfrecord, "FIRST", 1 if walker == "compiled" else 1 << 20)
    numbers = {"d": np.float64(0.1), "i": np.int32(-3), "l": np.int64(-(2**40)), "h": np.float16(-0.5)}
    path = write(tmp_path / "a.tfevents", *(value(t, tensor=make_tensor_proto(n)) for t, n in numbers.items()))
    assert {t: series(read(path), t)[0][1] for t in numbers} == {t: float(n) for t, n in numbers.items()}


def test_hparams_are_the_configuration_and_their_metrics_scalars(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.add_hparams({"lr": 0.1, "optimizer": "adam", "nesterov": True}, {"hparam/best": 0.5})
    run = load(tmp_path)
    assert run.config == {"lr": 0.1, "optimizer": "adam", "nesterov": True}
    assert series(run, "hparam/best") == [(0, 0.5)]
    assert payloads(run, "config") == [dict(run.config)]
    assert run.events_of("end").is_empty()  # the status that torch writes along does not say that training ended


def test_texts_are_events_and_those_that_hold_the_configuration_are_read(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("sample", "a <script> & \n more", 5)
        writer.add_text("args", json.dumps({"learning_rate": 2e-5}))
        writer.add_text("model_config", json.dumps({"hidden": 64}))
        writer.add_text("model-config", '<pre>{"max_len": Infinity}</pre>')
        writer.add_text("config", "no JSON at all")
    run = load(tmp_path)
    assert run.config == {"learning_rate": 2e-5, "model_config": {"hidden": 64}, "max_len": float("inf")}
    assert payloads(run, "text")[0] == {"tag": "sample/text_summary", "text": "a <script> & \n more"}
    assert run.events_of("text")["step"].to_list() == [5, 0, 0, 0, 0]


def test_histograms_give_their_quantiles_where_these_are_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_histogram("w", values, 3, bins="auto")
    assert read(tmp_path).scalars.is_empty()
    assert payloads(read(tmp_path), "histogram") == [{"tag": "w", "count": 1, "first_step": 3, "last_step": 3}]
    run = read(tmp_path, histograms=True)
    assert run.events_of("histogram").is_empty()
    found = {tag: series(run, tag)[0][1] for tag in run.scalars["tag"].unique()}
    expected = {f"w/p{q}": np.quantile(values, q / 100) for q in (5, 25, 50, 75, 95)}
    assert found == pytest.approx({**expected, "w/min": values.min(), "w/max": values.max()}, abs=0.02)


def test_histogram_tensors_are_read_like_histograms(tmp_path: Path) -> None:
    rows = np.array([[0.0, 1.0, 50.0], [1.0, 3.0, 50.0]])
    path = write(tmp_path / "a.tfevents", value("w", "histograms", tensor=make_tensor_proto(rows)))
    run = read(path, histograms=True)
    assert series(run, "w/p75") == [(7, 2.0)] and series(run, "w/max") == [(7, 3.0)]


@pytest.mark.parametrize("content", [{}, {"bucket_limit": [1.0], "bucket": [0.0]}, {"bucket_limit": [1.0, 2.0]}])
def test_a_histogram_of_nothing_gives_no_number(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write(tmp_path / "a.tfevents", value("w", histo=HistogramProto(**content)))
    assert read(path, histograms=True).scalars.is_empty()


def test_what_is_no_number_is_counted_and_messages_are_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tfevents",
        value("pic", image=Summary.Image(height=1)),
        value("pic", image=Summary.Image(height=1)),
        value("snd", audio=Summary.Audio()),
        value("curve", "pr_curves", tensor=make_tensor_proto(np.zeros((6, 5)))),
        Event(graph_def=b"x"),
        Event(wall_time=T0, step=9, log_message=LogMessage(message="hello")),
        Event(step=9, session_log=SessionLog(status=SessionLog.CHECKPOINT, checkpoint_path="model-9")),
    )
    run = read(path)
    assert payloads(run, "image")[0]["count"] == 2
    assert {"audio", "pr_curves", "graph"} <= set(run.events["kind"])
    assert payloads(run, "note")[0]["text"] == "hello" and payloads(run, "checkpoint") == [{"path": "model-9"}]


def test_add_scalars_is_one_run_with_the_names_that_were_given(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "exp")) as writer:
        for step in (1, 2):
            writer.add_scalar("lr", 0.1, step)
            writer.add_scalars("val/loss", {"a": step, "b/c": -step}, step)
    run = load(tmp_path)
    assert run.name == "exp"
    assert series(run, "val/loss/a") == [(1, 1.0), (2, 2.0)] and series(run, "val/loss/b/c") == [(1, -1.0), (2, -2.0)]
    assert run.scalars.height == 6


@pytest.mark.parametrize("own", [True, False])
def test_folders_of_splits_are_one_run(tmp_path: Path, own: bool) -> None:
    losses(tmp_path / "exp/train/events.out.tfevents.1", range(5))
    losses(tmp_path / "exp/validation/events.out.tfevents.1", range(3))
    if own:
        losses(tmp_path / "exp/events.out.tfevents.1", range(2), tag="lr")
    run = load(tmp_path)
    assert run.name == "exp"
    assert run.series("loss", split="train").height == 5 and run.series("loss", split="eval").height == 3


def test_the_configuration_that_lightning_writes_beside_is_read(tmp_path: Path) -> None:
    losses(tmp_path / "events.out.tfevents.1", range(3))
    (tmp_path / "hparams.yaml").write_text("lr: 0.1\nmodel:\n  width: 64\n")
    assert load(tmp_path).config == {"lr": 0.1, "model": {"width": 64}}
    (tmp_path / "hparams.yaml").write_text("lr: [0.1\n")
    assert load(tmp_path).rejects["file"].to_list() == [str(tmp_path / "hparams.yaml")]


def test_folders_that_are_runs_of_their_own_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        losses(tmp_path / name / "events.out.tfevents.1", range(3))
    losses(tmp_path / "events.out.tfevents.1", range(4))
    assert sorted(run.scalars.height for run in load_all(tmp_path)) == [3, 3, 4]
    (tmp_path / "events.out.tfevents.1").unlink()
    assert [run.name for run in load_all(tmp_path)] == ["a", "b"]


def test_a_file_that_goes_on_with_the_tags_is_another_attempt(tmp_path: Path) -> None:
    losses(tmp_path / "events.out.tfevents.9", range(10))
    losses(tmp_path / "events.out.tfevents.1", range(6, 12), begin=T0 + 100, add=100)  # its name sorts first
    run = load(tmp_path)
    assert run.scalars["attempt"].to_list() == [0] * 10 + [1] * 6
    assert [v for _, v in run.series("loss").select("step", "value").rows()] == [*range(6), *range(106, 112)]


def test_an_evaluation_after_training_in_a_file_of_its_own_is_no_other_attempt(tmp_path: Path) -> None:
    for suffix, steps in [(".1", range(5, 21, 5)), (".2", [20])]:  # as Trainer.evaluate() after Trainer.train() does
        with SummaryWriter(tmp_path / "run", filename_suffix=suffix) as writer:
            for step in steps:
                writer.add_scalar("eval/loss", 1 / step, step)
                if suffix == ".1":
                    writer.add_scalar("train/loss", 2 / step, step)
    run = load(tmp_path / "run")
    assert set(run.scalars["attempt"]) == {0}
    assert run.series("loss", split="eval")["step"].to_list() == [5, 10, 15, 20, 20]


def test_a_file_with_tags_of_its_own_belongs_to_the_running_attempt(tmp_path: Path) -> None:
    losses(tmp_path / "events.out.tfevents.1", range(10))
    losses(tmp_path / "events.out.tfevents.2", [9], begin=T0 + 50, tag="test_acc")
    assert load(tmp_path).scalars["attempt"].unique().to_list() == [0]


def test_files_written_at_the_same_time_are_merged_by_their_wall_times(tmp_path: Path) -> None:
    losses(tmp_path / "events.out.tfevents.1", range(0, 20, 2), begin=T0)
    losses(tmp_path / "events.out.tfevents.2", range(1, 21, 2), begin=T0 + 0.5)
    run = load(tmp_path)
    assert run.scalars["step"].to_list() == list(range(20)) and run.scalars["attempt"].unique().to_list() == [0]


@pytest.mark.parametrize("walker", ["plain", "compiled"])
def test_a_step_that_goes_back_inside_a_file_is_another_attempt_of_every_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker: str
) -> None:
    monkeypatch.setattr(tfrecord, "FIRST", 1 if walker == "compiled" else 1 << 20)
    data = []
    for step in [*range(1, 31), *range(21, 51)]:
        data += [scalar_event("loss", step, step, T0), scalar_event("lr", step, step, T0)]
        data += [scalar_event("eval_loss", step, step, T0)] if step % 10 == 0 else []
    path = tmp_path / "a.tfevents"
    path.write_bytes(b"".join(map(record, data)))
    run = read(path)
    counts = run.scalars.group_by("metric", "attempt").len().sort("metric", "attempt").rows()
    assert counts == [("loss", 0, 33), ("loss", 1, 33), ("lr", 0, 30), ("lr", 1, 30)]
    assert run.series("lr")["step"].to_list() == list(range(1, 51))


def test_a_session_that_starts_anew_is_another_attempt_though_no_step_goes_back(tmp_path: Path) -> None:
    def loss(step: int) -> Event:
        return Event(wall_time=T0, step=step, summary=Summary(value=[Summary.Value(tag="loss", simple_value=1.0)]))

    start = Event(wall_time=T0, step=3, session_log=SessionLog(status=SessionLog.START))
    path = write(tmp_path / "a.tfevents", start, loss(1), loss(2), start, loss(3), loss(4))
    assert read(path).scalars["attempt"].to_list() == [0, 0, 1, 1]


def test_tags_on_axes_of_their_own_are_no_restart(tmp_path: Path) -> None:
    data = []
    for step in range(1, 101):
        data.append(scalar_event("loss", 1.0, step, T0))
        data += [scalar_event("epoch_loss", 1.0, step // 20, T0)] if step % 20 == 0 else []
    path = tmp_path / "a.tfevents"
    path.write_bytes(b"".join(map(record, data)))
    assert read(path).scalars["attempt"].unique().to_list() == [0]


def test_times_that_nobody_wrote_are_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfevents", *(
        Event(wall_time=time, step=1, summary=Summary(value=[Summary.Value(tag="x", simple_value=1.0)]))
        for time in (0.0, float("nan"), -1.0, 1e300, T0)
    ))  # fmt: skip
    assert read(path).scalars["time"].is_null().to_list() == [True, True, True, True, False]


@pytest.mark.parametrize("tag", ["a\nb", 'q"uote', "x/y/z", "<script>alert(1)</script>", "é漢", "a" * 300])
def test_names_of_any_kind_come_back_as_they_are(tmp_path: Path, tag: str) -> None:
    path = losses(tmp_path / "a.tfevents", range(3), tag=tag)
    assert read(path).scalars["tag"].unique().to_list() == [tag]


def test_the_content_tells_the_format_whatever_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "wrong.csv", value("x", simple_value=1.0))
    assert load(path).format == "tensorboard" and load(path).name == "wrong"


def test_records_that_are_no_events_are_not_taken_for_a_log(tmp_path: Path) -> None:
    path = tmp_path / "train.tfrecord"
    path.write_bytes(record(b"\x0a\x03abc") * 3)
    assert detect(path) is None
    pointer = tmp_path / "events.out.tfevents.1"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert detect(pointer) is None or detect(pointer).name != "tensorboard-file"  # type: ignore[union-attr]


def test_a_folder_without_event_files_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event files here; name a folder that holds files called"):
        read(tmp_path)


def test_a_single_file_is_named_by_its_folder_where_its_writer_named_it(tmp_path: Path) -> None:
    assert read(losses(tmp_path / "speaker/events.out.tfevents.1", range(2))).name == "speaker"


def test_small_files_load_nothing_compiled_nor_any_library_of_tensorboard(tmp_path: Path) -> None:
    path = losses(tmp_path / "events.out.tfevents.1", range(1000))
    code = (
        "import sys; from parsers.loading import load; assert load(sys.argv[1]).scalars.height == 1000;"
        "print([m for m in ('numba', 'tensorboard', 'tensorflow', 'google.protobuf', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compiled_code_is_made_anew_where_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    original, asked = numba.njit, []

    def njit(*args: Any, **options: Any) -> Any:
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return original(*args, **options)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled.compiled(abs_plus_one)(-2) == 3 and asked == [True, False]


def abs_plus_one(x: int) -> int:
    return abs(x) + 1


def test_the_file_of_the_benchmark_is_byte_for_byte_what_summary_writer_writes(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    made.write(mine, 300)
    steps = np.arange(1, 301)
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step, row in zip(steps.tolist(), made.values(steps).reshape(len(steps), -1).tolist(), strict=True):
            for tag, number in zip(made.TAGS, row, strict=True):
                writer.add_scalar(tag, number, step, walltime=T0 + step * 1e-3)
    theirs = next((tmp_path / "tb").iterdir()).read_bytes()
    first = 16 + int.from_bytes(theirs[:8], "little")  # the version, which names the writer too
    own = mine.read_bytes()
    assert own[16 + int.from_bytes(own[:8], "little") :] == theirs[first:]


def test_a_large_file_is_grouped_by_compiled_code_and_reads_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parsers import tensorboard

    monkeypatch.setattr(tensorboard, "COMPILED", 1000)
    path = tmp_path / "events.out.tfevents.1"
    made.write(path, 20_000)
    run = load(path)
    assert run.rejects.is_empty() and run.scalars.height == 20_000 * len(made.TAGS)
    expected = made.values(np.arange(1, 20_001)).reshape(-1, len(made.TAGS)).T
    for tag, numbers in zip(made.TAGS, expected, strict=True):
        rows = run.scalars.filter(pl.col("tag") == tag)
        assert rows["step"].to_list() == list(range(1, 20_001))
        assert np.array_equal(rows["value"].to_numpy(), numbers.astype(np.float64))


@pytest.mark.parametrize(("path", "facts"), wild("tensorboard") or [(None, {})])
def test_files_of_other_people_hold_what_was_counted_in_them(path: Path | None, facts: dict[str, Any]) -> None:
    run = None if path is None else load(path)
    wrong = [why for tag, counted in facts.items() if run is not None and (why := disagreement(run, tag, counted))]
    assert not wrong
    assert run is None or run.rejects.is_empty()


@pytest.mark.parametrize("walker", ["plain", "compiled"])
@pytest.mark.parametrize("path", [path for path, _ in wild("tensorboard")][::3] or [None])
def test_a_flipped_byte_in_a_real_file_costs_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path | None, walker: str
) -> None:
    made.write(tmp_path / "made", 40)
    monkeypatch.setattr(tfrecord, "FIRST", 1 if walker == "compiled" else 1 << 22)
    data = bytearray((path or tmp_path / "made").read_bytes())
    whole = read(path or tmp_path / "made").scalars.height
    for place in np.random.default_rng(5).integers(0, len(data), 20).tolist():
        data[place] ^= 0x10
        (tmp_path / "events.out.tfevents.1").write_bytes(data)
        run = read(tmp_path / "events.out.tfevents.1")
        assert whole - 1 <= run.scalars.height <= whole and run.rejects.height == 1, place
        data[place] ^= 0x10
