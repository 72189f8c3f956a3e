"""A disk that is full while the training goes on: one warning, a stream that reads, recording once there is room."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aftertrain as at
import eventstream
from aftertrain import Recorder

ROOT = Path(eventstream.__file__).parents[1]
LIMITS = resource.getrlimit(resource.RLIMIT_FSIZE)


def may_mount() -> bool:
    """Whether this process may mount a file system; elsewhere the limit on the size of files alone is tested."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("mount"):
        return False
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    return probe.returncode == 0


DISKS = ["limit", *(["tmpfs"] if sys.platform == "linux" and may_mount() else [])]


class Filled:
    """A place to record in, whose room can be taken and given back."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        folder.mkdir()
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=True)

    def fill(self, room: int = 500) -> None:
        """Leave room for about so many bytes (a negative number: not even for what stands)."""
        if self.kind == "limit":
            written = max(path.stat().st_size for path in self.folder.rglob("*.jsonl"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(written + room, 100), LIMITS[1]))
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            size = 4096
            while size:
                try:
                    filler.write(b"x" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)
        else:
            (self.folder / "filler").unlink()

    def close(self) -> None:
        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, LIMITS)
        else:
            subprocess.run(["umount", str(self.folder)], check=True)


@contextmanager
def filled(kind: str, folder: Path) -> Iterator[Filled]:
    place = Filled(kind, folder)
    try:
        yield place
    finally:
        place.close()


@pytest.mark.parametrize("kind", DISKS)
def test_training_goes_on_with_one_warning_and_recording_resumes_when_there_is_room(tmp_path, kind, caught):
    with filled(kind, tmp_path / "disk") as disk:
        run = disk.folder / "run"
        rec = Recorder(run, seal=False)
        for step in range(50):
            rec.log(step, {"loss": 1.0})
        disk.fill()
        with caught() as texts:
            for step in range(50, 500):
                rec.log(step, {"loss": 1.0})
                rec.losses(step, {"kd": (1.0, 0.5)})
            lost = rec.lost
            (path,) = run.glob("*.jsonl")
            while_full = [json.loads(line) for line in path.read_bytes().splitlines()]
            disk.free()
            for step in range(500, 600):
                rec.log(step, {"loss": 1.0})
            rec.close()
        assert len(texts) == 1
        assert "recording goes on and tries again at the next" in texts[0]
        assert 700 < lost < 900
        assert rec.lost == lost, "nothing is lost once there is room"
        assert while_full[-1]["step"] < 500
        loaded = at.load(run)
        steps = loaded.series("loss")["step"].to_list()
        assert steps[:50] == list(range(50)) and steps[-100:] == list(range(500, 600))
        assert len(steps) + loaded.events_of("losses").height + lost == 600 + 450
        assert loaded.rejects.height == 0
        assert json.loads(loaded.events_of("end")["payload"].item()) == {"status": "finished", "lost": lost}


@pytest.mark.parametrize("kind", DISKS)
def test_a_segment_that_is_due_while_the_disk_is_full_opens_when_there_is_room(tmp_path, kind, caught):
    with filled(kind, tmp_path / "disk") as disk:
        run = disk.folder / "run"
        with caught() as texts:
            rec = Recorder(run, segment_bytes=3_000, seal=False)
            for step in range(20):
                rec.log(step, {"loss": 1.0})
            disk.fill()
            for step in range(20, 200):
                rec.log(step, {"loss": 1.0})
            disk.free()
            for step in range(200, 400):
                rec.log(step, {"loss": 1.0})
            rec.close()
        assert len(texts) <= 2 and texts == sorted(set(texts), key=texts.index)
        assert len(list(run.glob("*.jsonl"))) > 3
        steps = at.load(run).series("loss")["step"].to_list()
        assert len(steps) == 400 - rec.lost
        assert steps[-200:] == list(range(200, 400))


@pytest.mark.parametrize("kind", DISKS)
def test_segments_that_no_disk_can_seal_stay_as_lines_and_are_sealed_by_the_next_start(tmp_path, kind, caught):
    with filled(kind, tmp_path / "disk") as disk:
        run = disk.folder / "run"
        with caught() as texts:
            rec = Recorder(run)
            for step in range(200):
                rec.log(step, {f"loss/{name}": 1.0 for name in "abcdefgh"})
            rec.embeddings(1, [[1.0, 2.0]] * 50)
            disk.fill(room=-1_000_000)
            rec.embeddings(2, [[float(n), 2.0] for n in range(20_000)])
            rec.log(201, {"loss/a": 1.0})
            rec.close()
            disk.free()
        assert texts
        assert not list(run.rglob("*.tmp"))
        assert list(run.glob("*attempt0000*.jsonl"))
        with Recorder(run) as again:
            again.log(202, {"loss/a": 1.0})
        assert not list(run.glob("*.jsonl"))
        assert at.load(run).series("loss/a")["step"].to_list()[:200] == list(range(200))


def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing_behind(tmp_path):
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import resource, sys
            from eventstream.errors import InputError
            from eventstream.recorder import Recorder
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
            try:
                Recorder(sys.argv[1])
            except InputError as error:
                print(error)
            """),
            str(tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout.endswith("no run can be recorded here (File too large); give a folder to write to\n")
    assert list((tmp_path / "run").iterdir()) == []
