"""Every format cut, flipped, emptied, misnamed and mixed: what is whole is read, the rest is said, and nothing raises.

The files are those of the common writers. Damage that only one format knows stands in that format's own tests.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream.errors import InputError
from parsers.loading import load, load_all
from parsers.run import Run
from tests.parsers.writers import WITHIN, WRITERS, files, write

NAMES = sorted(WRITERS)
PROPERTY = settings(max_examples=12, deadline=None)
#: Formats whose end is known, so that what is missing can be missed. A log that ends behind a whole record may have
#: ended there, and of a line of text a part is no less a line.
CLOSED = {"huggingface", "huggingface-checkpoints", "json-document", "jsonl", "numpy-history", "parquet", "sacred"}
#: What stands beside the run of another format in its folder: numbers that no writer of this test tells.
OTHERS: dict[str, Callable[[int], str]] = {
    "beside.jsonl": lambda s: f'{{"step": {s}, "gap": {s}.125}}',
    "beside.csv": lambda s: f"{s},{s}.125" if s else "step,gap",
    "beside.log": lambda s: f"iter {s}: loss {s}.1250, time 31.52ms",
}


@cache
def content(name: str) -> dict[str, bytes]:
    """The files of one run of the format."""
    with tempfile.TemporaryDirectory() as folder:
        return files(write(name, Path(folder)))


@cache
def whole(name: str) -> Counter[tuple[Any, ...]]:
    """The numbers of that run."""
    return numbers(read(name, content(name)))


def put(folder: Path, data: dict[str, bytes]) -> None:
    for file, held in data.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(held)


def read(name: str, data: dict[str, bytes]) -> Run | None:
    """The run of these files; None where the error says that there is none. Whatever else is raised is a fault."""
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), data)
        try:
            run = load(Path(folder) / WITHIN.get(name, ""))
            assert run.scalars.height == run.catalogue["count"].sum()  # lazy ones are read while the file is there
        except InputError as error:
            assert str(error).startswith(folder)
            return None
        assert all(reason for reason in run.rejects["reason"])
        return run


def numbers(run: Run | None) -> Counter[tuple[Any, ...]]:
    if run is None:
        return Counter()
    rows = run.scalars.select("rank", "tag", "epoch", "value").fill_nan(None).rows()
    return Counter(rows)


def chosen(data: st.DataObject, name: str) -> tuple[str, bytes]:
    """One of the files that hold anything, the larger the likelier."""
    held = [(file, found) for file, found in sorted(content(name).items()) if found]
    return data.draw(st.sampled_from([one for one in held for _ in range(1 + len(one[1]) // 1000)]))


@pytest.mark.parametrize("name", NAMES)
@PROPERTY
@given(data=st.data())
def test_cut_at_any_byte_no_number_is_invented_and_nothing_raises(name: str, data: st.DataObject) -> None:
    file, held = chosen(data, name)
    cut = data.draw(st.integers(0, len(held) - 1))
    run = read(name, {**content(name), file: held[:cut]})
    found = numbers(run)
    assert not found - whole(name)
    ended = held[max(cut - 1, 0) : cut] in (b"", b"\n", b"\r", b"}")
    if run is not None and name in CLOSED and not ended and found != whole(name):
        assert run.rejects.height  # numbers that are missing are missed


@pytest.mark.parametrize("name", NAMES)
@PROPERTY
@given(data=st.data())
def test_one_flipped_byte_anywhere_raises_nothing_and_multiplies_nothing(name: str, data: st.DataObject) -> None:
    file, held = chosen(data, name)
    damaged = bytearray(held)
    damaged[data.draw(st.integers(0, len(held) - 1))] ^= data.draw(st.integers(1, 255))
    found = numbers(read(name, {**content(name), file: bytes(damaged)}))
    # where the damage hides what an array is, its raw numbers may be read in place of their means
    assert found.total() <= 10 * whole(name).total()


@pytest.mark.parametrize("change", ["empty", "first line", "one byte", "zeros", "twice"])
@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_empty_or_hold_a_header_or_nonsense_raise_nothing(name: str, change: str) -> None:
    changes = {
        "empty": lambda held: b"",
        "first line": lambda held: held.split(b"\n")[0] + b"\n",
        "one byte": lambda held: held[:1],
        "zeros": lambda held: bytes(len(held)),
        "twice": lambda held: held + held,
    }
    for file, held in content(name).items():
        read(name, {**content(name), file: changes[change](held)})
    run = read(name, {file: changes[change](held) for file, held in content(name).items()})
    assert change in ("first line", "twice") or not numbers(run)


@pytest.mark.parametrize("name", NAMES)
def test_under_a_wrong_extension_a_file_is_what_is_in_it_or_nothing(name: str, tmp_path: Path) -> None:
    put(tmp_path, content(name))
    for file in sorted(tmp_path.rglob("*")):
        if not file.is_file():
            continue
        for suffix in (".txt", ".json", ".csv", ".parquet", ".npz", ".db", ".dat"):
            other = file.rename(file.with_name(file.stem + suffix))
            try:
                found = numbers(load(other))
            except InputError as error:
                assert str(error).startswith(str(other))
            else:
                assert found.total() <= 3 * whole(name).total()  # a segment by itself is a table with its places
            other.rename(file)


@pytest.mark.parametrize("other", sorted(OTHERS))
@pytest.mark.parametrize("name", NAMES)
def test_two_formats_in_one_folder_are_both_read(name: str, other: str, tmp_path: Path) -> None:
    put(tmp_path, {f"x/{file}": held for file, held in content(name).items()})
    put(tmp_path, {f"x/{other}": "".join(OTHERS[other](s) + "\n" for s in range(40)).encode()})
    runs = load_all(tmp_path, cache=False)
    found = {row for run in runs for row in numbers(run)}
    assert set(whole(name)) <= found and runs.unread == ()
    assert {s + 0.125 for s in range(1, 40)} <= {row[3] for row in found}


def work(name: str, data: dict[str, bytes]) -> int:
    """How many functions reading calls, in Python and below it: a measure of time that no other process changes."""
    count = 0

    def called(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        read(name, data)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", NAMES)
def test_damage_costs_no_more_than_a_small_multiple_of_the_work(name: str) -> None:
    whole(name)  # what is imported and compiled once is no work of reading
    random_ = random.Random(5)
    usual = work(name, content(name))
    for _ in range(3):
        damaged = {}
        for file, held in content(name).items():
            changed = bytearray(held[: random_.randrange(len(held) // 2, len(held) + 1)])
            for _ in range(min(20, len(changed))):
                changed[random_.randrange(len(changed))] = random_.randrange(256)
            damaged[file] = bytes(changed)
        assert work(name, damaged) <= 8 * usual + 20_000
