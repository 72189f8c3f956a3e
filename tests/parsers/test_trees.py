"""Trees of many runs: each once, links and locked folders survived, and the second listing from the cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aftertrain.cli import main
from eventstream.errors import InputError
from parsers.collection.cache import WHOLE, Store, file_key
from parsers.listing import list_runs
from parsers.loading import load_all

WILD = Path(__file__).parents[3] / "shared" / "wild"
LOG = b"".join(b'{"step": %d, "loss": %d.5}\n' % (s, s % 7) for s in range(40))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a", "b/x", "b/y"):
        (root / name).mkdir(parents=True)
        (root / name / "log.jsonl").write_bytes(LOG)
    return root


def test_a_listing_says_what_loading_says(tree: Path, tmp_path: Path) -> None:
    (tree / "bad.tar").write_bytes(b"no archive")
    runs, listed = load_all(tree), list_runs(tree, cache=tmp_path / "cache")
    assert listed.frame.equals(runs.frame)
    assert sorted(listed.unread) == sorted(runs.unread) and len(listed.unread) == 1
    assert list_runs(tree, cache=tmp_path / "cache").frame.equals(runs.frame)
    assert sorted(list_runs(tree, cache=tmp_path / "cache").unread) == sorted(runs.unread)


def test_the_second_listing_reads_nothing_and_a_change_is_seen(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    list_runs(tree, cache=cache)
    assert len(reads) == 3
    list_runs(tree, cache=cache)
    assert len(reads) == 3
    before = (tree / "a/log.jsonl").stat()
    (tree / "a/log.jsonl").write_bytes(LOG.replace(b'"step": 39', b'"step": 99'))  # the same size, the same time
    os.utime(tree / "a/log.jsonl", ns=(before.st_atime_ns, before.st_mtime_ns))
    frame = list_runs(tree, cache=cache).frame
    assert reads[3:] == [str(tree / "a/log.jsonl")]
    assert sorted(frame["last_step"]) == [39, 39, 99]


def test_a_file_beside_a_log_that_appears_or_goes_is_seen(tree: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    list_runs(tree, cache=cache)
    (tree / "a/hparams.yaml").write_text("lr: 0.1")
    list_runs(tree, cache=cache)
    assert len(reads) == 4
    (tree / "b/x/log.jsonl").unlink()
    assert list_runs(tree, cache=cache).frame.height == 2
    assert len(reads) == 4


@pytest.mark.parametrize("damage", [b"", b"garbage", b"0" * 32 + b'\n{"reader": 1}'])
def test_a_damaged_cache_is_ignored_and_written_again(
    tree: Path, tmp_path: Path, reads: list[str], damage: bytes
) -> None:
    cache = tmp_path / "cache"
    list_runs(tree, cache=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for content in (damage, whole[: len(whole) // 2], whole.replace(b"jsonl", b"jsonm")):
        file.write_bytes(content)
        reads.clear()
        assert list_runs(tree, cache=cache).frame.height == 3
        assert len(reads) == 3
        assert list_runs(tree, cache=cache).frame.height == 3
        assert len(reads) == 3


def test_a_cache_that_cannot_be_written_is_no_cache(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert list_runs(tree, cache=tmp_path / "file" / "cache").frame.height == 3


def test_without_the_cache_nothing_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert main(["ls", "--no-cache", str(tree)]) == 0
    assert not (tmp_path / "xdg").exists()
    assert main(["ls", "--format", "json", str(tree)]) == 0
    assert (tmp_path / "xdg" / "aftertrain").is_dir()
    first = capsys.readouterr().out
    assert main(["ls", "--format", "json", str(tree)]) == 0
    told = capsys.readouterr().out
    assert first.endswith(told)
    assert [run["run"] for run in json.loads(told)["runs"]] == ["a/log", "x/log", "y/log"]


def test_the_store_keeps_the_last_used_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parsers.collection.cache.KEPT", 3)
    store = Store(tmp_path)
    for key in "abc":
        store[key] = key
    store.save()
    store = Store(tmp_path)
    assert store.get("a") == "a"
    store["d"] = "d"
    store.save()
    assert {key for key in "abcd" if Store(tmp_path).get(key)} == {"a", "c", "d"}


def test_of_large_files_begin_end_size_and_time_are_the_key(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    path.write_bytes(bytes(WHOLE + 1))
    os.utime(path, ns=(1, 1))
    key = file_key(str(path), log=True)
    for place in (0, WHOLE):
        content = bytearray(WHOLE + 1)
        content[place] = 1
        path.write_bytes(bytes(content))
        os.utime(path, ns=(1, 1))
        assert file_key(str(path), log=True) != key
    path.write_bytes(bytes(WHOLE + 1))
    os.utime(path, ns=(1, 2))
    assert file_key(str(path), log=True) != key


def test_loops_of_links_end_and_each_run_is_found_once(tree: Path, tmp_path: Path) -> None:
    (tree / "a/up").symlink_to(tree, target_is_directory=True)
    (tree / "self").symlink_to(tree / "self")
    (tree / "latest.jsonl").symlink_to(tree / "a/log.jsonl")
    (tree / "gone.jsonl").symlink_to(tree / "nowhere")
    assert len(load_all(tree)) == 3
    assert list_runs(tree, cache=tmp_path / "cache").frame.height == 3
    assert len(load_all([tree, tree / "a", tree / "b" / "x" / "log.jsonl"])) == 3
    assert list_runs([tree, tree / "a"], cache=False).frame.height == 3
    order = [tree / "b", tree / "a"]
    assert list_runs(order, cache=False).frame.equals(load_all(order).frame)


def test_a_link_to_a_run_elsewhere_is_read(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_bytes(LOG)
    (tree / "other.jsonl").symlink_to(tmp_path / "other.jsonl")
    assert len(load_all(tree)) == 4


def test_a_folder_that_may_not_be_entered_is_said_and_the_rest_is_read(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.iterdir

    def refuse(self: Path) -> Any:
        if self.name == "b":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", refuse)  # the tests may run as root, whom no permission stops
    runs = load_all(tree)
    assert [run.path for run in runs] == [str(tree / "a" / "log.jsonl")]
    assert runs.unread == ((str(tree / "b"), "cannot be looked into (Permission denied)"),)
    listed = list_runs(tree, cache=tmp_path / "cache")
    assert listed.frame.height == 1 and listed.unread == runs.unread
    with pytest.raises(InputError, match="cannot be looked into"):
        load_all(tree / "b")


def test_a_tree_of_ten_thousand_files_and_three_hundred_levels_is_walked(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"d{number}").mkdir()
        for name in range(100):
            (tmp_path / f"d{number}" / f"{name}.bin").touch()
    deep = tmp_path / "deep"
    for _ in range(300):
        deep.mkdir()
        deep /= "d"
    deep.mkdir()
    (deep / "log.jsonl").write_bytes(LOG)
    assert len(load_all(tmp_path)) == 1
    assert list_runs(tmp_path, cache=False).frame.height == 1


def test_a_tree_without_runs_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("hello")
    for call in (load_all, list_runs):
        with pytest.raises(InputError, match="no run below this folder"):
            call(tmp_path)


def test_the_logs_of_strangers_are_listed_without_a_traceback() -> None:
    if not WILD.is_dir():
        return
    listed = list_runs(WILD, cache=False)
    assert listed.frame.height >= 60
    assert (listed.frame["scalars"] > 0).sum() >= 60
