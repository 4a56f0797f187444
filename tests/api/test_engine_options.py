"""Kinds of engines, and the options of follow-up commands that name one."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

import pytest

from circinus.api.defaults import EngineKind, HttpAddress
from circinus.api.engine_handle import EngineHandle
from circinus.api.load_test import _refuse
from circinus.errors import ServingError
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.local.run_dir import RunDirectory
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


@pytest.mark.parametrize(
    ("http", "metrics", "count"),
    [
        (None, None, 0),
        (False, None, 0),
        (("127.0.0.1", 9000), ("localhost", 9090), 0),
        (("::1", 9000), None, 0),
        (("0.0.0.0", 9000), None, 1),
        (("::", 9000), ("10.0.0.5", 9090), 2),
        (False, ("0.0.0.0", 9090), 1),
    ],
)
def test_addresses_that_other_machines_reach_without_a_token_are_warned_of(
    http: HttpAddress, metrics: tuple[str, int] | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = EngineHandle.of("local", tmp_path / "run", http=http)
    warnings = handle.warnings(metrics)
    assert len(warnings) == count
    assert all("--http-tokens" in warning for warning in warnings)
    monkeypatch.setenv("CIRCINUS_HTTP_TOKENS", "* " + "t" * 32)
    assert not handle.warnings(metrics)
    monkeypatch.delenv("CIRCINUS_HTTP_TOKENS")
    folder = RunDirectory(tmp_path / "run")
    folder.create()
    folder.save_http_tokens(HttpTokens.parse("* " + "t" * 32, "test"))
    assert not handle.warnings(metrics), "those of a killed engine"


def test_an_address_of_a_running_engine_is_warned_of_until_tokens_are_given(tmp_path: Path) -> None:
    run_dir, tokens = tmp_path / "run", tmp_path / "tokens"
    tokens.write_text("* " + "t" * 32, encoding="ascii")
    tokens.chmod(0o600)
    try:
        EngineHandle.of("local", run_dir, http=("127.0.0.1", 0)).start()
        folder = RunDirectory(run_dir)
        address = folder.http_address()
        assert address is not None
        folder.save_http_address(("0.0.0.0", address[1]))  # tests listen on no other address
        later = EngineHandle.of("local", run_dir)
        (warning,) = later.warnings()
        assert f"0.0.0.0:{address[1]}" in warning
        EngineHandle.of("local", run_dir, http_tokens=tokens).start()
        assert not later.warnings()
    finally:
        EngineHandle.of("local", run_dir).close()


def test_a_busy_engine_that_accepts_no_clients_is_at_its_address(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path / "run")
    folder.create()
    lock = folder.try_lock()
    assert lock is not None
    folder.save_http_address(("127.0.0.1", 9))
    with lock, folder.listen(), ExitStack() as waiting:
        with suppress(BlockingIOError):
            while connection := folder.connect():
                waiting.enter_context(connection)
        assert EngineHandle.of("local", folder.path).deployed_http()[0] == ("127.0.0.1", 9)
