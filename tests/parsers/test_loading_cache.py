"""The second loading of a tree reads nothing, any change is seen, and a cache that is no good is no cache."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from eventstream.errors import InputError
from eventstream.records import FORMAT
from parsers.collection import shelf
from parsers.collection.cache import reader_key
from parsers.collection.keys import Keys
from parsers.collection.shelf import Shelf
from parsers.listing import list_runs
from parsers.loading import load_all
from parsers.run import RunSet
from parsers.tfevents.write import record, scalar_event

LOG = b"".join(b'{"step": %d, "loss": %d.5}\n' % (s, s % 7) for s in range(40))
CSV = b"step,epoch,train_loss\n" + b"".join(b"%d,0,%d.25\n" % (s, s % 5) for s in range(30))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a", "b/x", "b/y", "tb", "tables/version_0"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b/x", "b/y"):
        (root / name / "log.jsonl").write_bytes(LOG)
    events = [record(scalar_event("train/loss", 0.5, step, 1.7e9 + step)) for step in range(30)]
    (root / "tb" / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"".join(events)[:-3])
    (root / "tables/version_0/metrics.csv").write_bytes(CSV)
    (root / "tables/version_0/hparams.yaml").write_text("lr: .nan\nsteps: 2024-05-01\n")
    (root / "bad.tar").write_bytes(b"no archive")
    return root


def same(one: RunSet, other: RunSet) -> None:
    assert [run.name for run in one] == [run.name for run in other]
    assert one.frame.equals(other.frame) and one.unread == other.unread
    for mine, theirs in zip(one, other, strict=True):
        assert mine.scalars.equals(theirs.scalars) and repr(mine.config) == repr(theirs.config)
        assert mine.events.equals(theirs.events) and mine.rejects.equals(theirs.rejects)


def shelves(cache: Path) -> list[Path]:
    return sorted((cache / "runs-v2").iterdir())


def test_the_second_loading_reads_nothing_and_gives_the_same(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    first = load_all(tree, cache=tmp_path / "cache")
    assert len(reads) == len(first) == 5 and len(first.unread) == 1
    same(first, load_all(tree, cache=tmp_path / "cache"))
    assert len(reads) == 5
    same(first, load_all(tree, cache=False))
    assert len(reads) == 10


CHANGES = {
    "the log itself": ("a/log.jsonl", LOG.replace(b"39", b"99"), "a/log.jsonl"),
    "the configuration beside it": ("tables/version_0/hparams.yaml", b"lr: 0.1\n", "tables/version_0/metrics.csv"),
    "a new file beside it": ("b/x/hparams.yaml", b"lr: 0.1\n", "b/x/log.jsonl"),
    "a configuration in the folder above": ("tables/meta.yaml", b"name: sweep\n", "tables/version_0/metrics.csv"),
    "a file below the run's folder": ("tb/train/notes.txt", b"hello", "tb"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_seen_and_only_what_changed_is_read_again(
    change: str, tree: Path, tmp_path: Path, reads: list[str]
) -> None:
    where, content, expected = CHANGES[change]
    load_all(tree, cache=tmp_path / "cache")
    reads.clear()
    path = tree / where
    before = path.stat() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    if before is not None:  # the time alone must not be what tells
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = load_all(tree, cache=tmp_path / "cache")
    assert reads == [str(tree / expected)]
    same(changed, load_all(tree, cache=False))


def test_a_configuration_two_folders_above_is_part_of_a_key_and_other_files_there_are_not(tree: Path) -> None:
    def key() -> bytes | None:
        keys = Keys()
        keys.add(tree / "b" / "x")
        return keys.of(tree / "b" / "x" / "log.jsonl")

    first = key()
    (tree / "nohup.out").write_text("step 1")
    assert key() == first is not None
    (tree / "meta.yaml").write_text("name: a")
    assert key() != first


def test_the_path_that_led_to_a_run_is_part_of_its_key(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    load_all(tree, cache=cache)
    monkeypatch.chdir(tree)
    assert [run.path for run in load_all("b", cache=cache)] == ["b/x/log.jsonl", "b/y/log.jsonl"]
    assert list_runs("b", cache=cache).frame["path"].to_list() == ["b/x/log.jsonl", "b/y/log.jsonl"]
    monkeypatch.chdir(tree / "b")
    assert [run.path for run in load_all(".", cache=cache)] == ["x/log.jsonl", "y/log.jsonl"]


def test_a_run_that_is_gone_is_gone(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    load_all(tree, cache=tmp_path / "cache")
    (tree / "b/x/log.jsonl").unlink()
    reads.clear()
    assert [run.path for run in load_all(tree / "b", cache=tmp_path / "cache")] == [str(tree / "b/y/log.jsonl")]
    with pytest.raises(InputError, match="no run below this folder"):
        load_all(tree / "b" / "x", cache=tmp_path / "cache")


def test_an_archive_is_remembered_by_its_content_alone_and_inside_a_tree(
    tree: Path, tmp_path: Path, reads: list[str]
) -> None:
    path = tmp_path / "packed" / "runs.zip"
    path.parent.mkdir()

    def pack(log: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/log.jsonl", log)
            archive.writestr("y/log.jsonl", LOG)

    pack(LOG)
    for root in (path, path.parent):
        reads.clear()
        first = load_all(root, cache=tmp_path / "cache")
        assert len(reads) == len(first) == 2
        same(first, load_all(root, cache=tmp_path / "cache"))
        assert len(reads) == 2
    pack(LOG.replace(b"39", b"99"))
    changed = load_all(path, cache=tmp_path / "cache")
    assert len(reads) == 4
    same(changed, load_all(path, cache=False))


def test_runs_of_an_archive_that_are_no_longer_kept_are_read_again(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/log.jsonl", LOG)
        archive.writestr("y/log.jsonl", LOG)
    first = load_all(path, cache=tmp_path / "cache")
    shelves(tmp_path / "cache")[0].unlink()
    same(first, load_all(path, cache=tmp_path / "cache"))


def test_damage_at_any_place_of_the_cache_is_as_no_cache(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    first = load_all(tree / "tables", cache=cache)
    (kept,) = shelves(cache)
    whole = kept.read_bytes()
    reads.clear()
    for count, place in enumerate(range(0, len(whole), 100), 1):
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        same(first, load_all(tree / "tables", cache=cache))
        assert len(reads) == count
        assert kept.read_bytes() == whole  # written again, and whole
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        kept.write_bytes(whole[:cut])
        same(first, load_all(tree / "tables", cache=cache))


def test_damage_of_what_was_found_is_as_no_cache(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_all(tree, cache=cache)
    found = cache / "found-v1"
    whole = found.read_bytes()
    for place in range(0, len(whole), 100):
        found.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert load_all(tree, cache=cache).frame.equals(first.frame)
        assert found.read_bytes() != whole[:place]


@pytest.mark.parametrize("refused", ["open", "mkdir", "mkstemp"])
def test_a_cache_that_may_not_be_read_or_written_is_no_cache(
    refused: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    cache = tmp_path / "cache"
    first = load_all(tree, cache=cache)
    inside = str(cache)

    def refusing(real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            if str(args[0] if args else named["dir"]).startswith(inside):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(*args, **named)

        return call

    if refused == "mkstemp":  # the tests may run as root, whom no permission stops
        monkeypatch.setattr("tempfile.mkstemp", refusing(__import__("tempfile").mkstemp))
        for kept in shelves(cache):
            kept.unlink()
    else:
        monkeypatch.setattr(Path, refused, refusing(getattr(Path, refused)))
    reads.clear()
    same(first, load_all(tree, cache=cache))
    assert len(reads) == (0 if refused == "mkdir" else 5)


def test_a_full_disk_is_no_error_and_leaves_nothing_half_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    real = os.fdopen

    def full(handle: int, mode: str) -> Any:
        file = real(handle, mode)
        file.write(b"a part of it")

        class Full:
            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, _: bytes) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    monkeypatch.setattr(os, "fdopen", full)
    for _ in range(2):
        assert len(load_all(tree, cache=tmp_path / "cache")) == 5
    assert len(reads) == 10
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_a_file_in_the_way_of_the_cache_is_no_error(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(load_all(tree, cache=tmp_path / "file" / "cache")) == 5


def test_another_version_of_the_reader_reads_again(
    tree: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_all(tree, cache=tmp_path / "cache")
    monkeypatch.setattr("parsers.collection.remembered.reader_key", lambda: reader_key() + "x")
    load_all(tree, cache=tmp_path / "cache")
    assert len(reads) == 10


def test_an_error_in_what_was_given_by_name_is_raised_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "manifest.json").write_text(f'{{"format": "{FORMAT}", "version": 99}}')
    cache = tmp_path / "cache"
    (tmp_path / "log.jsonl").write_bytes(LOG)
    assert [where for where, _ in load_all(tmp_path, cache=cache).unread] == [str(folder)]
    raised = []
    for _ in range(2):
        with pytest.raises(InputError, match="version 99") as caught:
            load_all([folder], cache=cache)
        raised.append((type(caught.value), str(caught.value)))
    with pytest.raises(InputError) as caught:
        load_all(folder, cache=False)
    assert raised == [(type(caught.value), str(caught.value))] * 2


def test_what_is_too_large_is_not_kept_and_the_least_used_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Shelf(tmp_path)
    monkeypatch.setattr(shelf, "PIECE", 100)
    monkeypatch.setattr(shelf, "TOTAL", 250)
    kept.put("large", bytes(101))
    assert kept.get("large") is None
    for number in range(4):
        kept.put(f"k{number}", bytes(80))
        os.utime(tmp_path / f"k{number}", (number, number))
    (tmp_path / "left.new").write_bytes(b"by a process that was killed")
    os.utime(tmp_path / "left.new", (0, 0))
    assert kept.get("k0") is not None  # used now, so it stays
    kept.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k0", "k3"]
    kept.put("k4", bytes(80))
    monkeypatch.setattr(shelf, "FILES", 2)
    kept.trim()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_shelf_entry_longer_than_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Shelf(tmp_path).put("a", bytes(200))
    monkeypatch.setattr(shelf, "PIECE", 100)
    assert Shelf(tmp_path).get("a") is None


def test_large_pieces_are_mapped_and_stay_valid_when_the_file_goes(tmp_path: Path) -> None:
    data = os.urandom(2 << 20)
    kept = Shelf(tmp_path)
    kept.put("a", data)
    found = kept.get("a")
    (tmp_path / "a").unlink()
    assert found is not None and bytes(found) == data


def test_threads_that_write_and_read_at_once_see_whole_pieces_only(tmp_path: Path) -> None:
    pieces = [bytes([number]) * 200_000 for number in range(4)]
    torn: list[int] = []

    def write(data: bytes) -> None:
        for _ in range(20):
            Shelf(tmp_path).put("k", data)
            found = Shelf(tmp_path).get("k")
            if found is None or bytes(found) not in pieces:
                torn.append(1)

    threads = [threading.Thread(target=write, args=(data,)) for data in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn and [path.name for path in tmp_path.iterdir()] == ["k"]


def test_two_processes_fill_one_cache_at_once(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    code = "import sys; from parsers.loading import load_all; print(len(load_all(sys.argv[1], cache=sys.argv[2])))"
    both = [
        # elsewhere than in the checkout, which would be imported before what is installed
        subprocess.Popen([sys.executable, "-c", code, str(tree), str(cache)], stdout=subprocess.PIPE, cwd=tmp_path)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == [b"5\n", b"5\n"]
    assert len(load_all(tree, cache=cache)) == 5 and reads == []
    assert not list(cache.rglob("*.new"))


@pytest.fixture
def two_days_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86_400)


def test_use_is_noted_once_a_day(tmp_path: Path, two_days_later: None) -> None:
    kept = Shelf(tmp_path)
    kept.put("a", b"x")
    os.utime(tmp_path / "a", (1, 1))
    kept.get("a")
    assert (tmp_path / "a").stat().st_mtime > 1


def test_a_cached_run_has_all_its_ways_of_reading(tree: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run = load_all(tree, cache=tmp_path / "cache")["tb"]
        assert run.series("loss", split="train")["step"].to_list() == list(range(29))
        assert run.lazy().collect().height == 29 and run.metrics == ["loss"]
        assert run.rejects.height == 1 and run.last_step == 28


def test_what_was_read_before_an_interrupt_is_kept(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    def stop(done: int, total: int, path: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    for call in (load_all, list_runs):
        cache = tmp_path / call.__name__
        with pytest.raises(KeyboardInterrupt):
            call(tree, cache=cache, progress=stop)
        reads.clear()
        assert len(call(tree, cache=cache).frame) == 5
        assert len(reads) == 2
