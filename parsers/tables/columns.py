"""Which key of a generic log is the step, the time, the split ...: an alias table as data, and text read as numbers."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable
from functools import lru_cache

from eventstream.records import decode_number
from parsers.schema import SCALARS

__all__ = ["ALIASES", "CONFIG_KEYS", "SPLIT_WORDS", "number", "roles", "timestamp", "to_step"]

#: Role -> keys that have it, the most telling first; the first present counts, the others are ordinary numbers.
ALIASES: dict[str, tuple[str, ...]] = {
    "step": (
        "global_step", "trainer/global_step", "step", "_step", "iteration", "iter", "it", "trained_steps", "train_step",
        "training_step", "current_steps", "steps", "num_steps", "num_updates", "update", "updates", "batch_idx",
    ),
    "epoch": ("epoch", "current_epoch", "epochs", "ep"),
    "time": (
        "time", "timestamp", "_timestamp", "wall_time", "walltime", "unix_time", "datetime", "created_at", "ts", "date",
    ),
    "split": ("split", "subset", "stage", "phase", "mode"),
    "rank": ("rank", "global_rank", "process_index", "local_rank"),
    "attempt": ("attempt",),
    "run": ("run", "run_name", "run_id"),
    "name": ("metric", "tag", "name", "key"),
    "value": ("value", "val", "scalar"),
}  # fmt: skip
#: Values that make a key of the role `split` one: a phase called "warm" is none.
SPLIT_WORDS = {
    "train": "train", "training": "train", "eval": "eval", "evaluation": "eval", "val": "eval", "valid": "eval",
    "validation": "eval", "dev": "eval", "test": "test", "": "",
}  # fmt: skip
#: Keys whose object is the configuration of the run and no measurement.
CONFIG_KEYS = frozenset({"config", "cfg", "args", "arguments", "hparams", "hyperparameters", "hyper_parameters"})

_ROLE = {alias: (role, place) for role, aliases in ALIASES.items() for place, alias in enumerate(aliases)}
#: Numbers as text: what Python and JavaScript write, without `1_000` and hexadecimals, which are identifiers.
NUMBER = r"^\s*[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[Nn]a[Nn]|[Ii]nf(?:inity)?)\s*$"
_NUMBER = re.compile(NUMBER, re.ASCII)
_DIGITS = re.compile(r"\s*[+-]?\d{1,30}\s*", re.ASCII)
#: 1990 to 2100 in seconds since 1970: a number outside is a duration or a count.
_YEARS = (631_152_000.0, 4_102_444_800.0)
_UNITS = (1.0, 1e3, 1e6, 1e9)
_INT64 = 2.0**63
#: The columns of our own table that are never empty (a row of JSON leaves out those that are).
_TIDY = set(SCALARS.names()) - {"step", "epoch", "time"}


@lru_cache(maxsize=4096)
def _normal(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")


def roles(keys: Iterable[str]) -> dict[str, str]:
    """Role -> the key that has it.

    >>> roles(["Epoch", "iter", "global_step", "loss"])
    {'epoch': 'Epoch', 'step': 'global_step'}
    """
    best: dict[str, tuple[int, str]] = {}
    keys = list(keys)
    for key in keys:
        role, place = _ROLE.get(_normal(key), ("", 0))
        if role and (role not in best or place < best[role][0]):
            best[role] = (place, key)
    if not {"name", "value"} <= best.keys():  # a name without a value, or the other way, is an ordinary key
        best.pop("name", None)
        best.pop("value", None)
    found = {role: key for role, (_, key) in best.items()}
    if set(keys) >= _TIDY:  # our own table: the tag as logged is the name, and the metric follows from it
        found |= {"name": "tag", "implied": "metric"}
    return found


def candidates(keys: Iterable[str], role: str) -> list[str]:
    """All of `keys` that could have `role`."""
    return [key for key in keys if _ROLE.get(_normal(key), ("", 0))[0] == role]


def number(value: object) -> float | None:
    """`value` as a number where it is one, or text that says one; booleans, other text and the rest are none.

    >>> number("0.5"), number("-Infinity"), number(7), number("n/a"), number(True)
    (0.5, -inf, 7.0, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if _NUMBER.match(value) else None
    return decode_number(value)


def to_step(value: object) -> int | None:
    """`value` as a whole step (also `3.0` and `"3"`), or None.

    >>> to_step("12"), to_step(3.0), to_step(2.5)
    (12, 3, None)
    """
    if type(value) is str and _DIGITS.fullmatch(value):
        value = int(value)  # exact, also beyond what a float holds
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else None
    found = number(value)
    if found is None or not math.isfinite(found) or found != math.floor(found) or abs(found) >= _INT64:
        return None
    return int(found)


def timestamp(value: object) -> float | None:
    """Seconds since 1970 of a number (s, ms, us or ns) or of ISO 8601 text (UTC where no zone is named), or None.

    >>> timestamp(1_700_000_000_000), timestamp("2023-11-14T22:13:20Z"), timestamp(0.25)
    (1700000000.0, 1700000000.0, None)
    """
    found = number(value)
    if found is not None:
        return next((found / unit for unit in _UNITS if _YEARS[0] <= found / unit < _YEARS[1]), None)
    if not isinstance(value, str) or len(value) < 8:
        return None
    try:
        moment = dt.datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
