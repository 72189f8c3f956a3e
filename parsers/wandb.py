"""Runs of Weights & Biases as they stand on disk: the `.wandb` file of a run folder, or what else is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eventstream.errors import InputError, unknown_name
from parsers.content.lines import to_utf8
from parsers.finish import Reject
from parsers.places.beside import children, folder_name, load_beside
from parsers.run import Run
from parsers.tables.generic import Records
from parsers.tfevents.records import Damage
from parsers.wandb_files.log import Batch, is_wandb, read_batches
from parsers.wandb_files.records import CONSOLE, OWN, Reader
from parsers.wandb_files.resumed import FOLDER, Start, resumed_in, spliced

__all__ = ["owned", "read", "runs", "sniff"]

SUMMARY, CONFIG, CONSOLE_LOG = "wandb-summary.json", "config.yaml", "output.log"
ENDING = ".wandb"
#: Blocks of 32 KiB from which on compiled code pays (2 MiB: loading it costs as much as reading these without it), and
#: how many are taken at a time from then on.
SMALL, MANY = 64, 256
_NOWHERE = (0, 0, 0, None, None, None, "")


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins a `.wandb` file, or the folder is that of one run, or holds the starts of a resumed one."""
    if head:
        return is_wandb(head)
    if not path.is_dir():
        return False
    if resumed_in(path):
        return True
    if FOLDER.fullmatch(path.name) and (_has(path / "files", SUMMARY) or _has(path / "files", CONFIG)):
        return True
    return any(_is_log(file) for file in _logs(path))


def owned(folder: Path) -> set[str] | None:
    """The starts of a resumed run in the folder that holds them; None for the folder of one start, which is all its."""
    resumed = resumed_in(folder)
    return {path.name for paths in resumed.values() for path in paths} if resumed else None


def runs(path: Path | str) -> list[str | None]:
    """The identifiers of the resumed runs in a folder that holds the starts of several; else None, for the one run."""
    path = Path(path) if isinstance(path, str) else path
    resumed = resumed_in(path) if path.is_dir() else {}
    return list(resumed) if len(resumed) > 1 else [None]


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _logs(folder: Path) -> list[Path]:
    return [file for file in children(folder) if file.name.startswith("run-") and file.name.endswith(ENDING)]


def _is_log(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_wandb(file.read(8))
    except OSError:
        return False  # a folder called like a file, or one that may not be read: no run of ours


def read(path: Path | str, *, name: str | None = None) -> Run:
    """The run of a `.wandb` file, or of a run folder (`run-DATE-ID`, `offline-run-DATE-ID`).

    Every number of the history is a scalar under the name that W&B gives it (a path of keys joined by dots); `step` is
    W&B's own `_step`, which counts the calls of `log` and not the steps of training (those stand in
    `trainer/global_step` where a framework logs them). `_timestamp` is the time, `epoch` the epoch; `_runtime` is the
    time once more and left out. Measurements of the machine are the scalars `system.*`, without a step. What in the
    history is no number (text, tables, histograms, images) is an event of kind `record`; the run's identity (`run`:
    id, project, group, tags), its configuration, alerts (`note`), the last 64 KiB of its console (`console`), its
    summary (`results`) and its end are events too. `run.config` holds the configuration as it stood last.

    Of a folder without a `.wandb` file that can be read, the numbers of `files/wandb-summary.json` are one row each at
    the `_step` that stands there, and the configuration is that of `files/config.yaml`. A damaged chunk is a reject
    with its offset; what stands before and after it is read. Nothing is sent anywhere, and wandb is not needed.

    A run that was resumed has a folder for each start, the same identifier at the end of their names: the folder that
    holds them (`wandb/`) is one run, each start an attempt (`parsers.wandb_files.resumed.spliced`). A fork is a run of
    its own; from what it branched off stands in its event `run` (`branched_from`).

    Where the starts of several resumed runs stand in one folder, `name` is the identifier of one (`runs` lists them).

    Raises `InputError` where the path cannot be opened, or holds several resumed runs and `name` is none of them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = Path(folder, "run-20250102_030405-abc", "files")
    ...     files.mkdir(parents=True)
    ...     _ = (files / "wandb-summary.json").write_text('{"_step": 9, "val/acc": 0.5}')
    ...     run = read(files.parent)
    >>> run.name, run.scalars.select("step", "split", "metric", "value").row(0)
    ('run-20250102_030405-abc', (9, 'eval', 'acc', 0.5))
    """
    path = Path(path) if isinstance(path, str) else path
    resumed = resumed_in(path) if path.is_dir() else {}
    if not resumed:
        return _read_start(path).run
    wanted = next(iter(resumed)) if name is None and len(resumed) == 1 else name
    if wanted not in resumed:
        raise InputError(f"{path}: {unknown_name('run', str(wanted), list(resumed))}")
    return replace(spliced([_read_start(start) for start in resumed[wanted]]), path=str(path))


def _read_start(path: Path) -> Start:
    """One start of a run: its folder, or its `.wandb` file."""
    records = Records(str(path))
    if not path.is_dir():
        reader = _read_log(path, records)
        return Start(records.run(_name(reader, path.name.removesuffix(ENDING)), "wandb"), reader.about)
    readers = [_read_log(file, records) for file in _logs(path)]
    reader = readers[-1] if readers else Reader(records, Damage(str(path)))
    _add_files(records, path / "files", reader)
    return Start(records.run(_name(reader, folder_name(path)), "wandb"), reader.about)


def _name(reader: Reader, otherwise: str) -> str:
    return str(reader.about.get("name") or reader.about.get("id") or otherwise)


def _read_log(path: Path, records: Records) -> Reader:
    damage = Damage(str(path))
    reader = Reader(records, damage)
    _add_all(reader, path, damage)
    reader.end()
    records.config.update(reader.config)
    records.rejects += damage.all()
    return reader


def _add_all(reader: Reader, path: Path, damage: Damage) -> None:
    """Every record: of a small file one by one, of a large one many at a time by compiled code."""
    for batch, large in read_batches(path, damage, SMALL, MANY):
        if large:
            from parsers.wandb_files.fast import add_batch

            add_batch(reader, batch if isinstance(batch, Batch) else Batch.of(batch))
        else:
            for offset, data in batch:
                reader.add(offset, data)


def _add_files(records: Records, folder: Path, reader: Reader) -> None:
    """What `files/` holds and the log did not: the configuration, the last values, the console."""
    wanted = [name for name, known in ((CONFIG, reader.config), (SUMMARY, reader.summary)) if not known]
    found, rejects = load_beside(folder, wanted)
    records.rejects += rejects
    config = _unfolded(found.get(CONFIG, {}))
    if config:
        records.config.update(config)
        records.event(_NOWHERE, "config", config)
    summary = dict(found.get(SUMMARY, {}))
    if summary:
        summary.pop(OWN, None)
        records.event(_NOWHERE, "results", summary)
        if not reader.steps:
            reader.place(dict(_flat(summary, "")), None, 1)
    if not reader.console_lines:
        _add_console(records, folder / CONSOLE_LOG)


def _unfolded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values out of `{key: {value: ...}}`; a key that is laid out in another way keeps what it holds."""
    return {
        key: held["value"] if isinstance(held, Mapping) and "value" in held else held
        for key, held in config.items()
        if key not in (OWN, "wandb_version")
    }


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Values by the name that W&B gives them; an object that says its type is one value."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and "_type" not in value:
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value))
    return flat


def _add_console(records: Records, path: Path) -> None:
    """The end of the console output, as an event."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - CONSOLE, 0))
            data = file.read(CONSOLE)
    except OSError as error:
        records.rejects.append(Reject(str(path), f"cannot be read ({error.strerror or error})"))
        return
    records.event(_NOWHERE, "console", {"bytes": size, "text": to_utf8(data).decode("utf-8", "replace")})
