"""The pages on the architecture and on extensions name files and code that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import circinus
from source_trees import source_tree

SOURCE = Path(circinus.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WAY = PAGE.partition("\n## The way of an SLO\n")[2].partition("\n## ")[0]
HOPS = re.findall(r"^\d+\. `(\S+\.py)`: `(\S+)`", WAY, re.MULTILINE)


def _names(path: Path) -> set[str]:
    """Classes and functions of a module, and methods and fields as `Class.name`."""
    names = set()
    for node in source_tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            names |= {f"{node.name}.{part.name}"} if isinstance(part, ast.FunctionDef) else set()
            names |= {f"{node.name}.{part.target.id}"} if isinstance(part, ast.AnnAssign) else set()
    return names


def test_every_hop_names_code_of_its_file() -> None:
    assert 5 < len(HOPS) <= 10
    for file, name in HOPS:
        assert name in _names(SOURCE / file)


def test_every_name_exists() -> None:
    existing = set().union(*(_names(path) for path in SOURCE.rglob("*.py")))
    assert {*re.findall(r"`([A-Za-z_.]+)`", WAY)} - {"queries.yaml"} <= existing


def test_files_to_touch_for_an_extension_exist() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:\w+/)+\w+\.py)`", page)
    assert len(files) > 20
    assert not [file for file in files if not ((SOURCE / file).exists() or (ROOT / file).exists())]
