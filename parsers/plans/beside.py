"""The configuration of a run that stands beside its log and that no parser took, and where the parser's is from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from parsers.places.beside import GENERIC, children, load_beside
from parsers.places.place import is_local
from parsers.plans.names import CONFIGURATIONS
from parsers.run import Run

__all__ = ["with_configuration"]

#: What follows the name of a log in that of a configuration of its own: `run1.csv` and `run1_config.yaml`.
_OWN = (".yaml", ".yml", "_config.yaml", "_config.json", "_args.json", "_hparams.yaml")
#: What each parser reads of these by itself.
_TAKEN: dict[str, tuple[str, ...]] = {
    "lightning": ("hparams.yaml",),
    "tensorboard": ("hparams.yaml",),
    "sacred": ("config.json",),
    "allennlp": ("config.json",),
    "stable-baselines": ("args.yml", "config.yml"),
    "csv": ("args.yaml", "args.yml", "hparams.yaml", "config.yaml", "config.yml", "params.yaml"),
}
#: What else `Run.config` comes from.
_SOURCES = {
    "huggingface": "trainer_state.json",
    "aftertrain": "manifest.json (config)",
    "wandb": "configuration of the W&B run",
    "mlflow": "params of the MLflow run",
    "tensorboard": "hparams of the event files",
    "mlperf": "MLLOG lines",
}
PICKLE = "training_args.bin"
#: Keys by which a `config.json` is that of a model and not of a training.
_MODEL = frozenset({"architectures", "transformers_version", "_class_name", "_diffusers_version", "peft_type"})
#: More entries than this in a folder are not looked through for a second log.
_MOST = 200


def with_configuration(run: Run, where: Path) -> Run:
    """The run with the configurations beside its log, which is at `where`; nothing is read that the parser has read.

    Beside a log whose name is its own (`a7.csv`) a configuration of a common name counts only where it is the one log
    of its kind there; one with the log's name in front (`a7_config.yaml`) always does. The `config.json` of a model is
    none. What cannot be read is said in `Run.beside_unread`, as is `training_args.bin`, a pickle that is never opened.

    >>> from parsers.finish import finish
    >>> with_configuration(finish("a", "a.csv", "csv"), Path("no/such/a.csv")).beside
    {}
    """
    if not run.path:
        return run
    folder = where if where.is_dir() else where.parent
    own = folder == where or bool(GENERIC.fullmatch(where.name.split(".")[0])) or _is_alone(where)
    taken = list(_taken(run, folder)) if own else []
    stem = where.name.split(".")[0]
    wanted = [name for name in CONFIGURATIONS if name not in taken and own]
    if folder != where and stem:
        wanted += [stem + end for end in _OWN if stem + end not in (*wanted, *taken, where.name)]
    if not is_local(where):
        there = {child.name for child in children(folder)}
        wanted = [name for name in wanted if name.partition("/")[0] in there]
    found, rejects = load_beside(folder, wanted)
    unread = [f"{Path(reject.file).name}: {reject.reason}" for reject in rejects]
    if own and "training_args.json" not in found and (folder / PICKLE).is_file():
        unread.append(
            f"{PICKLE}: a pickle, which can run code and is never opened; write training_args.to_json_string() to "
            "training_args.json beside the log"
        )
    return _replaced(
        run,
        beside={n: content for n, content in found.items() if content and _MODEL.isdisjoint(content)},
        beside_unread=tuple(unread),
        config_source=_source(run, taken, where),
    )


def _replaced(run: Run, **changed: Any) -> Run:
    """The run with other fields; what was read of it already is not read again."""
    made = replace(run, **changed)
    made.__dict__.update({name: value for name, value in run.__dict__.items() if name not in made.__dict__})
    made.__dict__.pop("planned", None)
    return made


def _taken(run: Run, folder: Path) -> Iterator[str]:
    """Files from which the parser filled `run.config`: of a table's the first that is there, of others all."""
    there = [name for name in _TAKEN.get(run.format, ()) if (folder / name).is_file()]
    return iter(there[:1] if run.format in ("csv", "lightning") else there)


def _source(run: Run, taken: list[str], where: Path) -> str:
    if taken:
        more = run.format == "tensorboard" and len(run.events.filter(run.events["kind"] == "config"))
        return f"{taken[0]} and {_SOURCES[run.format]}" if more else taken[0]
    if run.format == "ablation":
        return where.name if where.suffix == ".json" else f"config_{run.name}.json"
    return _SOURCES.get(run.format.removesuffix("-file"), "configuration of the log")


def _is_alone(where: Path) -> bool:
    """Whether no other file of the log's suffix stands beside it."""
    if not is_local(where):
        return sum(1 for child in children(where.parent) if child.suffix == where.suffix) == 1
    try:
        with os.scandir(where.parent) as found:
            names = [entry.name for entry in islice(found, _MOST + 1)]
    except OSError:
        return False
    return len(names) <= _MOST and sum(1 for name in names if name.endswith(where.suffix)) == 1
