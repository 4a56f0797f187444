"""Run folders of background engines."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Callable
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


ENTRIES = (
    "circinus-engine.lock",
    "load-test.lock",
    "log",
    "desired.json",
    "desired.json.new",
    "http",
    "http.new",
    "socket",
)


def all_operations(folder: RunDirectory) -> list[Callable[[], object]]:
    def load() -> None:
        with folder.one_load_test():
            pass

    return [
        *(folder.create, folder.connect, folder.try_lock, folder.clear, folder.process, folder.http_address, load),
        *(folder.remove, folder.missing_reason, folder.open_log, folder.log_end),
        *(lambda: folder.save_http_address(("127.0.0.1", 1)), lambda: folder.save_http_address(None)),
    ]


@pytest.mark.parametrize("place", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", ENTRIES)
def test_links_in_the_folder_are_not_followed(folder: RunDirectory, tmp_path: Path, name: str, place: Any) -> None:
    victim = tmp_path / "victim"
    victim.write_text("4711")
    folder.lock.touch()
    (folder.path / name).unlink(missing_ok=True)
    place(folder.path / name, victim)
    for operation in all_operations(folder):
        with raises_code(ServingError, "run_folder.unsafe") as caught:
            operation()
        assert caught.value.location == str(folder.path / name)
        assert caught.value.hint
    assert victim.read_text() == "4711"
    assert victim.stat().st_mode & 0o777 == 0o644


def test_nothing_is_removed_in_place_of_a_folder_that_is_gone(
    folder: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.path.rmdir()
    (tmp_path / "socket").touch()
    monkeypatch.chdir(tmp_path)
    with raises_code(ServingError, "run_folder.removed"):
        folder.listen()
    assert (tmp_path / "socket").exists()


def test_pipe_in_place_of_a_file_is_refused_rather_than_waited_for(folder: RunDirectory) -> None:
    os.mkfifo(folder.log)
    with raises_code(ServingError, "run_folder.unsafe"):
        folder.open_log()


def test_folder_of_another_user_is_not_used(folder: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.lock.write_text("4711")
    before = {path.name: path.stat() for path in folder.path.iterdir()}
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    for operation in all_operations(folder):
        with raises_code(ServingError, "run_folder.foreign"):
            operation()
    assert {path.name: path.stat() for path in folder.path.iterdir()} == before


def test_folder_that_others_may_write_to_is_not_used(folder: RunDirectory) -> None:
    folder.lock.write_text("4711")
    folder.path.chmod(0o770)
    for operation in all_operations(folder):
        with raises_code(ServingError, "run_folder.unsafe"):
            operation()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_entries_and_links_of_another_user_are_refused(folder: RunDirectory, tmp_path: Path) -> None:
    folder.lock.write_text("4711")
    link = tmp_path / "link"
    link.symlink_to(folder.path)
    assert RunDirectory(link).process() == 4711
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with raises_code(ServingError, "run_folder.foreign"):
        RunDirectory(link).process()
    with raises_code(ServingError, "run_folder.foreign"):
        RunDirectory(link / "below").create()
    assert folder.process() == 4711
    os.chown(folder.lock, 65534, 65534)
    with raises_code(ServingError, "run_folder.foreign"):
        folder.process()


def test_what_an_engine_writes_is_its_users_only(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path / "new" / "run")
    mask = os.umask(0)
    try:
        folder.create()
        lock = folder.try_lock()
        assert lock is not None
        with lock, folder.one_load_test(), folder.listen():
            folder.save(chain("q", StageSpec("first", "add")))
            folder.save_http_address(("127.0.0.1", 1))
            os.close(folder.open_log())
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    finally:
        os.umask(mask)
    assert set(modes) == set(ENTRIES) - {"desired.json.new", "http.new"}
    assert set(modes.values()) == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder.path, folder.path.parent)} == {0o700}


def test_what_cannot_be_saved_is_told_with_a_code_and_the_old_file_stays(folder: RunDirectory) -> None:
    folder.save_http_address(("127.0.0.1", 1))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        for address in (("127.0.0.1", 2), None):
            with raises_code(ServingError, "run_folder.unwritable"):
                folder.save_http_address(address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert folder.http_address() == ("127.0.0.1", 1)


def test_a_load_test_on_a_full_disk_is_told_with_a_code(folder: RunDirectory) -> None:
    lock, limits = folder.try_lock(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert lock is not None
    with lock:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with raises_code(ServingError, "run_folder.unwritable"), folder.one_load_test():
                pytest.fail("the lock is held")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with folder.one_load_test():
            assert folder.load_lock.read_text(encoding="utf-8") == str(os.getpid())
