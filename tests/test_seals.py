"""Seals: valid for this user, these bytes and this purpose alone, and no key that others may have."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def _of_another_user(key: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(key, 1, -1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: key.chmod(0o640),
        lambda key: key.parent.chmod(0o770),
        lambda key: key.write_bytes(b"short"),
        lambda key: key.write_bytes(b"long" * 20),
        lambda key: (key.unlink(), os.mkfifo(key)),
        lambda key: (key.unlink(), key.mkdir()),
        _in_a_link,
        _of_another_user,
    ],
)
def test_a_key_that_others_may_have_or_that_is_damaged_seals_nothing(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    own = seal("output", b"data")
    damage(key)
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/./state/../state")  # keys are read once
    assert seal("output", b"data") == b""
    assert not is_sealed("output", b"data", own)
    assert not is_sealed("output", b"data", b"")


def test_without_a_place_nothing_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert seal("output", b"data") == b""


def test_a_relative_place_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert key_file() == tmp_path / ".local" / "state" / "circinus" / "key"
