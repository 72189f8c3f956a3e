"""`metrics.csv` of Lightning's CSVLogger with `hparams.yaml` beside it; one run a `version_N` folder."""

from __future__ import annotations

from pathlib import Path

from parsers.content.table_text import find_dialect
from parsers.csv import read_as
from parsers.run import Run

__all__ = ["read", "sniff"]

HPARAMS = "hparams.yaml"


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is the table of a CSVLogger: commas, a column `step`, and its name or its neighbour say so."""
    if path.name != "metrics.csv" and not (path.suffix == ".csv" and (path.parent / HPARAMS).is_file()):
        return False
    dialect = find_dialect(head)
    return dialect is not None and dialect.separator == "," and "step" in dialect.names


def read(path: Path) -> Run:
    r"""The run of a CSVLogger: every cell of `metrics.csv` that holds a number, `hparams.yaml` as `run.config`.

    A row holds what was logged together (a learning rate, a training step, a whole evaluation), so most cells are
    empty; these are missing values and make no row. Hyper-parameters that name Python objects are kept as text and
    never executed. The name is that of the folder; a `version_N` has the folder above in front.
    Source: CSVLogger in the documentation of Lightning.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "metrics.csv")
    ...     _ = path.write_text("epoch,step,train_loss,val_loss\n0,9,2.5,\n0,9,,2.25\n")
    ...     _ = Path(folder, "hparams.yaml").write_text("lr: 0.1")
    ...     run = read(path)
    >>> run.config, run.scalars.select("step", "split", "metric", "value").rows()
    ({'lr': 0.1}, [(9, 'train', 'loss', 2.5), (9, 'eval', 'loss', 2.25)])
    """
    return read_as(path, "lightning", (HPARAMS,))
