"""Scenes of `benchmarks serving`: their operators exist under the names in the specification, and so do the options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer
from benchmarks.control import crash_recovery, drift
from benchmarks.workloads import burst_shop, drifting_till, edge_and_cloud

from circinus.cli.app import app


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


@pytest.mark.parametrize("module", [crash_recovery, drift, burst_shop, drifting_till, edge_and_cloud])
def test_the_options_of_the_commands_exist(module: object) -> None:
    commands = [summary.load() for summary in typer.main.get_command(app).commands.values()]  # type: ignore[attr-defined]
    options = {name for command in commands for option in command.params for name in option.opts}
    text = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert set(re.findall(r'"(--[a-z-]+)"', text)) <= options
