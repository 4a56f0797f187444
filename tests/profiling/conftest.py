"""The sample application, written afresh for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_application import SOURCES, Application


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second would share their bytecode
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SAMPLE_LOG", str(tmp_path / "calls.log"))
    found = Application(tmp_path)
    for module, source in SOURCES.items():
        found.write(module, source)
    yield found
    found.forget()
