"""The same run wherever it stands: on disk, in memory behind a URL, compressed, in an archive."""

from __future__ import annotations

import bz2
import gzip
import io
import json
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
from eventstream.recorder import Recorder
from parsers.loading import load, load_all
from parsers.place import place
from parsers.run import Run
from parsers.tb_write import record, scalar_event

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def jsonl(folder: Path) -> None:
    lines = [json.dumps({"step": s, "loss": 1 / (s + 1), "note": "a" if s < 5 else "b"}) for s in range(50)]
    (folder / "a7.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")


def parquet(folder: Path) -> None:
    pl.DataFrame({"step": range(50), "loss": [0.5] * 50}).write_parquet(folder / "a7.parquet")


def trainer_state(folder: Path) -> None:
    entries = [{"step": s, "epoch": s / 10, "loss": 2.0 / s, "learning_rate": 0.1} for s in range(1, 30)]
    state = {"max_steps": 30, "global_step": 29, "log_history": entries}
    (folder / "a7").mkdir()
    (folder / "a7" / "trainer_state.json").write_text(json.dumps(state))


def checkpoints(folder: Path) -> None:
    for last in (10, 20):
        entries = [{"step": s, "epoch": s / 10, "loss": 2.0 / s} for s in range(1, last)]
        (folder / "a7" / f"checkpoint-{last}").mkdir(parents=True)
        state = {"max_steps": 30, "global_step": last, "log_history": entries}
        (folder / "a7" / f"checkpoint-{last}" / "trainer_state.json").write_text(json.dumps(state))


def event_stream(folder: Path) -> None:
    with Recorder(folder / "a7", config={"lr": 0.1}) as recorder:
        for step in range(30):
            recorder.log(step, {"loss": 1 / (step + 1)}, split="train")


def tensorboard(folder: Path) -> None:
    events = [record(scalar_event("train/loss", 0.5, step, 1.7e9 + step)) for step in range(30)]
    (folder / "a7").mkdir()
    (folder / "a7" / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"".join(events)[:-3])


def lightning(folder: Path) -> None:
    (folder / "a7").mkdir()
    rows = "".join(f"{s},{s // 10},{1 / (s + 1)},\n" for s in range(30))
    (folder / "a7" / "metrics.csv").write_text("step,epoch,train_loss,val_loss\n" + rows)
    (folder / "a7" / "hparams.yaml").write_text("lr: 0.1\n")


def text(folder: Path) -> None:
    lines = [f"iter {s}: loss {1 / (s + 1):.4f}, time 31.52ms" for s in range(60)]
    (folder / "a7.log").write_text("compiling\n" + "\n".join(lines) + "\n")


def debug_blocks(folder: Path) -> None:
    (folder / "a7.log").write_bytes((Path(__file__).parent / "debug_blocks.log").read_bytes())


def mlperf(folder: Path) -> None:
    line = ':::MLLOG {"namespace": "", "time_ms": %d, "event_type": "POINT_IN_TIME", "key": "train_loss", '
    line += '"value": 0.5, "metadata": {"file": "a.py", "lineno": 3, "step_num": %d}}'
    (folder / "a7.log").write_text("\n".join(line % (1_700_000_000_000 + s, s) for s in range(20)) + "\n")


WRITERS = {
    f.__name__: f
    for f in (
        jsonl, parquet, trainer_state, checkpoints, event_stream, tensorboard, lightning, text, debug_blocks, mlperf,
    )
}  # fmt: skip


@pytest.fixture(params=sorted(WRITERS))
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder in which one run stands."""
    folder = tmp_path / "tree"
    folder.mkdir()
    WRITERS[request.param](folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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


def test_a_run_in_memory_behind_a_url_is_the_run_on_disk(tree: Path) -> None:
    root = UPath(f"memory://{tree.parent.name}/tree")
    for name, data in files(tree).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    same(load(tree), load(str(root)), but=(str(tree), str(root)))
    assert len(load_all(root)) == 1


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"])
def test_a_run_in_an_archive_is_the_run_on_disk(tree: Path, suffix: str) -> None:
    content = files(tree)
    data = zipped(content) if suffix == ".zip" else tarred(content)
    packed = {".tgz": ".gz"}.get(suffix, "." + suffix.split(".")[-1])
    path = tree.parent / f"archive{suffix}"
    path.write_bytes(PACK[packed](data) if packed in PACK else data)
    same(load(tree), load(path), but=(str(tree), str(path)))


@pytest.mark.parametrize("suffix", sorted(PACK))
@pytest.mark.parametrize("writer", [jsonl, parquet, trainer_state, lightning, text, debug_blocks, mlperf])
def test_a_compressed_log_is_what_is_in_it(writer: Callable[[Path], None], suffix: str, tmp_path: Path) -> None:
    writer(tmp_path)
    log = next(p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".yaml")
    before = load(tmp_path)
    packed = log.with_name(log.name + suffix)
    packed.write_bytes(PACK[suffix](log.read_bytes()))
    log.unlink()
    after = load(tmp_path)
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
    jsonl(tmp_path)
    path = tmp_path / "runs.zip"
    path.write_bytes(zipped({"x/a7.jsonl": (tmp_path / "a7.jsonl").read_bytes()}))
    run = load(path)
    assert run.path == f"{path}/x/a7.jsonl"
    assert load(run.path).scalars.equals(run.scalars)
    assert load(f"zip://x/a7.jsonl::{path}").scalars.equals(run.scalars)


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
