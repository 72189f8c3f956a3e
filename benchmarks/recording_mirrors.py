"""Mirrors of a recorder: what one `log` of 12 scalars costs with each, against the usual way to write the same."""

from __future__ import annotations

import functools
import gzip
import logging
import logging.handlers
import shutil
import statistics
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.recording import VALUES, Logger
from eventstream.mirrors import Mirror
from eventstream.recorder import Recorder
from eventstream.text_log import TextLog

#: Bytes of a log that is rotated while the training goes on, at its step of 2 ms.
ROTATED, PACE_S = 100_000_000, 0.002


def _ours(folder: Path, stack: ExitStack, name: str, mirrors: list[Mirror]) -> Logger:
    recorder = stack.enter_context(Recorder(folder / name, seal=False, mirrors=mirrors))
    return functools.partial(recorder.log, values=VALUES, split="train")


def _handler(folder: Path, stack: ExitStack) -> Logger:
    """One line of `logging` for each number, as trainings print them, into its own rotating file."""
    handler = logging.handlers.RotatingFileHandler(folder / "plain.log", maxBytes=ROTATED, backupCount=5)
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    stack.callback(handler.close)
    logger = logging.Logger("train")
    logger.addHandler(handler)

    def log(step: int) -> None:
        logger.info("step %d", step)
        for name, value in VALUES.items():
            logger.info("%s: %s", name, value)

    return log


def _board(folder: Path, stack: ExitStack) -> Logger:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn of each other
        from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "board"))
    stack.callback(writer.close)

    def log(step: int) -> None:
        for name, value in VALUES.items():
            writer.add_scalar(name, value, step)

    return log


def _wandb(folder: Path, stack: ExitStack) -> Logger:
    import wandb

    settings = wandb.Settings(mode="offline", console="off", silent=True, x_disable_stats=True)
    run = wandb.init(dir=str(folder), settings=settings, reinit="create_new")
    stack.callback(run.finish)
    return lambda step: run.log(VALUES, step=step)


def _in_turn(loggers: list[Logger], calls: int, rounds: int) -> list[float]:
    """Median microseconds of a call of each; they take turns, round by round."""
    times: list[list[float]] = [[] for _ in loggers]
    for turn in range(rounds):
        for own, log in zip(times, loggers, strict=True):
            start = time.perf_counter()
            for step in range(turn * calls, (turn + 1) * calls):
                log(step)
            own.append((time.perf_counter() - start) / calls * 1e6)
    return [statistics.median(own) for own in times]


def _rotation(folder: Path, size: int) -> tuple[float, float, float, float]:
    """Milliseconds of the write that rotates; of 99 in 100 writes while the backup is compressed; how many seconds this
    took beside the training; and the milliseconds of a rotation that compresses in the same call."""
    path = folder / "rotated.log"
    log = TextLog(path, max_bytes=size)

    def write(step: int) -> float:
        record: dict[str, Any] = {"kind": "metrics", "step": step, "time": 1.7e9 + step, "values": VALUES}
        start = time.perf_counter()
        log.write(record)
        return (time.perf_counter() - start) * 1e3

    for step in range(1000):
        write(step)
    log.close()
    block = path.read_bytes()
    with path.open("ab") as file:
        while (room := size - 200 - file.tell()) > 0:
            file.write(block[-room:])
    start = time.perf_counter()
    with path.open("rb") as source, gzip.open(folder / "waited.gz", "wb", compresslevel=1) as packed:
        shutil.copyfileobj(source, packed, 1 << 20)
    waited = (time.perf_counter() - start) * 1e3
    times, began = [], time.perf_counter()
    while log._file._packing is None or log._file._packing.is_alive():
        times.append(write(len(times)))
        time.sleep(PACE_S)
    took = time.perf_counter() - began
    log.close()
    return max(times[:2]), statistics.quantiles(times, n=100)[-1], took, waited


def rows(quick: bool = False) -> list[Row]:
    from eventstream.tensorboard_mirror import TensorBoardMirror
    from eventstream.wandb_mirror import WandbMirror

    calls, rounds = (50, 5) if quick else (50, 101)
    course: dict[str, Any] = {"epochs": 10**6, "batches": 50}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        mirrors = [TextLog(folder / "a.log", **course), TensorBoardMirror(folder / "mirrored"), WandbMirror(folder)]
        made = [_ours(folder, stack, "bare", [])]
        made += [_ours(folder, stack, type(mirror).__name__, [mirror]) for mirror in mirrors]
        made += [make(folder, stack) for make in (_handler, _board, _wandb)]
        bare, text, board, tracked, lines, summary, wandb = _in_turn(made, calls, rounds)
        rotated, beside, took, waited = _rotation(folder, ROTATED // 20 if quick else ROTATED)
    work, added = "log of 12 scalars, recorded and mirrored to", f"the recorder alone: {bare:.3g} us"
    other = {
        "the text log": (text, "logging, 13 lines into a RotatingFileHandler", lines),
        "TensorBoard": (board, "SummaryWriter.add_scalar x 12, not recorded", summary),
        "W&B offline": (tracked, "wandb.log, not recorded", wandb),
    }
    found = [
        Row.faster(f"{work} {to}", ours, name, theirs, 1, unit="us", note=added)
        for to, (ours, name, theirs) in other.items()
    ]
    beside_note = f"99 of 100 steps take {beside:.2g} ms at most in the {took:.2g} s while it is compressed"
    work = "the step that rotates a text log of 100 MB"
    return [*found, Row.faster(work, rotated, "gzip in the same call", waited, 10, unit="ms", note=beside_note)]
