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
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.recording import VALUES, Logger
from eventstream.mirrors import Mirror
from eventstream.recorder import Recorder
from eventstream.tensorboard_mirror import TensorBoardMirror
from eventstream.text_log import TextLog
from eventstream.wandb_mirror import WandbMirror

#: Calls of a round.
CALLS = 50
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


def _mirrored_board(folder: Path, stack: ExitStack) -> Logger:
    mirror = TensorBoardMirror(folder / "mirrored")
    log = _ours(folder, stack, "boarded", [mirror])
    return _flushed(log, lambda: mirror._writer.flush())


def _board(folder: Path, stack: ExitStack) -> Logger:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn of each other
        from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "board"))
    stack.callback(writer.close)

    def log(step: int) -> None:
        for name, value in VALUES.items():
            writer.add_scalar(name, value, step)

    return _flushed(log, writer.flush)


def _flushed(log: Logger, flush: Callable[[], object]) -> Logger:
    """`log`, every 50th time with the wait for the thread that writes, which takes its time from the training."""

    def call(step: int) -> None:
        log(step)
        if step % CALLS == CALLS - 1:
            flush()

    return call


def _wandb(folder: Path, stack: ExitStack) -> Logger:
    import wandb

    settings = wandb.Settings(mode="offline", console="off", silent=True, x_disable_stats=True)
    run = wandb.init(dir=str(folder), settings=settings, reinit="create_new")
    stack.callback(run.finish)
    return lambda step: run.log(VALUES, step=step)


def _in_turn(loggers: list[Logger], rounds: int) -> list[float]:
    """Median microseconds of a call of each, in turn; the first ones, which the W&B mirror holds, do not count."""
    times: list[list[float]] = [[] for _ in loggers]
    for turn in range(rounds + 2):
        for own, log in zip(times, loggers, strict=True):
            start = time.perf_counter()
            for step in range(turn * CALLS, (turn + 1) * CALLS):
                log(step)
            own.append((time.perf_counter() - start) / CALLS * 1e6)
    return [statistics.median(own[2:]) for own in times]


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
    rounds = 5 if quick else 101
    work = "log of 12 scalars, recorded and mirrored to"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        text = TextLog(folder / "a.log", epochs=10**6, batches=50)
        bare = _ours(folder, stack, "bare", [])
        alone, ours, lines = _in_turn([bare, _ours(folder, stack, "text", [text]), _handler(folder, stack)], rounds)
        board, summary = _in_turn([_mirrored_board(folder, stack), _board(folder, stack)], rounds)
        tracked = _ours(folder, stack, "tracked", [WandbMirror(folder)])
        mirrored, logged = _in_turn([tracked, _wandb(folder, stack)], rounds)
        rotated, beside, took, waited = _rotation(folder, ROTATED // 20 if quick else ROTATED)
    added = f"the recorder alone: {alone:.3g} us"
    written, held = "both until their files are written", "the library is called in both"
    aside = f"99 of 100 steps take {beside:.2g} ms at most in the {took:.2g} s while it is compressed"
    rotation = "the step that rotates a text log of 100 MB"
    return [
        Row.faster(
            f"{work} the text log", ours, "logging, 13 lines, RotatingFileHandler", lines, 1, unit="us", note=added
        ),
        Row.faster(f"{work} TensorBoard", board, "SummaryWriter.add_scalar x 12", summary, 1, unit="us", note=written),
        Row.at_most(f"{work} W&B offline", mirrored, "wandb.log alone", logged, 2, unit="us", note=held),
        Row.faster(rotation, rotated, "gzip in the same call", waited, 10, unit="ms", note=aside),
    ]
