"""Seals: valid for this user, these bytes and this purpose alone, and no key that others may have."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circinus.seals import SEAL_BYTES, is_sealed, key_file, seal


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user without a key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "circinus" / "key"


def test_a_seal_is_valid_for_its_bytes_purpose_and_user(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = seal("output", b"data")
    assert len(own) == SEAL_BYTES
    assert is_sealed("output", b"data", own)
    assert not is_sealed("output", b"Data", own)
    assert not is_sealed("plan", b"data", own)
    assert not is_sealed("outp", b"ut\0data", own)
    assert not any(is_sealed("output", b"data", found) for found in (None, b"", own[:-1], own + b"\0"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not is_sealed("output", b"data", own)


def test_the_key_is_private_and_stays(key: Path) -> None:
    own = seal("output", b"data")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert [path.name for path in key.parent.iterdir()] == ["key"]
    assert _in_processes(1) == [own.hex()]


def test_processes_that_need_the_first_key_at_once_share_one(key: Path) -> None:
    assert set(_in_processes(4)) == {seal("output", b"data").hex()}


def _in_processes(count: int) -> list[str]:
    program = "from circinus.seals import seal; print(seal('output', b'data').hex())"
    command = [sys.executable, "-c", program]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [process.communicate()[0].strip() for process in processes]


def _in_a_link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to(key.with_name("elsewhere"))


def _of_another_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 1, -1)


def _in_a_folder_that_is_gone(key: Path) -> None:
    key.unlink()
    key.parent.rmdir()
    key.parent.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda key: key.chmod(0o640), "seal.unsafe"),
        (lambda key: key.parent.chmod(0o770), "seal.unsafe"),
        (lambda key: key.write_bytes(b"short"), "seal.damaged"),
        (lambda key: key.write_bytes(b"long" * 20), "seal.damaged"),
        (lambda key: (key.unlink(), os.mkfifo(key)), "seal.unsafe"),
        (lambda key: (key.unlink(), key.mkdir()), "seal.unsafe"),
        (_in_a_link, "seal.unsafe"),
        (_in_a_folder_that_is_gone, "seal.no_key"),
        (_of_another_user, "seal.foreign"),
        (lambda key: _of_another_user(key.parent), "seal.foreign"),
    ],
)
def test_a_key_that_others_may_have_or_that_is_damaged_seals_nothing(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], code: str
) -> None:
    own = seal("output", b"data")
    damage(key)
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/./state/../state")  # keys are read once
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert seal("output", b"data") == b""
        assert not is_sealed("output", b"data", own)
        assert not is_sealed("output", b"data", b"")
    assert [f"({code})" in str(warning.message) for warning in caught] == [True]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_key_needs_no_locks(key: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    own = seal("output", b"data")
    assert _in_processes(1) == [own.hex()]


def test_without_locks_the_key_of_another_process_counts(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: key.write_bytes(bytes(32)))  # it writes at once
    own = seal("output", b"data")
    assert _in_processes(1) == [own.hex()]


def test_an_empty_file_of_a_killed_process_gets_a_key(key: Path) -> None:
    key.parent.mkdir(mode=0o700, parents=True)
    key.touch(mode=0o600)
    assert is_sealed("output", b"data", seal("output", b"data"))


def test_a_key_on_a_disk_that_cannot_be_written_is_read(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = seal("output", b"data")
    elsewhere = key.parent.with_name("read-only")
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "circinus").symlink_to(key.parent)
    monkeypatch.setenv("XDG_STATE_HOME", str(elsewhere))
    os_open = os.open

    def open_to_read(path: object, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return os_open(path, flags, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_to_read)
    assert is_sealed("output", b"data", own)


def test_a_key_with_two_names_is_not_lost(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = seal("output", b"data")
    os.link(key, tmp_path / "backup")
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/./state/../state")  # keys are read once
    with pytest.warns(UserWarning, match=r"seal\.unsafe") as caught:
        assert not is_sealed("output", b"data", own)
    (command,) = re.findall("`(cp [^`]+)`", str(caught[0].message))
    subprocess.run(command, shell=True, check=True)
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state/../state/../state")
    assert is_sealed("output", b"data", own)


def test_a_relative_place_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_file() == tmp_path / ".local" / "state" / "circinus" / "key"
