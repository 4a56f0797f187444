"""References to functions of notebook cells, and of modules that run as `python -m`."""

from __future__ import annotations

import linecache
import subprocess
import sys
from pathlib import Path

import pytest

from circinus.specification.code_references import reference_to

CELL = "def scale(x): return helped(x)\n"


def _reference(factor: int) -> str:
    """Return the reference of a function whose cell is constant, with a helper of another cell."""
    cell = "<cell of scale>"
    linecache.cache[cell] = (len(CELL), None, CELL.splitlines(keepends=True), cell)
    namespace = {"__name__": "builtins"}  # a module without a file, as that of a notebook
    exec(f"def helped(x): return x * {factor}", namespace)
    exec(compile(CELL, cell, "exec"), namespace)
    return reference_to(namespace["scale"])


def test_a_helper_of_another_cell_belongs_to_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _reference(2) == _reference(2) != _reference(3)


PROGRAM = """
import circinus.specification.code_references as references
def scale(x): return 2 * x
if __name__ == "__main__":
    reference = references.reference_to(scale)
    print(reference, *references.folders_of([reference]), sep="\\n")
"""


@pytest.mark.parametrize(
    ("file", "command", "reference"),
    [
        ("pkg/tool.py", ("-m", "pkg.tool"), "pkg.tool:scale"),
        ("pkg/__main__.py", ("-m", "pkg"), "pkg.__main__:scale"),
        ("tool.py", ("tool.py",), "tool:scale"),
    ],
)
def test_a_program_is_imported_by_its_own_name(
    file: str, command: tuple[str, ...], reference: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.with_name("__init__.py").touch()
    path.write_text(PROGRAM, encoding="utf-8")
    run = subprocess.run([sys.executable, *command], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert run.stdout.splitlines() == [reference, str(tmp_path.resolve())]
