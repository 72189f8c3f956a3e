"""What a record says: its numbers in JSON and back, the scalars made of a payload, the names of segment files.

Both the sealing of segments and the reader of event streams take these rules from here, so that a run reads the same
before and after it is sealed. `docs/event-stream.md` states them in prose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eventstream.values import plain

__all__ = [
    "FORMAT",
    "LOSS_PARTS",
    "MANIFEST",
    "METRICS_PREFIX",
    "NON_FINITE",
    "VERSION",
    "SegmentName",
    "decode_number",
    "encode_numbers",
    "expand",
    "metric_values",
    "non_finite_name",
    "strict_number",
]

FORMAT = "aftertrain-events"
VERSION = 1
MANIFEST = "manifest.json"

#: How a line of metrics begins, so that readers tell it from the others without parsing.
METRICS_PREFIX = b'{"kind":"metrics",'

#: The strings that stand for floats that JSON cannot write, and what they mean.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: The numbers of a component of a loss.
LOSS_PARTS = ("raw", "weight", "weighted", "contribution")


def non_finite_name(value: float) -> Literal["NaN", "Infinity", "-Infinity"]:
    """The JSON string that stands for a float that JSON cannot write.

    >>> non_finite_name(float("-inf"))
    '-Infinity'
    """
    if value != value:
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def strict_number(value: Any) -> Any:
    """`value` as it is, or the string that stands for it where it is a float that JSON cannot write.

    Quicker than `encode_numbers` for what is one plain value: nothing else is made of it.

    >>> strict_number(float("nan")), strict_number(0.5), strict_number("NaN")
    ('NaN', 0.5, 'NaN')
    """
    return non_finite_name(value) if isinstance(value, float) and not math.isfinite(value) else value


def encode_numbers(value: object, *, unknown: Callable[[str], None] | None = None) -> Any:
    """`value` as what strict JSON can write: non-finite numbers as strings, keys as strings, arrays as lists.

    NumPy and torch values become plain numbers and lists, sets lists, paths and dates strings, dataclasses and
    namespaces objects, lone surrogates their escape. What has no JSON form is written as its text and reported to
    `unknown` with a sentence.

    >>> encode_numbers({"lr": 0.1, "best": float("inf"), 3: (1, None)})
    {'lr': 0.1, 'best': 'Infinity', '3': [1, None]}
    """
    return plain(value, non_finite_name, unknown)


def decode_number(value: object) -> float | None:
    """The number that a JSON value of a record means, or None where it is no number.

    `"NaN"`, `"Infinity"` and `"-Infinity"` are numbers; other strings, null, lists and objects are not. Booleans count
    as 0 and 1; integers that a float cannot hold become infinite, as an overflowing literal does.

    >>> decode_number("-Infinity"), decode_number(3), decode_number("3"), decode_number(None)
    (-inf, 3.0, None, None)
    """
    if isinstance(value, str):
        return NON_FINITE.get(value)
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def metric_values(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The (name, value) pairs of a record of kind `metrics`, with its `nonfinite` put back and nulls left out.

    >>> list(metric_values({"values": {"loss": 1.5, "kd": None, "lr": None}, "nonfinite": {"kd": "NaN"}}))
    [('loss', 1.5), ('kd', nan)]
    """
    values, absent = record.get("values"), record.get("nonfinite")
    if not isinstance(values, Mapping):
        return
    named = absent if isinstance(absent, Mapping) else {}
    for name, value in values.items():
        number = decode_number(named.get(name) if value is None else value)
        if number is not None:
            yield name, number


def expand(kind: str, payload: object) -> Iterator[tuple[str, float]]:
    """The scalars made of an event: (tag, value) pairs in the order of the payload; nothing for other kinds.

    Values that are not numbers make no scalar, and a payload of another shape than its kind's makes none at all: the
    event itself is kept either way.

    >>> list(expand("losses", {"components": {"kd": {"raw": 2.0, "weight": 0.5}}, "total": "NaN"}))
    [('losses/kd/raw', 2.0), ('losses/kd/weight', 0.5), ('losses/total', nan)]
    >>> list(expand("curriculum", {"phase": "warm", "progress": 0.25, "weights": {"kd": 0.7}}))
    [('curriculum/progress', 0.25), ('curriculum/weight/kd', 0.7)]
    >>> list(expand("resources", {"gpu_memory_mb": 812, "host": "n1"}))
    [('resources/gpu_memory_mb', 812.0)]
    """
    if not isinstance(payload, dict):
        return
    for tag, value in _candidates(kind, payload):
        number = value if type(value) is float else decode_number(value)
        if number is not None:
            yield tag, number


def _candidates(kind: str, payload: dict[str, Any]) -> list[tuple[str, Any]]:
    """The tags that a kind knows with whatever stands there. Plain loops: a long run has millions of these."""
    found: list[tuple[str, Any]] = []
    if kind == "losses":
        for name, parts in _items(payload.get("components")):
            found += [(f"losses/{name}/{part}", value) for part, value in _items(parts) if part in LOSS_PARTS]
        found += [("losses/total", payload.get("total")), ("losses/displayed", payload.get("displayed"))]
    elif kind == "curriculum":
        found.append(("curriculum/progress", payload.get("progress")))
        found += [(f"curriculum/weight/{name}", value) for name, value in _items(payload.get("weights"))]
    elif kind in ("data", "resources"):
        found += [(f"{kind}/{name}", value) for name, value in payload.items()]
    return found


def _items(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


_SEGMENT = re.compile(r"rank(\d{5,9})-attempt(\d{4,9})-(\d{6,9})\.(jsonl|parquet)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """Rank, attempt and number of a segment, which are all that its file name says.

    >>> SegmentName(0, 2, 7).jsonl
    'rank00000-attempt0002-000007.jsonl'
    >>> SegmentName.parse("rank00000-attempt0002-000007.parquet")
    SegmentName(rank=0, attempt=2, number=7)
    >>> SegmentName.parse("rank00000-attempt0002-000007.parquet.tmp") is None
    True
    """

    rank: int
    attempt: int
    number: int

    @classmethod
    def parse(cls, file_name: str) -> SegmentName | None:
        """The segment that a file name (without folders) stands for, or None where it is no segment's name."""
        found = _SEGMENT.fullmatch(file_name)
        return cls(*(int(part) for part in found.groups()[:3])) if found else None

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return f"rank{self.rank:05d}-attempt{self.attempt:04d}-{self.number:06d}"

    @property
    def jsonl(self) -> str:
        """Name of the file while it is written."""
        return f"{self.stem}.jsonl"

    @property
    def parquet(self) -> str:
        """Name of the sealed file."""
        return f"{self.stem}.parquet"
