"""Re-profiled data in the controller's state: restored by the user who wrote it, and never run."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value
from raised import raises_code


class Hostile:
    """Value that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_own_data_is_restored_by_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    profiles: Any = {"words": 1}
    assert ProfileOverrides().document() is None
    text = ProfileOverrides(profiles, data_moved=frozenset({"words"})).document()
    assert text is not None
    assert ProfileOverrides.from_document(text) == ProfileOverrides(profiles, data_moved=frozenset({"words"}))
    hostile: Any = {"words": Hostile(ran)}
    sent = ProfileOverrides(hostile).document()
    assert sent is not None
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    for document in (sent, text, base64.b85encode(pickle_value(Hostile(ran))).decode(), text[:-5], "é", ""):
        with raises_code(ServingError, "control.unreadable_measurements"):
            ProfileOverrides.from_document(document)
    assert not ran.exists()


def test_without_a_key_nothing_is_left_to_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles: Any = {"words": 1}
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert ProfileOverrides(profiles).document() is None
