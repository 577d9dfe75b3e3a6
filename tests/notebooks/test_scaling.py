"""The notebook goes from runs to a report, and its interval holds what is true."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks/scaling.ipynb"


def numbers(pattern, text):
    """What the groups of a pattern hold."""
    match = re.search(pattern, text, re.DOTALL)
    assert match, text
    return [float(group) for group in match.groups()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
def test_the_notebook_predicts_what_is_true(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_RUN", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=240, resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    (true,) = numbers(r"true: +([\d.]+)", printed)
    low, high = numbers(r"calibrated: [\d.]+, ([\d.]+) to ([\d.]+)", printed)
    assert low < true < high
    assert high - low < 0.1 * true
    fitted, best = numbers(r"operations: N = ([\d.e+]+).*by the truth: N = ([\d.e+]+)", printed)
    assert 0.5 < fitted / best < 2
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
