"""Run folders of background engines."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circinus.errors import ServingError
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain
from golden import check_message
from raised import raises_code


@pytest.fixture
def folder(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.create()
    return found


def test_folder_is_closed_to_others(folder: RunDirectory) -> None:
    assert folder.path.stat().st_mode & 0o077 == 0
    with folder.listen():
        assert folder.address.stat().st_mode & 0o077 == 0


def test_one_lock_for_one_engine(folder: RunDirectory) -> None:
    lock = folder.try_lock()
    assert lock is not None
    assert folder.try_lock() is None
    lock.close()
    again = folder.try_lock()
    assert again is not None
    again.close()


def test_one_load_test_at_a_time(folder: RunDirectory) -> None:
    folder.lock.touch()
    with folder.one_load_test():
        with raises_code(ServingError, "load.already_running") as caught, folder.one_load_test():
            pass
        assert str(os.getpid()) in caught.value.message
        folder.load_lock.write_text("")  # as before the holder writes its process id
        with raises_code(ServingError, "load.already_running") as caught, folder.one_load_test():
            pass
        assert "kill" not in str(caught.value.hint)
    with folder.one_load_test():
        pass


def test_no_load_test_of_an_engine_that_ended(folder: RunDirectory) -> None:
    with raises_code(ServingError, "engine.not_running"), folder.one_load_test():
        pass
    folder.create()  # the load test's lock keeps no engine from the folder
    folder.remove()
    with raises_code(ServingError, "engine.not_running"), folder.one_load_test():
        pass


def test_lock_of_a_folder_that_was_removed_is_worth_nothing(
    folder: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ending engine removes its lock file; a process that waited for that file must not own the folder."""
    real_flock = fcntl.flock

    def lose_then_lock(*arguments: Any) -> None:
        folder.lock.unlink()
        real_flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", lose_then_lock)
    assert folder.try_lock() is None


@pytest.mark.parametrize("length", [1, 60, 240])
def test_sockets_are_reached_whatever_the_length_of_their_path(tmp_path: Path, length: int) -> None:
    folder = RunDirectory(tmp_path / ("d" * length))
    folder.create()
    assert folder.connect() is None
    lock = folder.try_lock()
    assert lock is not None
    with lock, folder.listen() as listener:
        connection = folder.connect()
        assert connection is not None
        with connection:
            accepted, _ = listener.accept()
            accepted.close()
    assert folder.connect() is None  # the file is still there, and nobody listens
    with folder.listen():  # it does not stand in the way
        pass


@pytest.mark.parametrize("leaves_files", [False, True])
def test_clearing_waits_for_an_engine_that_is_about_to_end(
    folder: RunDirectory, monkeypatch: pytest.MonkeyPatch, leaves_files: bool
) -> None:
    lock = folder.try_lock()
    assert lock is not None
    waits = iter([lambda: None, lock.close if leaves_files else folder.remove])
    monkeypatch.setattr("circinus.serving.local.run_dir.time.sleep", lambda seconds: next(waits)())
    assert folder.clear()
    assert not folder.path.exists()
    assert next(waits, None) is None


def test_clearing_nothing_is_no_fault(tmp_path: Path) -> None:
    assert not RunDirectory(tmp_path / "none").clear()


NAMES = ("log", "lock", "desired.json", "notes")


def test_folder_of_somebody_else_is_neither_taken_nor_cleared(tmp_path: Path) -> None:
    mine = RunDirectory(tmp_path / "mine")
    mine.path.mkdir(mode=0o755)
    for name in NAMES:
        (mine.path / name).write_text("precious")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(mine.address))
        listener.listen()
        with raises_code(ServingError, "run_folder.not_empty") as caught:
            mine.create()
        assert caught.value.location == str(mine.path)
        assert "desired.json" in caught.value.message
        assert mine.connect() is None
        assert not mine.clear()
    assert {file.name for file in mine.path.iterdir()} == {*NAMES, "socket"}
    assert [(mine.path / name).read_text() for name in NAMES] == ["precious"] * len(NAMES)
    assert mine.path.stat().st_mode & 0o777 == 0o755


def test_empty_folder_is_taken_with_the_rights_it_has(tmp_path: Path) -> None:
    given = RunDirectory(tmp_path / "given")
    given.path.mkdir()
    given.path.chmod(0o750)
    given.create()
    assert given.path.stat().st_mode & 0o777 == 0o750
    lock = given.try_lock()
    assert lock is not None
    with lock:
        given.log.write_text("what an engine printed")
    given.create()  # it is an engine's now
    assert given.clear()


def test_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = RunDirectory(tmp_path / "shared")
    shared.path.mkdir()
    shared.path.chmod(0o1777)
    with raises_code(ServingError, "run_folder.unsafe"):
        shared.create()
    assert shared.path.stat().st_mode & 0o7777 == 0o1777


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with raises_code(ServingError, "run_folder.not_a_folder"):
        RunDirectory(tmp_path / "file").create()
    assert not RunDirectory(tmp_path / "file").clear()


def test_living_engine_is_not_cleared_away(folder: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circinus.serving.local.run_dir.SERVING", replace(SERVING, daemon_clear_timeout_s=0.1))
    lock = folder.try_lock()
    assert lock is not None
    with lock, raises_code(ServingError, "engine.silent"):
        folder.clear()
    assert folder.path.exists()


def test_absence_says_what_was_lost(folder: RunDirectory) -> None:
    absent = folder.missing_reason()
    assert (absent.code, absent.location) == ("engine.not_running", str(folder.path))
    check_message("serving/engine_not_running", f"{absent.message}. {absent.hint}")
    folder.lock.write_text("4711")
    folder.save(chain("q", StageSpec("first", "add")))
    killed = folder.missing_reason()
    assert (killed.code, killed.location) == ("engine.killed", str(folder.path))
    check_message("serving/engine_killed", f"{killed.message}. {killed.hint}")
    folder.desired.write_text("half a docu")
    assert folder.missing_reason().code == "engine.killed"
    assert "process 4711" in str(folder.missing_reason())
