"""The structure shows the flow: imports go one way only, files stay small, heavy parts are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import circinus

SOURCE = Path(circinus.__file__).parent
FLOW = (
    "errors", "spec", "operators", "profiling", "queueing", "estimation", "simulation", "planning", "matching",
    "serving", "control", "reporting", "web", "cli",
)  # fmt: skip
HEAVY = {"highspy", "ray", "PIL", "faster_whisper", "ctranslate2", "onnxruntime", "scipy", "sklearn", "matplotlib"}


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def _files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if "starter" not in path.parts]


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_folder_imports_only_folders_before_it(path: Path) -> None:
    folder = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if folder in ("__init__", "__main__"):
        return
    for name in _imports(path):
        if name.startswith("circinus."):
            imported = name.split(".")[1]
            assert FLOW.index(imported) <= FLOW.index(folder), f"{path} imports {name}, which stands behind it"


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_is_too_long_to_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_help_imports_nothing_heavy() -> None:
    """Speed itself is not asserted; what makes it slow is."""
    code = (
        "import sys\nsys.argv = ['circinus', '--help']\nfrom circinus.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('LOADED', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.rpartition("LOADED")[2].split())
    assert not loaded & (HEAVY | {"numpy", "pydantic", "ruamel.yaml"})
