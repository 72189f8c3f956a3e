"""The README beside each sample: how it was made, with what, and what there is to find."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["write_readme"]

_LIBRARIES = ("torch", "numpy", "scikit-learn")


def write_readme(
    folder: Path,
    name: str,
    *,
    what: str,
    find: str,
    kinds: Sequence[str],
    seed: int,
    outcome: str,
    seconds: float,
    cpu_seconds: float,
    extra_version: str | None,
) -> None:
    """Writes `folder`/README.md."""
    versions = [f"Python {platform.python_version()}", *(f"{library} {version(library)}" for library in _LIBRARIES)]
    if extra_version:
        versions.append(extra_version)
    planted = ", ".join(f"`{kind}`" for kind in kinds) or "none, this run is healthy"
    rows = [
        ("command", f"`python -m data.training {name}`"),
        ("seed", str(seed)),
        ("versions", ", ".join(versions)),
        ("duration", f"{cpu_seconds:.0f} s of one core ({seconds:.0f} s by the clock), preparation included"),
        ("outcome", outcome),
        ("kinds to find", planted),
    ]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    text = f"# {name}\n\n{what}\n\n| | |\n|---|---|\n{table}\n\n## What to find\n\n{find}\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
