"""Where a background engine is found."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from circinus.errors import ServingError
from circinus.serving.conformance_states import Step, chain
from circinus.serving.local.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    found.create()
    return found


def test_folder_is_closed_to_others(folder: RunFolder) -> None:
    assert folder.path.stat().st_mode & 0o077 == 0
    with folder.listen():
        assert folder.address.stat().st_mode & 0o077 == 0


def test_one_lock_for_one_engine(folder: RunFolder) -> None:
    lock = folder.try_lock()
    assert lock is not None
    assert folder.try_lock() is None
    lock.close()
    again = folder.try_lock()
    assert again is not None
    again.close()


def test_lock_of_a_folder_that_was_removed_is_worth_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ends removes its lock; who waited for that very file must not believe to hold the folder."""
    real_open = Path.open

    def open_then_lose(path: Path, *args: object, **kwargs: object) -> object:
        file = real_open(path, *args, **kwargs)  # type: ignore[call-overload]
        folder.lock.unlink()
        return file

    monkeypatch.setattr(Path, "open", open_then_lose)
    assert folder.try_lock() is None


@pytest.mark.parametrize("length", [1, 60, 240])
def test_sockets_are_reached_whatever_the_length_of_their_path(tmp_path: Path, length: int) -> None:
    folder = RunFolder(tmp_path / ("d" * length))
    folder.create()
    assert folder.connect() is None
    with folder.listen() as listener:
        connection = folder.connect()
        assert connection is not None
        with connection:
            accepted, _ = listener.accept()
            accepted.close()
    assert folder.connect() is None  # the file is still there, and nobody listens
    with folder.listen():  # it does not stand in the way
        pass


def test_clearing_waits_for_an_engine_that_is_about_to_end(folder: RunFolder) -> None:
    lock = folder.try_lock()
    assert lock is not None
    timer = threading.Timer(0.1, lock.close)
    timer.start()
    folder.clear()
    assert not folder.path.exists()
    timer.join()


def test_clearing_nothing_is_no_fault(tmp_path: Path) -> None:
    RunFolder(tmp_path / "none").clear()


def test_living_engine_is_not_cleared_away(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circinus.serving.local.run_folder._END_S", 0.1)
    lock = folder.try_lock()
    assert lock is not None
    with lock, pytest.raises(ServingError, match="lives and does not answer"):
        folder.clear()
    assert folder.path.exists()


def test_absence_says_what_was_lost(folder: RunFolder) -> None:
    assert "no engine runs" in str(folder.absence())
    folder.lock.write_text("4711")
    folder.save(chain("q", Step("first", "add")))
    assert "process 4711) was killed" in str(folder.absence())
    assert "1 deployments for the queries q" in str(folder.absence())
    folder.desired.write_text("half a docu")
    assert "process 4711) was killed" in str(folder.absence())
