"""The notebook runs as it stands, with `import circinus as c` alone."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from budget import HANG_LIMIT_S

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "from_python.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('duration="5s", warm_up="1s"', 'duration="1s", warm_up="0s"')
    NotebookClient(notebook, timeout=HANG_LIMIT_S, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
