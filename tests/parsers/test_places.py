"""The same run wherever it stands: on disk, in memory behind a URL, compressed, in an archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard
from upath import UPath

from eventstream.errors import InputError, MissingDependencyError
from parsers.loading import load, load_all
from parsers.places.place import place
from parsers.registry import FORMATS
from parsers.run import Run
from parsers.tree import find_runs
from tests.parsers.writers import WITHIN, WRITERS, files, write

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.fixture(params=sorted(WRITERS))
def stands(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder in which one run stands, and what of it is to be loaded."""
    return write(request.param, tmp_path / "tree"), WITHIN.get(request.param, "")


def same(run: Run, other: Run, *, but: tuple[str, str]) -> None:
    """Equal but for where they stand: `but` is the start of the paths of each."""
    assert (run.name, run.format, run.config, run.plan) == (other.name, other.format, other.config, other.plan)
    assert run.scalars.equals(other.scalars)
    for mine, theirs in ((run.events, other.events), (run.rejects, other.rejects)):
        column = "payload" if "payload" in mine.columns else "file"
        moved = theirs.with_columns(pl.col(column).str.replace_all(but[1], but[0], literal=True))
        assert mine.equals(moved), (mine, moved)


def zipped(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_no_format_is_forgotten_here() -> None:
    assert set(WRITERS) == {format.name for format in FORMATS}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_what_is_written_here_is_read_by_the_format_that_it_is_of(name: str, tmp_path: Path) -> None:
    place = write(name, tmp_path / "tree") / WITHIN.get(name, "")
    found = list(find_runs(place, []))
    assert [format.name for _, format in found] == [name]
    run = load(place)
    assert run.scalars.height >= 5 and run.scalars["value"].is_finite().all()


def test_a_run_in_memory_behind_a_url_is_the_run_on_disk(stands: tuple[Path, str]) -> None:
    tree, inner = stands
    root = UPath(f"memory://{tree.parent.name}/tree")
    for name, data in files(tree).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    same(load(tree / inner), load(str(root / inner)), but=(str(tree), str(root)))
    assert len(load_all(root)) == 1


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"])
def test_a_run_in_an_archive_is_the_run_on_disk(stands: tuple[Path, str], suffix: str) -> None:
    tree, inner = stands
    content = files(tree)
    data = zipped(content) if suffix == ".zip" else tarred(content)
    packed = {".tgz": ".gz"}.get(suffix, "." + suffix.split(".")[-1])
    path = tree.parent / f"archive{suffix}"
    path.write_bytes(PACK[packed](data) if packed in PACK else data)
    same(load(tree / inner), load(path / inner), but=(str(tree), str(path)))


#: Formats of which one file alone is a run, and which file that is.
SINGLE = {
    "huggingface": "trainer_state.json", "tensorboard-file": "a7.tfevents", "mlperf": "a7.log",
    "wandb-file": "a7.wandb", "mlflow-db": "mlflow.db", "dllogger": "a7.json", "numpy-history": "evaluations.npz",
    "parquet": "a7.parquet", "mmlab": "a7.log.json", "json-document": "a7.json", "jsonl": "a7.jsonl",
    "lightning": "metrics.csv", "stable-baselines": "monitor.csv", "csv": "a7.csv", "contract-dumps": "a7.log",
    "debug-blocks": "a7.log", "structured-text": "a7.log", "text": "a7.log",
}  # fmt: skip


def test_every_format_of_single_files_is_tried_compressed() -> None:
    assert set(SINGLE) | {"ablation"} == {format.name for format in FORMATS if not format.folder}


@pytest.mark.parametrize("suffix", sorted(PACK))
@pytest.mark.parametrize("name", sorted(SINGLE))
def test_a_compressed_log_is_what_is_in_it(name: str, suffix: str, tmp_path: Path) -> None:
    log = next(write(name, tmp_path).rglob(SINGLE[name]))
    before = load(log)
    packed = log.with_name(log.name + suffix)
    packed.write_bytes(PACK[suffix](log.read_bytes()))
    log.unlink()
    after = load(packed)
    same(before, after, but=(str(log), str(packed)))
    assert after.path == str(packed)


@pytest.mark.parametrize(
    "names",
    [
        ("train.log.2.gz", "train.log.1", "train.log"),
        ("train.log.2.gz", "train.log.1.gz"),
        ("train.log.1.gz", "train.log.gz"),
    ],
)
def test_a_rotated_set_is_one_run_on_disk_and_in_an_archive(names: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    for part, name in enumerate(names):
        lines = "".join(f"iter {s}: loss {1 / (s + 1):.4f}, time 31.52ms\n" for s in range(50 * part, 50 * part + 50))
        (folder / name).write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    run = load(folder)
    assert run.series("loss")["step"].to_list() == list(range(50 * len(names)))
    path = tmp_path / "r.zip"
    path.write_bytes(zipped(files(folder)))
    same(run, load(path), but=(str(folder), str(path)))


def test_the_path_of_a_run_in_an_archive_leads_to_it_again(tmp_path: Path) -> None:
    write("jsonl", tmp_path)
    path = tmp_path / "runs.zip"
    path.write_bytes(zipped({"x/a7.jsonl": (tmp_path / "a7.jsonl").read_bytes()}))
    run = load(path)
    assert run.path == f"{path}/x/a7.jsonl"
    assert load(run.path).scalars.equals(run.scalars)
    assert load(f"zip://x/a7.jsonl::{path}").scalars.equals(run.scalars)


def test_a_path_that_leads_into_an_archive_may_be_a_path_too(tmp_path: Path) -> None:
    path = tmp_path / "runs.zip"
    path.write_bytes(zipped(files(write("jsonl", tmp_path / "tree"))))
    assert load(path / "a7.jsonl").path == f"{path}/a7.jsonl"
    with pytest.raises(InputError, match="no such file or folder"):
        load(path / "other.jsonl")


def test_a_missing_library_for_urls_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(MissingDependencyError, match=r"reading URLs needs upath: pip install 'aftertrain\[scale\]'"):
        load("memory://a.jsonl")


@pytest.mark.parametrize("path", ["no/such.zip/a.jsonl", "memory://nowhere/a.jsonl", "a\0b", "nosuchprotocol://a"])
def test_what_is_not_there_is_a_sentence(path: str) -> None:
    with pytest.raises(InputError):
        load(path)


def test_local_paths_and_paths_of_other_kinds_stay_what_they_are() -> None:
    assert place("a/b.jsonl") == Path("a/b.jsonl")
    remote = UPath("memory://a")
    assert place(remote) is remote
