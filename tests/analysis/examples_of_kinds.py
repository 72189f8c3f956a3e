"""What each kind says of the run in which it is planted, for docs/findings.md.

`python -m tests.analysis.examples_of_kinds && ruff format analysis/kinds` writes `analysis/kinds/examples.py`.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import aftertrain as at
from analysis.checks import CHECKS
from analysis.findings import Finding
from analysis.kinds import examples
from tests.analysis.planted import PLANTED

__all__ = ["found_in", "skeleton", "written"]

_HEAD = '''"""A finding of each kind, with the keys of its evidence: tests/analysis/examples_of_kinds.py writes this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EXAMPLES", "Example"]


@dataclass(frozen=True, slots=True)
class Example:
    """A finding on a run in which its kind was planted: severity, message, and the keys of its evidence in a row."""

    severity: str
    message: str
    evidence: str


EXAMPLES: Mapping[str, Example] = {
'''


def found_in(kind: str, folder: Path) -> Finding:
    """The worst finding of a kind in the run in which it is planted."""
    (check,) = (check.name for check in CHECKS if kind in check.kinds)
    return next(f for f in at.diagnose(PLANTED[kind](folder), checks=[check]).findings if f.kind == kind)


def skeleton(message: str) -> str:
    """A message without its numbers, whose last digits differ from machine to machine."""
    return re.sub(r"-?\d[\d.,]*(?:e[+-]?\d+)?", "#", message)


def written() -> str:
    """The module of examples."""
    entries = []
    for check in CHECKS:
        for kind in check.kinds:
            with tempfile.TemporaryDirectory() as folder:
                found = found_in(kind, Path(folder))
            told = ", ".join([_pieces(found.severity), _pieces(found.message), _pieces(" ".join(found.evidence))])
            entries.append(f"{_pieces(kind)}: Example({told}),\n")
    return f"{_HEAD}{''.join(entries)}}}\n"


def _pieces(text: str) -> str:
    """A string in as many pieces as lines hold."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(f'"{piece}"' for piece in re.findall(r".{1,95}(?:\s|$)", escaped))


if __name__ == "__main__":
    Path(examples.__file__).write_text(written(), encoding="utf-8")
