"""The configuration of a run that stands beside its log and that no parser took, and where the parser's is from."""

from __future__ import annotations

import os
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
    stem = "" if folder == where else where.name.split(".")[0]
    there = _names(folder)
    own = not stem or bool(GENERIC.fullmatch(stem)) or _is_alone(where, there)
    taken = _taken(run, folder, stem) if own else []
    wanted = [name for name in CONFIGURATIONS if own and name not in taken]
    wanted += [stem + end for end in _OWN if stem and stem + end not in (*wanted, *taken, where.name)]
    if there is not None:
        wanted = [name for name in wanted if name.partition("/")[0] in there]
    found, rejects = load_beside(folder, wanted)
    unread = [f"{Path(reject.file).name}: {reject.reason}" for reject in rejects]
    pickled = (folder / PICKLE).is_file() if there is None else PICKLE in there
    if own and pickled and "training_args.json" not in found:
        unread.append(
            f"{PICKLE}: a pickle, which can run code and is never opened; write training_args.to_json_string() to "
            "training_args.json beside the log"
        )
    return _replaced(
        run,
        beside={
            **{n: content for n, content in found.items() if content and _MODEL.isdisjoint(content)},
            **run.beside,
        },
        beside_unread=tuple(unread),
        config_source=_source(run, taken, where),
    )


def _replaced(run: Run, **changed: Any) -> Run:
    """The run with other fields; what was read of it already is not read again."""
    made = replace(run, **changed)
    made.__dict__.update({name: value for name, value in run.__dict__.items() if name not in made.__dict__})
    made.__dict__.pop("planned", None)
    return made


def _taken(run: Run, folder: Path, stem: str) -> list[str]:
    """Files from which the parser filled `run.config`: of a table's the first that is there, of others all."""
    table = run.format in ("csv", "lightning")
    if not run.config or (table and not GENERIC.fullmatch(stem)):
        return []
    there = [name for name in _TAKEN.get(run.format, ()) if (folder / name).is_file()]
    return there[:1] if table else there


def _source(run: Run, taken: list[str], where: Path) -> str:
    if taken:
        more = run.format == "tensorboard" and len(run.events.filter(run.events["kind"] == "config"))
        return f"{taken[0]} and {_SOURCES[run.format]}" if more else taken[0]
    if run.format == "ablation":
        return where.name if where.suffix == ".json" else f"config_{run.name}.json"
    return _SOURCES.get(run.format.removesuffix("-file"), "configuration of the log")


def _names(folder: Path) -> set[str] | None:
    """What stands in a folder; None where that is more than is looked through."""
    if not is_local(folder):
        return {child.name for child in children(folder)}
    try:
        with os.scandir(folder) as found:
            names = {entry.name for entry in islice(found, _MOST + 1)}
    except OSError:
        return set()
    return names if len(names) <= _MOST else None


def _is_alone(where: Path, there: set[str] | None) -> bool:
    """Whether no other file of the log's suffix stands beside it."""
    return there is not None and sum(1 for name in there if name.endswith(where.suffix)) == 1
