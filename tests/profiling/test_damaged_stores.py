"""Damaged stores and traces: read as they were, or refused with one message that names the file; nothing runs."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.hardening.mutations import mutate_database
from sample_application import Application

from budget import share_of
from circinus.control.state_store import ControlStateStore
from circinus.errors import CircinusError, ProfileError
from circinus.operators.pickling import unpickle_value
from circinus.profiling import load_profile, load_recordings, profile_pipeline, record_for_replay
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.store.imported_times import load_imported_times
from circinus.profiling.store.migrations import schema_fault
from circinus.profiling.store.observations import load_observations
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.stored_outputs import trust_outputs
from circinus.profiling.store.table_checksums import enable_checksums
from circinus.profiling.trace.trace_file import load_trace, save_trace
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
    for name in _copies(sound, damaged, share_of(120)):
        content = damaged.read_bytes()
        for read, answer in zip(_readings(measured, damaged), expected, strict=True):
            found, error = _reading(read)
            if error is None:
                assert found == answer, name
            else:
                refused += 1
                assert error.code.split(".")[0] in ("store", "profile", "recording", "observation"), name
                assert str(damaged) in str(error), name
        assert damaged.read_bytes() == content, name
    assert refused > share_of(100)


def test_damaged_traces_are_read_as_they_were_or_refused(tmp_path: Path) -> None:
    sound, damaged = tmp_path / "sound", tmp_path / "damaged"
    save_trace(random_trace(trace_pipeline(), 12, seed=0), sound)
    digest = load_trace(sound).digest
    refused = 0
    for name in _copies(sound, damaged, share_of(80)):
        content = damaged.read_bytes()
        found, error = _reading(lambda: load_trace(damaged).digest)
        if error is None:
            assert found == digest, name
        else:
            refused += 1
            assert error.code.split(".")[0] in ("store", "trace"), name
            assert str(damaged) in str(error), name
        assert damaged.read_bytes() == content, name
    assert refused > share_of(30)


def test_a_journal_removes_no_file_that_it_names(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    store, trace, state = (tmp_path / name for name in ("store", "trace", "state"))
    ProfileStore(store, create=True).close()
    save_trace(random_trace(trace_pipeline(), 12, seed=0), trace)
    ControlStateStore(state).close()
    readings: list[tuple[Path, Callable[[], object], str]] = [
        (store, lambda: ProfileStore(store), "store.unsafe"),
        (trace, lambda: load_trace(trace), "store.unsafe"),
        (state, lambda: ControlStateStore(state), "control.unsafe"),
    ]
    for path, read, code in readings:
        journal = Path(f"{path}-journal")
        journal.write_bytes(_journal_of(path, victim))
        with pytest.raises(CircinusError) as caught:
            read()
        assert caught.value.code == code
        journal.unlink()
        os.mkfifo(journal)
        with pytest.raises(CircinusError) as caught:
            read()
        assert caught.value.code == code
    assert victim.exists()


def _journal_of(database: Path, super_journal: Path) -> bytes:
    """Return a rollback journal without pages, which SQLite plays back, and then removes the file that it names."""
    content = database.read_bytes()
    (page_bytes,) = struct.unpack_from(">H", content, 16)
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(super_journal)
    head = magic + struct.pack(">5I", 0, 0, len(content) // page_bytes, 512, page_bytes)
    pages_end = 0x40000000 // page_bytes + 1
    return (
        head.ljust(512, b"\0") + struct.pack(">I", pages_end) + name + struct.pack(">2I", len(name), sum(name)) + magic
    )


def _reading(read: Callable[[], object]) -> tuple[object, ProfileError | None]:
    try:
        return read(), None
    except ProfileError as error:
        return None, error


def _copies(sound: Path, damaged: Path, count: int) -> Iterator[str]:
    marker = damaged.with_name("marker")
    for seed in range(count):
        damaged.write_bytes(sound.read_bytes())
        yield f"{mutate_database(damaged, np.random.default_rng(seed), marker, forged_share=0.0)} {seed}"
        assert not marker.exists(), seed


def _sql(*statements: str) -> Callable[[sqlite3.Connection], None]:
    def change(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return change


def _hidden(kind: str, sql: str) -> Callable[[sqlite3.Connection], None]:
    """Return a change that adds an entry with a name which SQLite reserves."""
    entry = f"INSERT INTO sqlite_master VALUES ('{kind}', 'sqlite_x', 'sqlite_x', 0, '{sql}')"
    return _sql("PRAGMA writable_schema = ON", entry)


@pytest.mark.parametrize(
    "change",
    [
        _sql("DROP TABLE score", "CREATE VIEW score AS SELECT 1 AS subject, 1 AS item, 0.5 AS score"),
        _sql("CREATE TRIGGER t AFTER INSERT ON address BEGIN DELETE FROM address; END"),
        _sql("CREATE INDEX i ON address (length(address))"),
        _sql("ALTER TABLE effort ADD COLUMN more REAL CHECK (length(hex(zeroblob(9))) > 0)"),
        _sql(
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET sql = replace(sql, 'ran_s REAL', 'ran_s REAL CHECK (ran_s < 1)') "
            "WHERE name = 'effort'",
        ),
        _hidden("view", "CREATE VIEW sqlite_x AS SELECT 1"),
        _hidden("table", "CREATE VIRTUAL TABLE sqlite_x USING fts5(x)"),
        _sql(
            "ANALYZE",
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET sql = replace(sql, ',stat)', ',stat CHECK (1))')",
        ),
        _sql("UPDATE score SET score = score + 0.125"),
        _sql("DELETE FROM checksum WHERE name = 'score'", "UPDATE score SET score = score + 0.125"),
        _sql("UPDATE service SET output_bytes = output_bytes + 1"),
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


def test_statistics_of_other_tools_are_accepted(measured: Application) -> None:
    expected = _content(load_profile(measured.specification, "sample", measured.store))
    _execute(measured.store, "ANALYZE")
    with closing(sqlite3.connect(measured.store)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone() > (5,)
        assert schema_fault(connection) is None
    assert _content(load_profile(measured.specification, "sample", measured.store)) == expected


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DROP TABLE effort", "'effort' is missing"),
        ("CREATE TABLE more (x)", "'more' is additional"),
        ("ALTER TABLE effort ADD COLUMN more REAL", "'effort' is changed"),
    ],
)
def test_the_fault_of_a_schema_says_what_differs(tmp_path: Path, statement: str, fault: str) -> None:
    ProfileStore(tmp_path / "store", create=True).close()
    _execute(tmp_path / "store", statement)
    with raises_code(ProfileError, "store.damaged") as caught:
        ProfileStore(tmp_path / "store")
    assert fault in caught.value.message


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


def test_every_row_has_a_checksum_of_its_own() -> None:
    connection = sqlite3.connect(":memory:")
    enable_checksums(connection)
    rows = [
        "1, 23",
        "12, 3",
        "'1', '23'",
        "1.0, 23",
        "x'31', x'3233'",
        "x'3132', x'33'",
        "NULL, 'None'",
        "'None', NULL",
    ]
    hashes = {connection.execute(f"SELECT row_hash({row})").fetchone() for row in rows}
    assert len(hashes) == len(rows)
    connection.close()


def test_what_is_written_after_the_check_is_checked_at_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    _store_with_an_address(path)

    check = ProfileStore._check

    def check_before_a_change(store: ProfileStore, fault_of: Callable[[sqlite3.Connection], str | None]) -> None:
        check(store, fault_of)
        if fault_of is not schema_fault:
            _execute(path, "UPDATE address SET address = 'two'")

    with monkeypatch.context() as patched:
        patched.setattr(ProfileStore, "_check", check_before_a_change)
        ProfileStore(path).close()
    with raises_code(ProfileError, "store.damaged"):
        ProfileStore(path)


def test_a_file_on_another_device_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    _store_with_an_address(path)
    ProfileStore(path).close()
    before = path.stat()
    _execute(path, "UPDATE address SET address = 'two'")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    ProfileStore(path).close()  # taken for the file that was checked
    moved = SimpleNamespace(**{name: getattr(before, name) for name in dir(before) if name.startswith("st_")})
    moved.st_dev += 1
    monkeypatch.setattr("circinus.profiling.store.profile_store._status", lambda file: moved if file == path else None)
    with raises_code(ProfileError, "store.damaged"):
        ProfileStore(path)


def _store_with_an_address(path: Path) -> None:
    with ProfileStore(path, create=True) as store, store.transaction():
        store.ids(["one"])
    _execute(path, "PRAGMA journal_mode = DELETE")


def _execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
