"""Recorded outputs: of this user as they are, of others as data, or after trust; nothing of them runs."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sample_application import Application

from circinus.errors import ProfileError
from circinus.operators.pickling import pickle_value
from circinus.profiling import load_recordings, record_for_replay
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.stored_outputs import trust_outputs, write_outputs
from circinus.seals import is_sealed
from circinus.specification import Configuration
from raised import raises_code

pytestmark = pytest.mark.usefixtures("inline_replicas")


class Hostile:
    """Value that creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def recorded(application: Application) -> Configuration:
    configuration = application.configurations[0]
    record_for_replay(
        application.specification, "sample", application.store, configurations=[configuration], items_count=5
    )
    return configuration


def _outputs(application: Application, configuration: Configuration) -> dict[str, Any]:
    recordings = load_recordings(application.store, "sample", [configuration])
    return {item: recordings.output(configuration, item) for item in recordings.items}


def _replace(store: Path, payload: bytes) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE output SET packed = ?", [payload])
        connection.execute("DELETE FROM checksum")  # as a careful sender does
    connection.close()


def test_plain_outputs_of_others_are_read(
    application: Application, recorded: Configuration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = _outputs(application, recorded)
    assert len(own) == 5
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert _outputs(application, recorded) == own


def test_code_in_a_store_does_not_run_without_trust(application: Application, recorded: Configuration) -> None:
    ran = application.folder / "ran"
    _replace(application.store, pickle_value([1, Hostile(ran)]))
    with raises_code(ProfileError, "store.untrusted_values") as caught:
        _outputs(application, recorded)
    assert caught.value.location == str(application.store)
    assert "posix.mkdir" in caught.value.message
    assert not ran.exists()
    trust_outputs(application.store)
    recordings = load_recordings(application.store, "sample", [recorded])
    assert not ran.exists()
    recordings.output(recorded, recordings.items[0])
    assert ran.exists()


def test_own_outputs_of_any_type_are_read_by_this_user_alone(
    application: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    application.edit("sample_second", "    return (key, x)", "    return (Joined(key), x)")
    application.edit(
        "sample_second", "@operator\ndef joined", "class Joined(str):\n    __slots__ = ()\n\n@operator\ndef joined"
    )
    configuration = application.configurations[0]
    record_for_replay(
        application.specification, "sample", application.store, configurations=[configuration], items_count=5
    )
    own = _outputs(application, configuration)
    assert {type(value[0]).__name__ for value in own.values()} == {"Joined"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with raises_code(ProfileError, "store.untrusted_values") as caught:
        _outputs(application, configuration)
    assert "sample_second.Joined" in caught.value.message
    trust_outputs(application.store)
    assert _outputs(application, configuration) == own


def test_without_a_key_nothing_can_be_trusted(
    application: Application, recorded: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(application.store))
    with raises_code(ProfileError, "store.no_key"):
        trust_outputs(application.store)


def test_an_output_that_is_no_payload_is_told(application: Application, recorded: Configuration) -> None:
    with sqlite3.connect(application.store) as connection:
        connection.execute("UPDATE output SET packed = 'text'")
    connection.close()
    with raises_code(ProfileError, "store.damaged"):
        _outputs(application, recorded)
    with raises_code(ProfileError, "store.damaged"):
        trust_outputs(application.store)


def test_outputs_that_this_user_records_again_get_its_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, items = tmp_path / "store", [1, 2]
    with ProfileStore(path, create=True) as store, store.transaction():
        write_outputs(store, 7, items, [b"one", b"two"])
        write_outputs(store, 7, items, [b"another", b"two"])
        assert store.rows("SELECT packed FROM output ORDER BY item") == [(b"one",), (b"two",)], "the first is retained"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with ProfileStore(path) as store, store.transaction():
        write_outputs(store, 7, items, [b"one", b"other"])
        found = store.rows("SELECT packed, seal FROM output ORDER BY item")
    assert [data for data, _ in found] == [b"one", b"other"]
    assert all(is_sealed("output", data, own) for data, own in found)
    ProfileStore(path).close()  # its checksums are those of its rows


@pytest.mark.filterwarnings("ignore:no key for seals")
def test_without_a_key_the_first_outputs_are_retained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with ProfileStore(tmp_path / "store", create=True) as store, store.transaction():
        write_outputs(store, 7, [1], [b"one"])
        write_outputs(store, 7, [1, 2], [b"another", b"two"])
        assert store.rows("SELECT packed FROM output ORDER BY item") == [(b"one",), (b"two",)]
