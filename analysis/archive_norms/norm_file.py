"""The file that keeps norms: JSON that people can read and compare, checked line by line when it is read."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from analysis.archive_norms.healthy import FACTOR
from analysis.archive_norms.learned import Norm
from analysis.kinds import KINDS
from eventstream.errors import InputError, unknown_name

__all__ = ["MOST", "VERSION", "norms_in", "norms_text"]

VERSION = 1
#: What a file may hold: far more than any archive teaches, and no more than is read at once.
_LARGEST, MOST = 8 << 20, 20_000
_TEXTS, _NUMBERS = ("kind", "metric", "role", "why"), ("median", "high")


def norms_text(norms: Sequence[Norm], origin: Mapping[str, Any]) -> str:
    """The text of a file: the version, where the norms come from, and one line a norm."""
    head = json.dumps({"version": VERSION, **origin}, indent=1, ensure_ascii=False)
    lines = [json.dumps(_row(norm), ensure_ascii=False) for norm in norms]
    return head.removesuffix("\n}") + ',\n "norms": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def _row(norm: Norm) -> dict[str, Any]:
    row = {name: getattr(norm, name) for name in ("kind", "metric", "role", "n", "norm", "default", "median", "high")}
    return {**row, "low": norm.low, "why": norm.why}


def norms_in(path: Path | str) -> tuple[tuple[Norm, ...], dict[str, Any]]:
    """The norms of a file and their origin. Nothing of it is executed, and every number is checked.

    Raises `InputError` for a file that cannot be read, is of another version, holds what is no norm, or a limit beyond
    a quarter of the default or four times it. Kinds that are not known here (of a check that is not loaded, or of a
    later version) are left out with a warning.
    """
    declared = _parsed(Path(path))
    if declared.get("version") != VERSION:
        raise InputError(f"{path}: norms of version {declared.get('version')!r}; this aftertrain reads {VERSION}")
    rows = declared.pop("norms", None)
    if not isinstance(rows, list) or len(rows) > MOST:
        raise InputError(f"{path}: norms: a list of at most {MOST:,} was expected")
    found, strange = [], set()
    for place, row in enumerate(rows, 1):
        try:
            norm = _norm(row)
        except ValueError as error:
            raise InputError(f"{path}: norms, entry {place}: {error}") from error
        if norm is None:
            strange.add(str(row["kind"]))
        else:
            found.append(norm)
    if strange:
        told = f"{path}: norms of kinds that are not known here are left out: {', '.join(sorted(strange)[:10])}"
        warnings.warn(told, UserWarning, stacklevel=4)
    return tuple(found), declared


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: larger than {_LARGEST >> 20} MB, which no file of norms is")
        declared = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: no file of norms ({error})") from error
    if not isinstance(declared, dict):
        raise InputError(f"{path}: no file of norms (a JSON object was expected)")
    return declared


def _norm(row: object) -> Norm | None:
    """A norm out of its line; None for a kind that is not known. Raises `ValueError` for what is none."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _TEXTS):
        raise ValueError(f"an object with the texts {', '.join(_TEXTS)} was expected")
    if not all(_number(row.get(key)) for key in _NUMBERS) or not isinstance(row.get("n"), int) or row["n"] < 0:
        raise ValueError(f"n (a count), {', '.join(_NUMBERS)} (finite numbers) were expected")
    kind, n = row["kind"], int(row["n"])
    place = (kind, row["metric"], row["role"], n, float(row["median"]), float(row["high"]))
    if kind == "level":
        return Norm(*place, None, None, row["why"], float(row["low"]) if _number(row.get("low")) else None)
    limit = KINDS[kind].limit if kind in KINDS else None
    if kind not in KINDS:
        return None
    if limit is None:
        known = [name for name, one in KINDS.items() if one.limit is not None]
        raise ValueError(unknown_name("kind with a limit", kind, known))
    norm = row.get("norm")
    if not _number(norm) or not limit.default / FACTOR * 0.999 <= norm <= limit.default * FACTOR * 1.001:
        raise ValueError(f"{kind}: norm is {norm!r}; it must be within {FACTOR:g} times the default {limit.default:g}")
    return Norm(*place, limit.default, float(norm), row["why"])


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
