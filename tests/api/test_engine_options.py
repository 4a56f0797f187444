"""Kinds of engines, and the options of follow-up commands that name one."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import get_args

import pytest

from circinus.api.defaults import EngineKind
from circinus.api.engine_handle import EngineHandle
from circinus.api.load_test import _refuse
from circinus.errors import ServingError
from raised import raises_code


def test_options_name_the_engine_unless_it_is_the_default() -> None:
    assert EngineHandle.of("local").options == ""
    handle = EngineHandle.of("local", Path("my runs/one"))
    assert shlex.split(handle.options) == ["--run-dir", "my runs/one"]
    handle = EngineHandle.of("ray", address="ray://head:10001")
    assert shlex.split(handle.options) == ["--engine", "ray", "--address", "ray://head:10001"]


def test_every_kind_has_a_handle_and_every_engine_a_state_file_of_its_own() -> None:
    handles = [EngineHandle.of(kind) for kind in get_args(EngineKind)]
    assert {type(handle) for handle in handles} == set(EngineHandle.__subclasses__())
    handles += [EngineHandle.of("local", Path("other")), EngineHandle.of("ray", address="ray://head:10001")]
    assert len({handle.state_file for handle in handles}) == len(handles)


@pytest.mark.parametrize(
    ("plan_file", "command"), [(None, ""), (Path("my plan.json"), "circinus apply 'my plan.json'")]
)
def test_a_plan_without_a_file_has_no_command(plan_file: Path | None, command: str, tmp_path: Path) -> None:
    with raises_code(ServingError, "load.another_plan") as caught:
        asyncio.run(_refuse(EngineHandle.of("local", tmp_path / "run"), plan_file, "replay"))
    assert caught.value.hint
    assert ("circinus" in caught.value.hint) == bool(command)
    assert command in caught.value.hint
