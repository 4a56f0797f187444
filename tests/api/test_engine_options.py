"""Options of follow-up commands that name the engine."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from circinus.api.engine_handle import EngineHandle
from circinus.api.load_test import _refuse
from circinus.errors import ServingError
from raised import raises_code


def test_options_name_the_engine_unless_it_is_the_default() -> None:
    assert EngineHandle().options == ""
    handle = EngineHandle(run_dir=Path("my runs/one"))
    assert shlex.split(handle.options) == ["--run-dir", "my runs/one"]
    handle = EngineHandle("ray", address="ray://head:10001")
    assert shlex.split(handle.options) == ["--engine", "ray", "--address", "ray://head:10001"]


@pytest.mark.parametrize(
    ("plan_file", "command"), [(None, ""), (Path("my plan.json"), "circinus apply 'my plan.json'")]
)
def test_a_plan_without_a_file_has_no_command(plan_file: Path | None, command: str, tmp_path: Path) -> None:
    with raises_code(ServingError, "load.another_plan") as caught:
        asyncio.run(_refuse(EngineHandle(run_dir=tmp_path / "run"), plan_file, "replay"))
    assert caught.value.hint
    assert ("circinus" in caught.value.hint) == bool(command)
    assert command in caught.value.hint
