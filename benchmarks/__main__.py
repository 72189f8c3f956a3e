"""`python -m benchmarks [NAME...] [--quick] [--write]`: measure, print the table, and with --write keep it in docs/."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Row

#: Each module has `rows(quick: bool) -> list[Row]`.
SUITES = (
    "recording",
    "recording_watch",
    "recording_huggingface",
    "recording_lightning",
    "recording_mirrors",
    "recording_safety",
    "loading",
    "anomalies",
    "diagnosis",
    "embeddings",
    "checkpoints",
    "formats_tensorboard",
    "formats_tables",
    "formats_text",
    "formats_tree",
    "formats_trackers",
    "checkpoints_spectra",
    "checkpoints_series",
)
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def table(rows: list[Row]) -> str:
    head = "| work | ours | alternative | its figure | ratio | goal | met | note |\n|---|---|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {r.work} | {r.ours:.4g} {r.unit} | {r.other_name} | {r.other:.4g} {r.unit} | {r.ratio:.2f} | {r.goal} "
        f"| {'yes' if r.met else '**no**'} | {r.note} |\n"
        for r in rows
    )


def kept_sections() -> dict[str, str]:
    """The tables that the page holds, by suite."""
    parts = PAGE.read_text().split("## ")[1:] if PAGE.exists() else []
    return {part.partition("\n")[0]: f"## {part.strip()}\n" for part in parts}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"suites to run, of {', '.join(SUITES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, not the figures")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    given = parser.parse_args()
    unknown = set(given.names) - set(SUITES)
    if unknown:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
    versions = ", ".join(f"{p} {version(p)}" for p in ("polars", "pandas", "numpy", "numba", "scikit-learn"))
    opening = (
        "# Benchmarks\n\n"
        f"Measured {dt.datetime.now(tz=dt.UTC):%Y-%m-%d} on two cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {versions}. Ours and the alternative run in turn in one process; figures are "
        "medians. `python -m benchmarks --write` makes this page; with the names of suites it renews those.\n"
    )
    sections = kept_sections() if given.names else {}
    rows: list[Row] = []
    for name in given.names or SUITES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found = importlib.import_module(f"benchmarks.{name}").rows(given.quick)
        rows += found
        sections[name] = f"## {name}\n\n{table(found)}"
        print(sections[name], flush=True)
    if given.write:
        PAGE.write_text("\n".join([opening, *(sections[name] for name in SUITES if name in sections)]))
    return 0 if given.quick or all(r.met for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
