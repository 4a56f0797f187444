"""Scenes that copy an operator module: the module and its functions exist under the names in the specification."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from benchmarks.workloads import burst_shop, drifting_till, edge_and_cloud


@pytest.mark.parametrize("scene", [burst_shop, drifting_till, edge_and_cloud], ids=lambda scene: scene.__name__)
def test_the_operators_of_a_scene_exist(scene: object) -> None:
    file = Path(str(scene.__file__))  # type: ignore[attr-defined]
    text = file.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\w+):(\w+)", text)
    assert uses
    for module, name in uses:
        operators = file.with_name(f"{module}.py")
        assert f'"{operators.name}"' in text
        tree = ast.parse(operators.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
