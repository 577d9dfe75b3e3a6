"""The notebook runs from its first cell to its last, at a small size."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks/quickstart.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
def test_the_notebook_trains_and_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STEPS", "3")
    monkeypatch.setenv("NOTEBOOK_RUN", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=240, resources=where).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "124,337,664 parameters" in printed  # GPT-2 small, counted by the last cell
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
