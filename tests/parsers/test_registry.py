"""The registry, the page made of it, and formats that other packages bring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstream.errors import InputError
from parsers.formats_page import page
from parsers.loading import load, load_all
from parsers.plugins import plugins
from parsers.registry import FORMATS, formats
from parsers.tree import _patterns

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
GOOD = """
import polars as pl
from parsers.finish import finish
from parsers.registry import Format

FORMAT = Format("dots", "dots_format", ("*.dots",), "one dot a step")
BAD_OBJECT = "not a format"
FAILING = Format("failing", "dots_failing", ("*.dots", "*.fail"), "always fails")

def sniff(path, head):
    return head.startswith(b"DOTS")

def read(path):
    count = path.read_bytes().count(b".")
    rows = pl.DataFrame({"tag": ["loss"] * count, "step": range(count), "value": [1.0] * count})
    return finish(path.stem, str(path), "dots", rows)
"""
FAILING = """
def sniff(path, head):
    if head.startswith(b"FAIL"):
        return True
    raise RuntimeError("sniffing fails")

def read(path):
    raise KeyError("reading fails")
"""


def forget() -> None:
    for cached in (plugins, formats, _patterns):
        cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution on the path that registers a good format and three broken ones."""
    site = tmp_path / "site"
    info = site / "dots-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "dots_format.py").write_text(GOOD)
    (site / "dots_failing.py").write_text(FAILING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dots\nVersion: 1.0\n")
    entries = ["a = dots_format:FORMAT", "b = dots_missing:FORMAT", "c = dots_format:BAD_OBJECT"]
    entries.append("d = dots_format:FAILING")
    (info / "entry_points.txt").write_text("[aftertrain.formats]\n" + "\n".join(entries) + "\n")
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield tmp_path
    forget()
    for name in ("dots_format", "dots_failing"):
        sys.modules.pop(name, None)


def test_the_page_of_formats_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m parsers.formats_page docs/formats.md"


def test_every_format_has_its_own_name_a_pattern_and_words() -> None:
    assert len({f.name for f in FORMATS}) == len(FORMATS)
    assert all(f.patterns and f.what for f in FORMATS)


def test_a_format_of_another_package_is_read_and_broken_ones_stop_nothing(package: Path) -> None:
    runs = package / "runs"
    runs.mkdir()
    (runs / "a.dots").write_bytes(b"DOTS.....")
    (runs / "b.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    found = load_all(runs)
    assert [(run.name, run.format, run.scalars.height) for run in found] == [("a", "dots", 5), ("b", "jsonl", 2)]
    told = dict(found.unread)
    assert told["format 'b' of dots"].startswith("cannot be loaded (ModuleNotFoundError")
    assert told["format 'c' of dots"] == "dots_format:BAD_OBJECT is a str, not a parsers.registry.Format"
    assert told["format 'failing' (dots_failing)"] == "fails to look at files (RuntimeError: sniffing fails)"


def test_a_foreign_reader_that_raises_is_an_error_of_the_input(package: Path) -> None:
    (package / "x.fail").write_bytes(b"FAIL")
    with pytest.raises(InputError, match=r"format 'failing' \(dots_failing\) fails \(KeyError"):
        load(package / "x.fail")
