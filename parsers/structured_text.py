"""Logs of `[time] [LEVEL] [MODULE] message` with indented fields: epoch, batch, files, losses, memory, ETA, samples.

[2025-07-09 14:30:25.123] [INFO] [enhanced_logger] Training progress
  - Epoch: 5/100, Batch: 25/50
  - Files processed: 800 (300 augmented)
  - Losses: {recon: 0.45, kl: 0.12, adv: 0.08}
  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB
  - ETA: 2h 15min
  - Samples saved: path/to/sample.mid
"""

from __future__ import annotations

import re
from pathlib import Path

from parsers.content.lines import to_utf8
from parsers.places.rotation import is_later_part, part_before
from parsers.run import Run
from parsers.text import read_parts
from parsers.text_logs.dialect import COMMAS, INTEGER, NUMBER, TIME, Dialect, Pattern

__all__ = ["STRUCTURED", "is_part", "read", "sniff"]

#: A part shorter than this may hold no whole record of its own yet.
_BEGUN = 4096
_N, _I, _C = NUMBER, INTEGER, COMMAS
_HEADER = rf"^\[(?P<time>{TIME})\] \[[A-Za-z]+\] \[[^\]]*\]"
_FIELD = r"^[ \t]+[-*] "
_SNIFF_HEADER = re.compile(
    r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?\] \[[A-Z]+\] \[[^\]\n]{1,80}\]", re.MULTILINE
)
_SNIFF_FIELD = re.compile(
    r"^[ \t]+[-*] (?:Epoch: \d+/[\d?]|Files processed: \d|Losses: \{|Memory: (?:GPU|RAM:) \d)", re.MULTILINE
)

STRUCTURED = Dialect(
    "structured",
    "[time] [LEVEL] [MODULE] message with indented fields",
    (
        Pattern(
            "] [",
            rf"^\[(?P<time>{TIME})\] \[(?P<level>WARN(?:ING)?|ERROR|CRITICAL|FATAL)\] "
            r"\[(?P<module>[^\]]*)\] *(?P<text>.*)$",
            event="note",
        ),
        Pattern("] [", _HEADER),
        # Where nobody knows how many there are stands `?`; the batch is then counted over the whole run.
        Pattern(
            "Epoch: ",
            rf"{_FIELD}Epoch: (?P<epoch>{_I})/(?:{_I}|\?)(?:, Batch: (?P<step>{_I})/(?P<total>{_I}|\?))?$",
        ),
        Pattern(
            "Files processed: ",
            rf"{_FIELD}Files processed: (?P<files>{_C})(?: \((?P<augmented>{_C}) augmented\)| )?$",
        ),
        Pattern("Losses: ", rf"{_FIELD}Losses: \{{(?P<pairs>.*)\}}$", "colon", prefix="losses/"),
        Pattern(
            "Memory: ",
            rf"{_FIELD}Memory: GPU (?P<gpu_used>{_N})GB/(?P<gpu_total>{_N})GB(?:, RAM: (?P<ram>{_N})GB)?$",
        ),
        Pattern("Memory: RAM: ", rf"{_FIELD}Memory: RAM: (?P<ram>{_N})GB$"),
        Pattern(
            "ETA: ",
            rf"{_FIELD}ETA: (?:(?P<eta__d>{_I})d)? ?(?:(?P<eta__h>{_I})h)? ?(?:(?P<eta__min>{_I})m(?:in)?)? ?"
            rf"(?:(?P<eta__s>{_I})s)?$",
        ),
        Pattern("Samples saved: ", rf"{_FIELD}Samples saved: (?P<files>.+)$", event="samples"),
        # Names that are not plain words stand in quotes.
        Pattern('": ', rf'{_FIELD}"(?P<key>[^"]*)": (?P<value>{_C})$', opening=rf'{_FIELD}"[^"]*": [-+0-9]'),
        Pattern(
            ": ",
            rf"{_FIELD}(?P<key>[A-Za-z][A-Za-z0-9 _./-]*): (?P<value>{_C}) ?(?:%|[A-Za-z][A-Za-z/]*)?$",
            opening=rf"{_FIELD}(?:Epoch: [0-9]|Files processed: [0-9]|Losses: \{{\w+: [-+0-9.n]|"
            "Memory: GPU [0-9]|ETA: [0-9])",
        ),
    ),
    names={
        "files": "data/files",
        "augmented": "data/augmented",
        "gpu_used": "resources/gpu_memory_gb",
        "gpu_total": "resources/gpu_memory_total_gb",
        "ram": "resources/ram_gb",
        "eta": "resources/eta_s",
    },
    carry=("step", "epoch", "time"),
)


def sniff(path: Path, head: bytes) -> bool:
    """Whether a header `[time] [LEVEL] [MODULE]` and an indented field of the format stand in `head`, or in the part
    before where this one has just begun."""
    return _fits(head) or (len(head) < _BEGUN and path.is_file() and _fits(part_before(path, 1 << 16)))


def _fits(head: bytes) -> bool:
    text = to_utf8(head).decode("utf-8", "replace").replace("\r\n", "\n")
    return _SNIFF_HEADER.search(text) is not None and _SNIFF_FIELD.search(text) is not None


def is_part(path: Path) -> bool:
    """Whether `path` is a rotated part of another log here, which is read with it."""
    return is_later_part(path)


def read(path: Path) -> Run:
    r"""The run in a structured log and its rotated parts (`train.log.5.gz` to `train.log.1`, then `train.log`).

    The step is (epoch - 1) x batches + batch, over all epochs (epoch x batches + batch where epochs begin with 0);
    where the batches of an epoch are unknown (`Batch: 225/?`) it is the batch as it stands;
    fields carry the time of the header above them and the step of the last epoch line. Tags follow the event stream:
    `losses/{name}`, `data/files`, `data/augmented`, `resources/gpu_memory_gb`, `resources/ram_gb` ...; the ETA is in
    seconds. Saved samples are events of kind `samples`; messages at the level of a warning or above are events of
    kind `note`. A field that is cut is a reject. Raises `InputError` when the file cannot be opened.

    >>> import tempfile
    >>> text = "[2025-07-09 14:30:25.123] [INFO] [log] Go\n  - Epoch: 2/9, Batch: 5/50\n  - Losses: {recon: 0.45}\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "train.log")
    ...     _ = path.write_text(text)
    ...     run = read(path)
    >>> run.scalars.select("step", "epoch", "tag", "value").rows()
    [(55, 2.0, 'losses/recon', 0.45)]
    """
    return read_parts(path, (STRUCTURED,), "structured-text")
