"""Damaged stores and traces: read as they were, or refused with one message that names the file; nothing is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_application import Application

from circinus.errors import ProfileError
from circinus.operators.pickling import unpickle_value
from circinus.profiling import load_profile, load_recordings, profile_pipeline, record_for_replay
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.store.imported_times import load_imported_times
from circinus.profiling.store.observations import load_observations
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.stored_outputs import trust_outputs
from circinus.profiling.trace.trace_file import load_trace, save_trace
from damaged_stores import damage_by_sql, damaged_on_disk
from raised import raises_code
from random_traces import random_trace, trace_pipeline


@pytest.fixture
def measured(application: Application, inline_replicas: None) -> Application:
    application.score_alike()
    profile_pipeline(application.specification, "sample", application.store)
    record_for_replay(
        application.specification,
        "sample",
        application.store,
        configurations=application.configurations[:1],
        items_count=5,
    )
    return application


def _content(profile: PipelineProfile) -> object:
    """Everything that plans depend on."""
    return [
        (
            *(c.configuration, list(c.items), c.scores.tolist(), repr(c.accuracy)),
            *(
                (
                    name,
                    o.service_s.tolist(),
                    o.output_bytes.tolist(),
                    o.load_s,
                    o.peak_memory_bytes,
                    dict(o.batch_ratio),
                )
                for name, o in c.operators.items()
            ),
        )
        for c in profile.configurations
    ]


def _readings(application: Application, store: Path) -> list[Callable[[], object]]:
    configuration = application.configurations[0]

    def recordings() -> object:
        found = load_recordings(store, "sample", [configuration])
        return {item: unpickle_value(found.outputs[configuration][item]) for item in found.items}

    return [
        lambda: _content(load_profile(application.specification, "sample", store)),
        recordings,
        lambda: load_observations(store),
        lambda: load_imported_times(store),
    ]


def test_damaged_stores_are_read_as_they_were_or_refused(measured: Application, tmp_path: Path) -> None:
    sound, damaged = measured.store, tmp_path / "damaged.sqlite"
    with sqlite3.connect(sound) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    expected = [read() for read in _readings(measured, sound)]
    refused = 0
    for name in _copies(sound, damaged, on_disk=70, by_sql=29):
        content = damaged.read_bytes()
        for read, answer in zip(_readings(measured, damaged), expected, strict=True):
            found, error = _reading(read)
            if error is None:
                assert found == answer or name.startswith("sql"), name
            else:
                refused += 1
                assert error.code.split(".")[0] in ("store", "profile", "recording", "observation"), name
                assert str(damaged) in str(error), name
        assert damaged.read_bytes() == content, name
    assert refused > 100


def test_damaged_traces_are_read_as_they_were_or_refused(tmp_path: Path) -> None:
    sound, damaged = tmp_path / "sound", tmp_path / "damaged"
    save_trace(random_trace(trace_pipeline(), 12, seed=0), sound)
    digest = load_trace(sound).digest
    refused = 0
    for name in _copies(sound, damaged, on_disk=42, by_sql=16):
        content = damaged.read_bytes()
        found, error = _reading(lambda: load_trace(damaged).digest)
        if error is None:
            assert found == digest, name
        else:
            refused += 1
            assert error.code.split(".")[0] in ("store", "trace"), name
            assert str(damaged) in str(error), name
        assert damaged.read_bytes() == content, name
    assert refused > 30


def _reading(read: Callable[[], object]) -> tuple[object, ProfileError | None]:
    try:
        return read(), None
    except ProfileError as error:
        return None, error


def _copies(sound: Path, damaged: Path, *, on_disk: int, by_sql: int) -> Iterator[str]:
    for name, content in damaged_on_disk(sound.read_bytes(), on_disk, seed=0):
        damaged.write_bytes(content)
        yield name
    for seed in range(by_sql):
        damaged.write_bytes(sound.read_bytes())
        yield f"sql {damage_by_sql(damaged, seed)}"


def _view(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE score")
    connection.execute("CREATE VIEW score AS SELECT 1 AS subject, 1 AS item, 0.5 AS score")


@pytest.mark.parametrize(
    "change",
    [
        _view,
        lambda c: c.execute("CREATE TRIGGER t AFTER INSERT ON address BEGIN DELETE FROM address; END"),
        lambda c: c.execute("UPDATE score SET score = score + 0.125"),
        lambda c: c.execute("UPDATE service SET output_bytes = output_bytes + 1"),
    ],
)
def test_other_tables_and_changed_numbers_are_refused(
    measured: Application, change: Callable[[sqlite3.Connection], Any]
) -> None:
    with sqlite3.connect(measured.store) as connection:
        change(connection)
    connection.close()
    with raises_code(ProfileError, "store.damaged"):
        load_profile(measured.specification, "sample", measured.store)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("place", "code"),
    [
        (lambda path: path.mkdir(), "store.wrong_kind"),
        (lambda path: os.mkfifo(path), "store.wrong_kind"),
        (lambda path: path.symlink_to("/dev/zero"), "store.wrong_kind"),
        (lambda path: path.write_bytes(b"text " * 1000), "store.damaged"),
    ],
)
def test_what_is_no_file_of_a_database_is_refused(
    tmp_path: Path, place: Callable[[Path], object], code: str, create: bool
) -> None:
    place(tmp_path / "store")
    with raises_code(ProfileError, code):
        ProfileStore(tmp_path / "store", create=create)


def test_an_empty_file_is_no_store_to_read(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    for read in (load_observations, load_trace, trust_outputs):
        with raises_code(ProfileError, "store.wrong_kind"):
            read(tmp_path / "store")
    assert (tmp_path / "store").read_bytes() == b""
