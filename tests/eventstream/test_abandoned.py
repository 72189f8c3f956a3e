"""Recorders that nobody closed end with the process, or when the next one is made, and never inside a collection."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventstream.abandoned import close_gone, close_of, close_when_gone, keep
from eventstream.lightning_logger import LoggerCore
from eventstream.recorder import Recorder


class Owner:
    """Whatever opened a recorder."""


def ends(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["payload"] for record in records if record["kind"] == "end"]


def test_a_recorder_whose_owner_is_collected_is_closed_when_the_next_is_made(tmp_path: Path, lines_of: Any) -> None:
    owner, recorder = Owner(), Recorder(tmp_path / "a", seal=False)
    close_when_gone(owner, recorder, "interrupted", "nobody closed it")
    del owner
    gc.collect()
    assert not recorder.closed
    with Recorder(tmp_path / "b", seal=False):
        assert recorder.closed
    assert ends(lines_of(tmp_path / "a")) == [{"status": "interrupted", "error": "nobody closed it"}]


def test_the_folder_of_a_collected_owner_is_free_for_the_next(tmp_path: Path) -> None:
    owner = Owner()
    close_when_gone(owner, Recorder(tmp_path, seal=False), "interrupted")
    del owner
    gc.collect()
    with Recorder(tmp_path, seal=False) as recorder:
        assert recorder.attempt == 1


@pytest.mark.parametrize("release", [keep, None])
def test_what_is_kept_stays_open_and_what_is_told_again_ends_as_told_last(
    tmp_path: Path, lines_of: Any, release: Any
) -> None:
    owner, recorder = Owner(), Recorder(tmp_path, seal=False)
    close_when_gone(owner, recorder, "interrupted")
    if release is not None:
        release(owner)
    else:
        close_when_gone(owner, recorder, "finished")
    del owner
    gc.collect()
    close_gone()
    assert recorder.closed == (release is None)
    recorder.close("failed")
    assert [end["status"] for end in ends(lines_of(tmp_path))] == ["finished" if release is None else "failed"]


def test_what_is_closed_by_its_owner_s_name_is_closed_at_once(tmp_path: Path) -> None:
    owner, recorder = Owner(), Recorder(tmp_path, seal=False)
    close_when_gone(owner, recorder, "finished")
    close_of(owner)
    assert recorder.closed
    close_of(owner)


@pytest.mark.parametrize("kept", [True, False])
def test_the_end_of_the_process_closes_what_is_open(tmp_path: Path, lines_of: Any, kept: bool) -> None:
    program = (
        "import sys, gc; from eventstream.lightning_logger import LoggerCore\n"
        f"logger = LoggerCore({str(tmp_path)!r}); logger._run.open()._sealer._wanted = False\n"
        "logger.log_metrics({'loss': 1.0}, step=1)\n"
        f"{'pass' if kept else 'del logger; gc.collect()'}\n"
        "sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 3
    expected = {"status": "interrupted", "error": "the process ended before this training did"}
    assert ends(lines_of(tmp_path)) == [expected]


def test_a_logger_that_ended_well_is_closed_as_such(tmp_path: Path, lines_of: Any) -> None:
    with Recorder(tmp_path / "other", seal=False):
        logger = LoggerCore(tmp_path / "run")
        logger.log_metrics({"loss": 1.0}, step=1)
        logger.experiment._sealer._wanted = False
        logger.finalize("success")
        del logger
        gc.collect()
    close_gone()
    assert {end["status"] for end in ends(lines_of(tmp_path / "run"))} == {"finished"}
