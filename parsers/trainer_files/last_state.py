"""Which of several states was trained last: one that came less far may be of a resume after the furthest was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from eventstream.errors import InputError
from parsers.places.beside import children
from parsers.tables.columns import number
from parsers.tables.generic import Records
from parsers.trainer_files.branches import branches, is_clock
from parsers.trainer_files.trainer_log import log_records
from parsers.trainer_files.trainer_state import State

__all__ = ["last_state"]

#: What a log says last of a key of the state at a step.
LastWord = Mapping[tuple[str, int], float]
#: TensorBoard holds float32, and the log of LLaMA-Factory four decimals or more of a loss.
_SAME = 1e-4
#: Files that were written within a second of each other were copied, or tell nothing.
_APART_S = 1.0
_EVENTS = "events.out.tfevents."
#: Names under which a log tells of a number of the state.
_LLAMA = {"loss": "loss", "lr": "learning_rate", "eval_loss": "eval_loss"}


def last_state(states: Sequence[State], folder: Path, log: Path) -> tuple[State, str]:
    """The state with which the training of a folder ended, and how that is known where it was a question.

    It is the one that has come furthest, unless another tells of a training that was begun again before that one's end
    and is the later of the two. That is known from a log beside them (`log`, LLaMA-Factory's, or TensorBoard's event
    files), which says last what the later one holds; else, as a last witness, from the times of the files, where no
    checkpoint is older than one that it goes on from. Where nothing tells, the furthest counts and the text says so.

    `states` are sorted by their last step.

    >>> states = [State("a", {}, [{"step": 1, "loss": 0.5}]), State("b", {}, [{"step": 1, "loss": 0.5}, {"step": 2}])]
    >>> last_state(states, Path("none"), Path("none"))[0].file
    'b'
    """
    *older, newest = states
    rivals = [branch.state for branch in branches(older, newest)[0]]
    if not rivals:
        return newest, ""
    words: dict[str, LastWord] = {}
    why, chosen = "", newest
    for rival in rivals:
        later, known = _is_later(rival, chosen, states, lambda: _words(folder, log, words))
        why = why or known
        if later:
            chosen, why = rival, known
    if chosen is newest:
        doubt = f"which was trained last cannot be told; {newest.file} counts, as it came furthest"
        # the state in the folder itself was saved at the end of a training
        return newest, "" if why or Path(newest.file).parent == folder else doubt
    return chosen, f"{chosen.file} counts, though {newest.file} came further: {why}"


def _is_later(
    state: State, other: State, states: Sequence[State], words: Callable[[], Mapping[str, LastWord]]
) -> tuple[bool, str]:
    """Whether a state was trained after another one, and what tells; no word where nothing does."""
    for name, said in words().items():
        mine, theirs = _agreeing(state, other, said)
        if mine != theirs:
            return (
                mine > theirs,
                f"{name} says last what the one holds that was trained last ({max(mine, theirs):,} numbers)",
            )
    time, others = _written(state), _written(other)
    if time is None or others is None or abs(time - others) < _APART_S or not _in_order((state, other), states):
        return False, ""
    return time > others, "its file was written last, and nothing else tells"


def _agreeing(state: State, other: State, said: LastWord) -> tuple[int, int]:
    """Of the numbers that two states tell differently, how many the log tells as the one, and as the other."""
    mine, theirs = dict(_numbers(state)), dict(_numbers(other))
    counts = [0, 0]
    for key in mine.keys() & theirs.keys() & said.keys():
        if not _same(mine[key], theirs[key]):
            counts[0] += _same(mine[key], said[key])
            counts[1] += _same(theirs[key], said[key])
    return counts[0], counts[1]


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * max(abs(one), abs(other))


def _numbers(state: State) -> Iterator[tuple[tuple[str, int], float]]:
    for entry in state.entries:
        step = entry.get("step")
        for key, value in entry.items() if isinstance(step, int) else ():
            found = number(value)
            if found is not None and key not in ("step", "epoch") and not is_clock(key):
                yield (key, step), found  # type: ignore[misc]


def _written(state: State) -> float | None:
    try:
        return Path(state.file).stat().st_mtime
    except OSError:
        return None  # a member of an archive has no time of its own here


def _in_order(two: Sequence[State], states: Sequence[State]) -> bool:
    """Whether neither was written before a state that it goes on from: copying would mix the times up."""
    for state in two:
        for former in states:
            goes_on = len(former.entries) < len(state.entries) and (
                former.entries == state.entries[: len(former.entries)]
            )
            if goes_on and (_written(former) or 0.0) > (_written(state) or 0.0):
                return False
    return True


def _words(folder: Path, log: Path, kept: dict[str, LastWord]) -> Mapping[str, LastWord]:
    """What the logs beside the states say last, by what to call them; read at the first call."""
    if not kept:
        kept[log.name] = _of_llama_factory(log) if log.is_file() else {}
        kept["TensorBoard's log"] = _of_tensorboard(folder)
    return kept


def _of_llama_factory(path: Path) -> LastWord:
    found: dict[tuple[str, int], float] = {}
    for _, record in log_records(path, Records(str(path)), set()):
        step = record.get("current_steps")
        for name, key in _LLAMA.items():
            value = number(record.get(name))
            if isinstance(step, int) and value is not None:
                found[key, step] = value
    return found


def _of_tensorboard(folder: Path) -> LastWord:
    """By the keys of the state, which the Trainer logs as `train/...` and `eval/...`; the latest of each step."""
    from parsers.tensorboard import read

    frames = []
    for path in _event_files(folder):
        try:
            frames.append(read(path).scalars.select("tag", "step", "time", "value"))
        except InputError:
            continue  # no log of TensorBoard; reading the folder as one says why
    if not frames:
        return {}
    rows = pl.concat(frames).drop_nulls().sort("time", maintain_order=True).unique(["tag", "step"], keep="last")
    return {(_key(tag), step): value for tag, step, value in rows.select("tag", "step", "value").iter_rows()}


def _key(tag: str) -> str:
    return tag.removeprefix("train/") if tag.startswith("train/") else tag.replace("/", "_", 1)


def _event_files(folder: Path) -> list[Path]:
    """Event files in the folder and up to two below it, where the Trainer puts them (`runs/` and a folder a start)."""
    below = [path for path in children(folder) if path.is_dir() and not path.name.startswith("checkpoint-")]
    deeper = chain.from_iterable(children(path) for path in below)
    places = [folder, *below, *(path for path in deeper if path.is_dir())]
    return [path for place in places for path in children(place) if path.name.startswith(_EVENTS) and path.is_file()]
