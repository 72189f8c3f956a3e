"""What stands beside a log: the name of its run, and configuration in YAML or JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import to_utf8
from parsers.content.yamltext import LIMIT, UnreadableYamlError, parse_yaml
from parsers.finish import Reject

__all__ = ["children", "load_beside", "run_name"]

#: File names that say nothing about the run: its folder does.
GENERIC = re.compile(
    r"(metrics|results|progress|monitor|log|logs|history|training(_log)?|train(_log)?|trainer_(state|log)"
    r"|(all|train|eval)_results|scalars|events|output|run)",
    re.IGNORECASE,
)
#: Folder names that say which one but not of what: the folder above does.
NUMBERED = re.compile(r"(version|checkpoint|run|seed|trial|fold|exp)[-_]?\d+|\d+|train|logs?|csv_logs?", re.IGNORECASE)


def run_name(path: Path) -> str:
    """Name of the run whose log is at `path`: the file's stem, or the folder where the file name is a common one.

    A folder that is only numbered gets the folder above in front.

    >>> run_name(Path("runs/a7.csv")), run_name(Path("runs/a7/metrics.csv"))
    ('a7', 'a7')
    >>> run_name(Path("lightning_logs/version_3/metrics.csv"))
    'lightning_logs/version_3'
    """
    stem = path.name.split(".")[0]
    if stem and not GENERIC.fullmatch(stem):
        return stem
    return folder_name(path.parent) or stem or path.name


def folder_name(folder: Path) -> str:
    """Name of a folder as a run.

    >>> folder_name(Path("sweep/seed43")), folder_name(Path("exp-a"))
    ('sweep/seed43', 'exp-a')
    """
    if not folder.name:
        folder = folder.absolute()
    above = folder.parent.name
    return f"{above}/{folder.name}" if above and NUMBERED.fullmatch(folder.name) else folder.name


def children(folder: Path) -> list[Path]:
    """What stands in a folder, by name; nothing where it cannot be listed."""
    try:
        return sorted(folder.iterdir(), key=lambda p: p.name)
    except OSError:
        return []


def load_beside(folder: Path, names: Iterable[str]) -> tuple[dict[str, Mapping[str, Any]], list[Reject]]:
    """File name -> content of those of `names` that stand in `folder` and hold a YAML or JSON object; and the damage.

    >>> load_beside(Path("no/such/folder"), ["hparams.yaml"])
    ({}, [])
    """
    found: dict[str, Mapping[str, Any]] = {}
    rejects: list[Reject] = []
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > LIMIT:
                raise UnreadableYamlError(f"more than {LIMIT:,} bytes, which no configuration has")
            data = to_utf8(path.read_bytes())
            value = parse_line(data)[0] if name.endswith(".json") else parse_yaml(data)
        except OSError as error:
            rejects.append(Reject(str(path), f"cannot be read ({error.strerror})"))
        except (UnreadableError, UnreadableYamlError) as error:
            rejects.append(Reject(str(path), str(error)))
        else:
            if isinstance(value, Mapping):
                found[name] = value
            elif value is not None:
                rejects.append(Reject(str(path), "no object of names and values", text=str(value)))
    return found, rejects
