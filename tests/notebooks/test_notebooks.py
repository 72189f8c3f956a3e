"""The notebooks run from top to bottom on the committed samples, and are committed without output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_the_stories_are_there():
    names = [path.stem for path in NOTEBOOKS]
    told = {"01_first_look", "02_curriculum", "03_speaker_embeddings", "04_contracts", "05_checkpoints"}
    assert told <= set(names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_to_its_end(path: Path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    drawn = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    drawn = [data for data in drawn if data.get("text/plain", "").startswith(("<Figure", "<Axes", "<Shown"))]
    wanted = sum(".plot(" in cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert len(drawn) >= wanted and all("image/png" in data for data in drawn), (
        "a figure is a picture, and not its name"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_is_committed_without_output(path: Path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)
