"""A run of AllenNLP: a folder with one `metrics_epoch_N.json` an epoch, `config.json` and the final `metrics.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from eventstream.errors import InputError
from parsers.content.json_damage import read_document
from parsers.finish import Reject
from parsers.places.beside import children, folder_name, load_beside
from parsers.run import Run
from parsers.tables.generic import Records

__all__ = ["owned", "read", "sniff"]

_EPOCH = re.compile(r"metrics_epoch_(\d{1,9})\.json")
CONFIG, FINAL = "config.json", "metrics.json"


def sniff(path: Path, head: bytes) -> bool:
    """Whether `path` is a folder that holds `metrics_epoch_N.json`."""
    return not head and path.is_dir() and bool(_epochs(path))


def owned(folder: Path) -> set[str]:
    """Names of the metrics and the configuration."""
    return {CONFIG, FINAL, *(path.name for _, path in _epochs(folder))}


def _epochs(folder: Path) -> list[tuple[int, Path]]:
    matches = [(_EPOCH.fullmatch(path.name), path) for path in children(folder)]
    return sorted((int(match[1]), path) for match, path in matches if match)


def read(path: Path | str) -> Run:
    """The run in one serialisation folder: the numbers of each epoch's file at the epoch of its name.

    `training_loss` and `validation_loss` are `loss` of the splits train and eval; `config.json` is `run.config`; the
    final `metrics.json` is an event `results`. A damaged file is a reject and what stands before the damage counts.
    Raises `InputError` when no file of an epoch is there. Source: AllenNLP documentation, GradientDescentTrainer.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "sst")
    ...     path.mkdir()
    ...     _ = (path / "metrics_epoch_3.json").write_text('{"epoch": 3, "validation_loss": 0.5}')
    ...     run = read(path)
    >>> run.name, run.scalars.select("epoch", "split", "metric", "value").row(0)
    ('sst', (3.0, 'eval', 'loss', 0.5))
    """
    path = Path(path) if isinstance(path, str) else path
    files = _epochs(path)
    if not files:
        raise InputError(f"{path}: no metrics_epoch_N.json in this folder")
    records = Records(str(path))
    for epoch, file in files:
        try:
            document = read_document(file)
        except InputError as error:
            records.rejects.append(Reject(str(file), str(error)))
            continue
        records.rejects += document.rejects
        if isinstance(document.value, Mapping):
            records.add(epoch + 1, {**document.value, "epoch": epoch})
        elif not document.rejects:
            records.rejects.append(Reject(str(file), "no object of names and numbers"))
    found, rejects = load_beside(path, (CONFIG, FINAL))
    records.rejects += rejects
    records.config.update(found.get(CONFIG, {}))
    if FINAL in found:
        index = (files[-1][0] + 2, 0, 0, None, float(files[-1][0]), None, "")
        records.event(index, "results", {"file": FINAL, **found[FINAL]})
    return records.run(folder_name(path), "allennlp")
