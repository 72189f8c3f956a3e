"""Histories in NumPy's files: written by NumPy, evaluations as Stable-Baselines3 saves them, pickles left closed."""

from __future__ import annotations

import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes

from eventstream.errors import InputError
from parsers import npy_history
from parsers.content.npy_array import UnreadableArrayError, array_of
from parsers.loading import load
from parsers.npy_history import read, sniff
from tests.parsers.wild import WILD, disagreement, wild


def saved(folder: Path, name: str, array: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def evaluations(folder: Path, **more: Any) -> Path:
    """What EvalCallback of Stable-Baselines3 writes: np.savez of timesteps, results and episode lengths."""
    random = np.random.default_rng(0)
    results = random.normal(size=(6, 10))
    folder.mkdir(parents=True, exist_ok=True)
    lengths = random.integers(10, 99, size=(6, 10))
    np.savez(folder / "evaluations.npz", timesteps=np.arange(1, 7) * 500, results=results, ep_lengths=lengths, **more)
    return folder / "evaluations.npz"


@pytest.mark.parametrize(
    ("path", "facts"), wild("npy_history"), ids=lambda v: v.parent.name if isinstance(v, Path) else ""
)
def test_a_strangers_curve_is_read_as_it_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert disagreement(run, "metrics", facts["values"]) == "" and run.name == path.parent.name
    assert run.scalars["step"].to_list() == list(range(facts["values"]["n"]))


@pytest.mark.parametrize("path", sorted(WILD.glob("sb3/*/evaluations.npz")), ids=lambda p: p.parent.name)
def test_strangers_evaluations_are_what_numpy_makes_of_them(path: Path) -> None:
    with np.load(path, allow_pickle=False) as held:
        steps, means = held["timesteps"], held["results"].mean(axis=1)
    rows = load(path).series("mean_reward", split="eval")
    assert rows["step"].to_list() == steps.tolist() and rows["value"].to_list() == pytest.approx(means.tolist())


def test_a_curve_is_a_metric_at_its_places_and_a_note_says_so(tmp_path: Path) -> None:
    run = load(saved(tmp_path, "a7/train_loss.npy", np.array([2.5, np.nan, 1.5])))
    rows = run.series("loss", split="train")
    assert rows["step"].to_list() == [0, 1, 2] and rows["value"][0] == 2.5 and np.isnan(rows["value"][1])
    assert "place in the array" in run.events_of("note")["payload"][0]


def test_named_columns_tell_the_step(tmp_path: Path) -> None:
    table = np.array([(10, 2.5), (20, 1.5)], dtype=[("step", "<i4"), ("val_loss", "<f4")])
    run = load(saved(tmp_path, "a7.npy", table))
    assert run.series("loss", split="eval").select("step", "value").rows() == [(10, 2.5), (20, 1.5)]
    assert run.events_of("note").is_empty()


@pytest.mark.parametrize("order", ["C", "F"])
def test_several_columns_are_several_metrics(tmp_path: Path, order: Any) -> None:
    run = load(saved(tmp_path, "losses.npy", np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], order=order)))
    assert run.series("losses/1")["value"].to_list() == [2.0, 4.0, 6.0]


def test_evaluations_become_the_means_that_the_library_logs(tmp_path: Path) -> None:
    run = load(evaluations(tmp_path / "a2c", successes=np.eye(6, 10, dtype=bool)))
    with np.load(tmp_path / "a2c" / "evaluations.npz") as held:
        results = held["results"]
    assert run.name == "a2c" and run.metrics == [
        "mean_ep_length", "mean_reward", "std_ep_length", "std_reward", "success_rate",
    ]  # fmt: skip
    assert run.series("mean_reward", split="eval")["step"].to_list() == [500, 1000, 1500, 2000, 2500, 3000]
    assert run.series("std_reward")["value"].to_list() == pytest.approx(results.std(axis=1).tolist())
    assert run.series("success_rate")["value"].to_list() == [0.1] * 6


def test_an_archive_of_curves_is_one_run(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "hist.npz", epoch=np.arange(3), loss=np.array([3.0, 2.0, 1.0]), acc=np.zeros(2))
    run = load(tmp_path / "hist.npz")
    assert run.series("loss").select("epoch", "value").rows() == [(0.0, 3.0), (1.0, 2.0), (2.0, 1.0)]
    assert run.series("acc").height == 2 and run.rejects["reason"][0].startswith("the arrays have 2 to 3 rows")


class Bomb:
    """Opening its pickle would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    path = saved(tmp_path, "history.npy", np.array([Bomb(mark)], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        load(path)
    np.savez(tmp_path / "b.npz", loss=np.zeros(2), odd=np.array([Bomb(mark)], dtype=object))
    run = load(tmp_path / "b.npz")
    assert run.series("loss").height == 2 and "odd: it holds Python objects" in run.rejects["reason"][0]
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb would have worked


def test_arrays_of_something_else_are_not_taken(tmp_path: Path) -> None:
    for name, array in (
        ("embeddings.npy", np.zeros((5, 3))),
        ("labels.npy", np.arange(9)),
        ("metrics.npy", np.zeros((3, 128))),
        ("x.npy", np.zeros(4)),
    ):
        path = saved(tmp_path, name, array)
        assert not sniff(path, path.read_bytes()), name
    np.savez(tmp_path / "data.npz", x=np.zeros(3), loss_weights=np.zeros(3))
    assert not sniff(tmp_path / "data.npz", (tmp_path / "data.npz").read_bytes())


def test_a_cut_file_gives_its_whole_numbers_and_a_reject(tmp_path: Path) -> None:
    path = saved(tmp_path, "losses.npy", np.arange(100.0))
    path.write_bytes(path.read_bytes()[: -100 * 4 - 3])
    run = load(path)
    assert run.scalars.height == 49 and run.rejects["reason"][0] == "the file is cut: 49 of 100 numbers are there"


def test_a_header_that_promises_more_than_is_there_costs_no_memory(tmp_path: Path) -> None:
    data = saved(tmp_path, "losses.npy", np.arange(100.0)).read_bytes().replace(b"(100,)", b"(9" + b"9" * 9 + b",)")
    array, missing = array_of(data)
    assert len(array) <= 100 and "9,999,999,999" in missing


def test_an_array_that_unpacks_to_too_much_is_refused_with_its_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", loss=np.zeros(5), big_loss=np.zeros(100_000))
    monkeypatch.setattr(npy_history, "LIMIT", 10_000)
    run = read(tmp_path / "a.npz")
    assert run.metrics == ["loss"] and "unpack to 800,128" in run.rejects["reason"][0]


@settings(max_examples=100, deadline=None)
@given(arrays(floating_dtypes() | integer_dtypes(), array_shapes(max_dims=3), fill=st.nothing()), st.booleans())
def test_what_numpy_writes_is_read_as_numpy_reads_it(array: Any, columns_first: bool) -> None:
    file = io.BytesIO()
    np.save(file, np.asfortranarray(array) if columns_first else array)
    found, missing = array_of(file.getvalue())
    assert missing == "" and found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def contents() -> list[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder)
        table = np.array([(10, 2.5), (20, 1.5)], dtype=[("step", "<i4"), ("loss", "<f4")])
        files = [saved(whole, "losses.npy", np.arange(30.0)), saved(whole, "a.npy", table), evaluations(whole)]
        np.savez_compressed(whole / "b.npz", loss=np.arange(30.0))
        return [(path.name, path.read_bytes()) for path in [*files, whole / "b.npz"]]


CONTENTS = contents()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CONTENTS), st.floats(0, 1), st.floats(0, 1), st.integers(0, 255))
def test_files_cut_and_flipped_anywhere_are_read_or_refused(
    case: tuple[str, bytes], cut: float, place: float, flip: int
) -> None:
    name, content = case
    data = bytearray(content)
    data[int(place * (len(data) - 1))] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data[: int(cut * len(data))])
        sniff(path, path.read_bytes())
        try:
            run = read(path)
        except InputError as error:
            assert str(path) in str(error)
            return
        assert run.scalars.height <= 120


def test_damage_is_named(tmp_path: Path) -> None:
    for data, said in (
        (b"\x93NUMPY", "not a whole header"),
        (b"\x93NUMPY\x01\x00\xff\xff", "not a whole header"),
        (b"\x93NUMPY\x01\x00\xff\xff__", "65,535 bytes"),
        (b"\x93NUMPY\x01\x00\x03\x00{}\n", "header is damaged"),
    ):
        with pytest.raises(UnreadableArrayError, match=said):
            array_of(data)
    path = tmp_path / "evaluations.npz"
    path.write_bytes(CONTENTS[2][1][:-50])
    with pytest.raises(InputError, match="cut or damaged"):
        read(path)


def test_columns_keep_their_names_whatever_signs_are_in_them(tmp_path: Path) -> None:
    names = ["a'b", 'c"d', "new\nline", "back\\slash", "größe", "loss), ('x', '<f8"]
    kind = np.dtype([("step", "<i8"), *((name, "<f4") for name in names)])
    path = saved(tmp_path, "table.npy", np.array([(s, *range(s, s + len(names))) for s in range(5)], kind))
    run = load(path)
    found = run.scalars.select("tag", "step", "value").rows()
    assert sorted(found) == sorted((name, s, float(s + k)) for s in range(5) for k, name in enumerate(names))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': [('a', [('b', '<f8')])], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 3, 'fortran_order': 0, 'shape': (1,)}",
        "(" * 5000,
        "[1]",
    ],
)
def test_a_header_that_is_no_dictionary_of_plain_values_is_refused(header: str) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(80)
    with pytest.raises(UnreadableArrayError, match=r"damaged|no type of numbers|no numbers"):
        array_of(data)
