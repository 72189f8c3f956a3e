"""Ablation folders: `config_<name>.json`, `logs_<name>.log`, `checkpoints_<name>/` and samples as one run a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from eventstream.errors import InputError
from parsers.content.json_damage import read_document
from parsers.finish import Reject
from parsers.places.beside import children, folder_name
from parsers.places.sample_folders import add_samples
from parsers.registry import formats
from parsers.run import Run
from parsers.schema import REJECTS
from parsers.tables.generic import Records

__all__ = ["is_part", "read", "sniff"]

NAME = "ablation"
_CONFIG = re.compile(r"config_(.+)\.json")
_LOG = re.compile(r"logs?_(.+)\.(?:log|txt|out)")
_LOG_NAMES = ("logs_{}.log", "log_{}.log", "logs_{}.txt", "logs_{}.out")
_SAMPLES = re.compile(r"samples(?:_.+)?")
#: How far above a file of samples their folder is looked for.
_ABOVE = 4
#: Most files of checkpoints that become events, and how deep they are looked for.
_MOST, _DEEPEST = 10_000, 4
_STEP = re.compile(r"(?:steps?|iter(?:ation)?s?|checkpoint|ckpt)[-_=]?(\d{1,15})", re.IGNORECASE)
_EPOCH = re.compile(r"epochs?[-_=]?(\d{1,9})", re.IGNORECASE)


def sniff(path: Path, head: bytes) -> bool:
    """Whether `path` is the configuration of a run whose log or checkpoints stand beside it, that log, or what belongs
    to the samples of such a folder."""
    match = _CONFIG.fullmatch(path.name)
    if match:
        return (
            head.lstrip()[:1] == b"{"
            and (_log(path.parent, match[1]) or _checkpoints(path.parent, match[1])) is not None
        )
    return is_part(path)


def is_part(path: Path) -> bool:
    """Whether `path` is the log or a part of the samples of a run whose configuration stands for it."""
    match = _LOG.fullmatch(path.name)
    if match:
        return (path.parent / f"config_{match[1]}.json").is_file()
    if path.name != "metadata.json":
        return False
    folder = path.parent
    for _ in range(_ABOVE):
        if _SAMPLES.fullmatch(folder.name):
            return any(_names(place) for place in (folder.parent, folder.parent.parent))
        folder = folder.parent
    return False


def _names(folder: Path) -> list[str]:
    """The runs of a folder: those of its configurations that have a log or checkpoints."""
    matches = (_CONFIG.fullmatch(path.name) for path in children(folder))
    return [m[1] for m in matches if m and (_log(folder, m[1]) or _checkpoints(folder, m[1]))]


def _log(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / form.format(name) for form in _LOG_NAMES) if p.is_file()), None)


def _checkpoints(folder: Path, name: str) -> Path | None:
    found = folder / f"checkpoints_{name}"
    return found if found.is_dir() else None


def read(path: Path | str) -> Run:
    """The run of one `config_<name>.json`, or of its `logs_<name>.log`.

    The log is read by whatever format it has; the configuration is `run.config`, with the folder's name as `group`
    (unless the configuration has one), by which runs are compared. Each file below `checkpoints_<name>/` is an event
    `checkpoint` with its size, unopened; the step and epoch are those of its name. Samples in `samples_<name>/`,
    `samples/<name>/`, `<name>/samples/` or `checkpoints_<name>/samples/` are events `samples` with their files and
    `metadata.json`; so are those of `samples/`, where the folder holds one run or the metadata names this one.

    A damaged configuration is read up to the damage, which is a reject; so is a log of no known format. Raises
    `InputError` when the configuration cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder, "phase4")
    ...     place.mkdir()
    ...     _ = (place / "config_no_gan.json").write_text('{"lambda_adv": 0.0}')
    ...     _ = (place / "logs_no_gan.log").write_text("step: 1 loss: 2.5\\nstep: 2 loss: 2.0\\nstep: 3 loss: 1.5\\n")
    ...     run = read(place / "config_no_gan.json")
    >>> run.name, run.config, run.series("loss")["value"].to_list()
    ('no_gan', {'lambda_adv': 0.0, 'group': 'phase4'}, [2.5, 2.0, 1.5])
    """
    path = Path(path) if isinstance(path, str) else path
    match = _CONFIG.fullmatch(path.name) or _LOG.fullmatch(path.name)
    if match is None:
        raise InputError(f"{path}: neither config_<name>.json nor logs_<name>.log")
    folder, name = path.parent, match[1]
    file = folder / f"config_{name}.json"
    records = Records(str(file))
    document = read_document(file)
    records.rejects += document.rejects
    config = dict(document.value) if isinstance(document.value, Mapping) else {}
    _add_checkpoints(records, folder, name)
    for place, shared in _sample_folders(folder, name):
        add_samples(records, place, name if shared else "")
    records.config.update(config)
    records.config.setdefault("group", folder_name(folder))
    return _joined(records, _log(folder, name), name)


def _sample_folders(folder: Path, name: str) -> Iterator[tuple[Path, bool]]:
    """Folders of samples, and whether they may hold samples of other runs."""
    places = (f"samples_{name}", f"samples/{name}", f"{name}/samples", f"checkpoints_{name}/samples")
    yield from ((folder / place, False) for place in places)
    yield folder / "samples", len(_names(folder)) > 1


def _add_checkpoints(records: Records, folder: Path, name: str) -> None:
    found = _checkpoints(folder, name)
    for order, file in enumerate(_files(found, _DEEPEST) if found else (), 1):
        if order > _MOST:
            records.rejects.append(Reject(str(found), f"more than {_MOST:,} files; the others are not listed"))
            return
        try:
            size = file.stat().st_size
        except OSError as error:
            records.rejects.append(Reject(str(file), f"cannot be looked at ({error.strerror})"))
            continue
        below = file.relative_to(folder).as_posix()
        step, epoch = _STEP.search(below), _EPOCH.search(below)
        index = (order, 0, 0, int(step[1]) if step else None, float(epoch[1]) if epoch else None, None, "")
        records.event(index, "checkpoint", {"path": below, "bytes": size})


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """Files below a folder, without its samples; links to folders are not followed."""
    for entry in children(folder):
        if entry.is_file():
            yield entry
        elif depth and entry.is_dir() and not entry.is_symlink() and entry.name != "samples":
            yield from _files(entry, depth - 1)


def _joined(records: Records, log: Path | None, name: str) -> Run:
    """The run of the log with what stands beside it."""
    own = records.run(name, NAME)
    if log is None:
        return own
    try:
        with log.open("rb") as file:
            head = file.read(1 << 16)
        format = next((f for f in formats() if f.name != NAME and not f.folder and f.sniff(log, head)), None)
        if format is None:
            raise InputError("empty" if not head else "not a format that is known")
        run = format.read(log).renamed(name)
    except (InputError, OSError) as error:
        rejects = pl.DataFrame([(str(log), None, None, f"the log was not read: {error}", "")], REJECTS, orient="row")
        return replace(own, rejects=pl.concat([own.rejects, rejects]))
    return replace(
        run,
        path=own.path,
        format=NAME,
        events=pl.concat([run.events, own.events]),
        rejects=pl.concat([run.rejects, own.rejects]),
        config={**run.config, **own.config},
    )
