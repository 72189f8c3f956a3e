"""Histories kept as NumPy arrays: `losses.npy`, tables with named columns, `evaluations.npz` of Stable-Baselines3."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eventstream.errors import InputError
from parsers.content.npy_array import MAGIC, UnreadableArrayError, array_of, header_of
from parsers.finish import Reject
from parsers.naming.roles import is_loss
from parsers.places.beside import folder_name, run_name
from parsers.run import Run
from parsers.tables.columns import roles
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

_ZIP = b"PK\x03\x04"
#: File and array names of histories; any other array may be data, labels, scores or weights.
_HISTORY = re.compile(
    r"(?:.*[_. -])?(?:metrics?|loss(?:es)?|acc(?:urac(?:y|ies))?|history|histories|rewards?|returns?|scores?_history"
    r"|learning_curve|curve|perplexity|ppl|grad_?norms?|lrs?)(?:[_. -].*)?",
    re.IGNORECASE,
)
#: Largest file, and largest array that is unpacked out of one.
LIMIT = 256 << 20
#: Columns of a history; a wider array is a matrix of something else.
_WIDEST = 64
#: What stands for the step in an archive of arrays, beside the usual names.
_STEPS = ("timesteps", "total_timesteps")
#: Stable-Baselines3's arrays of one row an evaluation and one column an episode -> its names for them.
_EPISODES = {"results": "reward", "ep_lengths": "ep_length", "successes": "success"}


def sniff(path: Path, head: bytes) -> bool:
    """Whether `path` is an array whose name is that of a history, a table of named columns with a step or epoch, or an
    archive of arrays with a history."""
    if head.startswith(MAGIC):
        return _is_history(path, head)
    if not head.startswith(_ZIP) or not path.name.endswith(".npz"):
        return False
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return b"timesteps.npy" in head or b"loss.npy" in head  # damaged: `read` says how
    return {"timesteps", "results"} <= set(names) or any(is_loss(n) and "weight" not in n for n in names)


def _is_history(path: Path, head: bytes) -> bool:
    named = _HISTORY.fullmatch(path.name.split(".")[0]) is not None
    try:
        dtype, shape, _, _ = header_of(head)
    except UnreadableArrayError:
        return named
    if dtype.names is not None:
        return len(shape) == 1 and bool(roles(dtype.names).keys() & {"step", "epoch"})
    return named and _is_curve(shape)


def _is_curve(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] <= _WIDEST and shape[1] < shape[0])


def read(path: Path | str) -> Run:
    """The run in a `.npy` or `.npz` of numbers.

    A column is a metric under the name of the file (`losses`; `losses/0`, `losses/1` where there are several) at its
    place from 0 on, which a note says; named columns keep their names, and one that is a step or an epoch tells the
    place. In a `.npz` every array as long as the one of the steps is a metric. Arrays of Stable-Baselines3's
    `evaluations.npz` become `eval/mean_reward`, `eval/std_reward` (over the episodes of one evaluation),
    `eval/mean_ep_length` and `eval/success_rate`, as it logs them itself. Python objects are never unpickled. Of a cut
    file the whole rows are read.

    Raises `InputError` when the file cannot be opened, is larger than 256 MiB, or holds no numbers at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "losses.npy")
    ...     np.save(path, np.array([2.5, 1.5]))
    ...     run = read(path)
    >>> run.scalars.select("step", "metric", "value").rows()
    [(0, 'losses', 2.5), (1, 'losses', 1.5)]
    """
    path = Path(path) if isinstance(path, str) else path
    data = _bytes(path)
    records = Records(str(path))
    if data.startswith(_ZIP):
        columns = _archive(path, records)
        columns = _evaluations(columns) if "timesteps" in columns and "results" in columns else _flat(columns)
    else:
        try:
            array, missing = array_of(data)
        except UnreadableArrayError as error:
            raise InputError(f"{path}: {error}") from error
        if missing:
            records.rejects.append(Reject(str(path), missing))
        columns = _flat({path.name.split(".")[0]: array})
    _add(records, columns)
    name = folder_name(path.parent) if path.name.startswith("evaluations.") else run_name(path)
    return records.run(name or path.name, "numpy-history")


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise InputError(f"{path}: {size:,} bytes; a history of more than {LIMIT:,} is not read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _archive(path: Path, records: Records) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    _take_member(archive, info, found, records)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the archive of arrays is cut or damaged ({error})") from error
    return found


def _take_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: dict[str, npt.NDArray[Any]], records: Records
) -> None:
    name = info.filename.removesuffix(".npy")
    if info.file_size > LIMIT:
        said = f"{name}: {info.compress_size:,} bytes unpack to {info.file_size:,}; more than {LIMIT:,} are not read"
        records.rejects.append(Reject(records.file, said))
        return
    try:
        with archive.open(info) as member:
            array, missing = array_of(member.read(LIMIT + 1))
    except (UnreadableArrayError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        records.rejects.append(Reject(records.file, f"{name}: {error}"))
        return
    if missing:
        records.rejects.append(Reject(records.file, f"{name}: {missing}"))
    found[name] = array


def _flat(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """One-dimensional columns out of arrays of one or two dimensions, or of named columns."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        if array.dtype.names is not None and array.ndim == 1:
            columns |= {field: array[field] for field in array.dtype.names}
        elif array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
            columns[name] = array.ravel()
        elif array.ndim == 2 and array.shape[1] <= _WIDEST:
            columns |= {f"{name}/{k}": array[:, k] for k in range(array.shape[1])}
    return columns


def _evaluations(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    columns = {"timesteps": arrays["timesteps"].ravel()}
    for name, short in _EPISODES.items():
        array = arrays.get(name)
        if array is None or array.dtype.names is not None or array.ndim < 1 or not array.size:
            continue
        episodes = array.reshape(len(array), -1).astype(np.float64)
        with np.errstate(all="ignore"):
            mean, spread = episodes.mean(axis=1), episodes.std(axis=1)
        if short == "success":
            columns["eval/success_rate"] = mean
            continue
        columns |= {f"eval/mean_{short}": mean, f"eval/std_{short}": spread}
    return columns


def _add(records: Records, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    steps = next((name for name in _STEPS if name in columns), None)
    told = roles(columns)
    axis = steps or told.get("step") or told.get("epoch")
    if axis is None and columns:
        text = "the arrays tell no step; the step is the place in the array, from 0 on"
        records.event((0, 0, 0, None, None, None, ""), "note", {"text": text, "level": "info"})
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        said = f"the arrays have {min(lengths):,} to {max(lengths):,} rows; each is read from its start"
        records.rejects.append(Reject(records.file, said))
    for place, row in enumerate(_rows(columns)):
        if steps is not None:
            row = {"step": row.get(steps), **{k: v for k, v in row.items() if k != steps}}
        records.add(place + 1, row if axis is not None else {"step": place, **row})


def _rows(columns: Mapping[str, npt.NDArray[Any]]) -> Iterator[dict[str, Any]]:
    lists = {name: column.tolist() for name, column in columns.items()}
    for place in range(max(map(len, lists.values()), default=0)):
        yield {name: _number(values[place]) for name, values in lists.items() if place < len(values)}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value
