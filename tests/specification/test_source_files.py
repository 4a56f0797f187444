"""Reading of files that users name."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from circinus.specification.source_files import UnusableFileError, read_regular


def test_reading_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "small", 2**30) == b"small"
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_file_of_several_parts_is_read_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 2**13
    (tmp_path / "large").write_bytes(content)
    assert read_regular(tmp_path / "large", len(content)) == content
    # The file grows after its size was checked.
    monkeypatch.setattr("circinus.specification.source_files.require_regular", lambda *_: None)
    with pytest.raises(UnusableFileError):
        read_regular(tmp_path / "large", len(content) - 1)
