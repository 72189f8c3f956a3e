"""Running the checks of a diagnosis: one after the other, or those of a long run beside one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from analysis.checks import Check
from analysis.custom_checks import CustomCheck
from analysis.limits import Limits
from analysis.result import Result
from parsers.run import Run

__all__ = ["MANY", "run_checks"]

#: Numbers in a run from which checks run beside one another: they spend their time in NumPy, Polars and compiled
#: loops, which hold no lock of the interpreter. Below, threads would cost more than they save.
MANY = 200_000
#: Checks at a time: more would only add up their memory, since the longest of them uses all cores by itself.
_BESIDE = 2

Progress = Callable[[str], None]


def run_checks(
    checks: Mapping[str, Check | CustomCheck], run: Run, limits: Limits, progress: Progress | None = None
) -> dict[str, Result]:
    """The result of each check, in the order given, whichever ends first.

    The checks of a run of 200,000 numbers or more run two at a time where there are two cores, each a thread; those
    of the user's own run alone, in the caller's thread. `progress` is called there too, with each check's name
    before it begins. What a check raises is raised here, of several the one that comes first in the order.

    >>> import polars as pl
    >>> from analysis.checks import CHECKS
    >>> from parsers.finish import finish
    >>> run = finish("a", "a", "jsonl", pl.DataFrame({"tag": ["loss"] * 9, "step": range(9), "value": [1.0] * 9}))
    >>> list(run_checks({check.name: check for check in CHECKS[:2]}, run, Limits()))
    ['stream', 'plan']
    """
    if (os.cpu_count() or 1) > 1 and len(checks) > 1 and _is_long(run):
        return _beside(checks, run, limits, progress)
    results = {}
    for name, check in checks.items():
        if progress is not None:
            progress(name)
        results[name] = check(run, limits)
    return results


def _is_long(run: Run) -> bool:
    return int(run.catalogue["count"].sum()) >= MANY


def _beside(
    checks: Mapping[str, Check | CustomCheck], run: Run, limits: Limits, progress: Progress | None
) -> dict[str, Result]:
    _ = run.roles  # nearly every check asks for it, and two at once would read the log twice
    started: dict[str, Future[Result]] = {}
    with ThreadPoolExecutor(_BESIDE) as pool:
        for name, check in checks.items():
            own = isinstance(check, CustomCheck)
            if not _room(list(started.values()), 0 if own else _BESIDE - 1):
                break
            if progress is not None:
                progress(name)
            if own:  # nobody promised that the code of users may run beside other code
                started[name] = Future()
                started[name].set_result(check(run, limits))
            else:
                started[name] = pool.submit(check, run, limits)
    return {name: future.result() for name, future in started.items()}


def _room(started: Sequence[Future[Result]], most: int) -> bool:
    """Wait until at most so many checks run; False once one of them has failed, after which none begins."""
    running = {future for future in started if not future.done()}
    while len(running) > most:
        running = wait(running, return_when=FIRST_COMPLETED).not_done
    return not any(future.done() and future.exception() for future in started)
