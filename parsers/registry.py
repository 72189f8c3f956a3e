"""The formats that can be read: one entry and one file each, found by what stands in a file rather than by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from eventstream.errors import InputError
from parsers.run import Run

__all__ = ["FORMATS", "Format", "detect", "detect_folder", "formats"]


@dataclass(frozen=True, slots=True)
class Format:
    """One readable format.

    `module` is imported on first use and holds two functions: `sniff(path, head) -> bool`, true when the content is of
    this format (`head` is the first 64 KiB of a file, empty for a folder), and `read(path) -> Run`. `folder` says that
    a whole folder is one run; `patterns` are the file names that people use, for listing and for breaking ties.

    Where one file may hold several runs (a database), the module also has `runs(path) -> list[str]`, their identifiers,
    and its `read` takes one as `name=`; `each` gives one entry for every run, which `run` tells apart.
    """

    name: str
    module: str
    patterns: tuple[str, ...]
    what: str
    folder: bool = False
    run: str | None = None

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the content at `path` is of this format."""
        found: Callable[[Path, bytes], bool] = importlib.import_module(self.module).sniff
        return found(path, head)

    def owned(self, folder: Path) -> set[str] | None:
        """The names in a folder of this format that belong to it, where nothing else is looked for; None for all.

        All belong to it unless the module has a function `owned(folder)`.
        """
        listed: Callable[[Path], set[str]] | None = getattr(importlib.import_module(self.module), "owned", None)
        return None if listed is None else listed(folder)

    def is_part(self, path: Path) -> bool:
        """Whether `path` is read together with another file that stands for the whole (a rotated log)."""
        check: Callable[[Path], bool] | None = getattr(importlib.import_module(self.module), "is_part", None)
        return check is not None and check(path)

    def read(self, path: Path) -> Run:
        """The run at `path`; of several in one file the one that `run` names."""
        reader: Callable[..., Run] = importlib.import_module(self.module).read
        return reader(path) if self.run is None else reader(path, name=self.run)

    def each(self, path: Path) -> list[Format]:
        """One entry for every run in the file at `path`: this format alone, but for files that may hold several."""
        listed: Callable[[Path], list[str]] | None = getattr(importlib.import_module(self.module), "runs", None)
        return [self] if listed is None else [replace(self, run=name) for name in listed(path)]


#: In the order in which they are asked: the most specific first, the generic last.
FORMATS: tuple[Format, ...] = (
    Format("aftertrain", "parsers.event_stream", ("manifest.json",), "aftertrain event stream", folder=True),
    Format(
        "huggingface",
        "parsers.huggingface",
        ("trainer_state.json", "trainer_log.jsonl"),
        "Hugging Face Trainer: trainer_state.json, its checkpoints, LLaMA-Factory's trainer_log.jsonl",
    ),
    Format(
        "huggingface-checkpoints",
        "parsers.huggingface",
        ("checkpoint-*",),
        "Hugging Face Trainer: a folder with its checkpoints",
        folder=True,
    ),
    Format("tensorboard", "parsers.tensorboard", ("*tfevents*",), "TensorBoard event files of one run", folder=True),
    Format("tensorboard-file", "parsers.tensorboard", ("*tfevents*",), "one TensorBoard event file"),
    Format("ablation", "parsers.ablations", ("config_*.json", "logs_*.log"), "ablation folders: config_<name>.json"),
    Format("mlperf", "parsers.mlperf", ("*.log", "*.txt", "*.out"), "MLPerf: :::MLLOG lines inside any text"),
    Format(
        "wandb",
        "parsers.wandb",
        ("run-*", "offline-run-*"),
        "Weights & Biases: a run folder, offline or synced",
        folder=True,
    ),
    Format("wandb-file", "parsers.wandb", ("*.wandb",), "Weights & Biases: the .wandb file of a run"),
    Format("mlflow", "parsers.mlflow", ("meta.yaml",), "MLflow: the folder of a run in mlruns/", folder=True),
    Format("mlflow-db", "parsers.mlflow_db", ("*.db", "*.sqlite", "*.sqlite3"), "MLflow: the runs of an mlflow.db"),
    Format("sacred", "parsers.sacred", ("metrics.json",), "Sacred: the numbered folder of a run", folder=True),
    Format(
        "allennlp",
        "parsers.allennlp",
        ("metrics_epoch_*.json",),
        "AllenNLP: a folder with the metrics of each epoch",
        folder=True,
    ),
    Format("dllogger", "parsers.dllogger", ("*.json", "*.log", "*.txt"), "NVIDIA DLLogger: DLLL {...} lines"),
    Format("numpy-history", "parsers.npy_history", ("*.npy", "*.npz"), "histories in NumPy arrays, SB3 evaluations"),
    Format("parquet", "parsers.parquet", ("*.parquet",), "table of scalars, wide or long, in Parquet"),
    Format("mmlab", "parsers.mmlab", ("*.log.json", "scalars.json", "*.json"), "OpenMMLab: logs of mmcv and mmengine"),
    Format(
        "json-document",
        "parsers.json_documents",
        ("*.json",),
        "one JSON document: nanochat, Keras history, Sacred metrics, the first DLLogger",
    ),
    Format("jsonl", "parsers.jsonl", ("*.jsonl", "*.ndjson", "*.json"), "JSON lines, wide or long"),
    Format("lightning", "parsers.lightning", ("metrics.csv",), "Lightning: metrics.csv with hparams.yaml"),
    Format(
        "stable-baselines",
        "parsers.monitor",
        ("monitor.csv", "*.monitor.csv"),
        "Stable-Baselines Monitor: episodes of an environment",
    ),
    Format(
        "stable-baselines-folder",
        "parsers.monitor",
        ("*.monitor.csv",),
        "Stable-Baselines Monitor: several environments, with progress.csv",
        folder=True,
    ),
    Format("csv", "parsers.csv", ("*.csv", "*.tsv"), "table with a step or epoch: Keras, Ultralytics, any CSV or TSV"),
    Format(
        "contract-dumps",
        "parsers.contract_dumps",
        ("*.log", "*.txt", "*.out"),
        "printed inputs and outputs of a model: Input keys: [...], NOT FOUND, DISABLED, removed labels",
    ),
    Format(
        "debug-blocks",
        "parsers.debug_blocks",
        ("*.log", "*.txt"),
        "[TRAIN DEBUG], [CURRICULUM], [KD LOSS], [ROUTING LOSSES] blocks in a text log",
    ),
    Format(
        "structured-text",
        "parsers.structured_text",
        ("*.log", "*.log.*", "*.txt", "*.out"),
        "[time] [LEVEL] [MODULE] message with indented fields: epoch, batch, files, losses, memory, ETA, samples",
    ),
    Format(
        "text",
        "parsers.text",
        ("*.log", "*.log.*", "*.txt", "*.out", "*.err", "*log"),
        "text logs of Megatron-LM, nanoGPT, llm.c, fairseq, Marian, ESPnet, tqdm and others, or key: value lines",
    ),
)

HEAD = 1 << 16


@cache
def formats() -> tuple[Format, ...]:
    """Every format in the order in which they are asked: those of other packages first.

    >>> "jsonl" in [format.name for format in formats()]
    True
    """
    from parsers.plugins import plugins

    return (*plugins().formats, *FORMATS)


def detect(path: Path, asked: Sequence[Format] | None = None) -> Format | None:
    """The format of the file or folder at `path`, or None when no parser knows it; empty files are nobody's.

    `asked` are the formats that are tried, in their order; all of `formats` by default.
    """
    if path.is_dir():
        return next(iter(detect_folder(path, asked)), None)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    return next((f for f in asked or formats() if not f.folder and f.sniff(path, head)), None)


def detect_folder(folder: Path, asked: Sequence[Format] | None = None) -> list[Format]:
    """The formats of a folder, in the order asked: logs of several kinds may stand in one."""
    return [f for f in asked or formats() if f.folder and f.sniff(folder, b"")]
