"""Stores of earlier schemas: brought to the present one without losing anything."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sample_application import Application

from circinus.errors import ProfileError
from circinus.profiling import load_profile, profile_pipeline
from circinus.profiling.store.migrations import SCHEMA_VERSION, STEPS
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredReplica, read_replicas
from raised import raises_code

FIRST_SCHEMA = """
CREATE TABLE address (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
CREATE TABLE dataset (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
CREATE TABLE dataset_item (
    dataset INTEGER NOT NULL, position INTEGER NOT NULL, item INTEGER NOT NULL, key TEXT NOT NULL,
    input_bytes INTEGER NOT NULL, PRIMARY KEY (dataset, position)) WITHOUT ROWID;
CREATE TABLE dataset_order (
    dataset INTEGER NOT NULL, seed INTEGER NOT NULL, positions TEXT NOT NULL, PRIMARY KEY (dataset, seed)
    ) WITHOUT ROWID;
CREATE TABLE dataset_source (source INTEGER PRIMARY KEY, dataset INTEGER NOT NULL);
CREATE TABLE service (
    subject INTEGER NOT NULL, item INTEGER NOT NULL, service_s REAL NOT NULL, output_bytes INTEGER NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;
CREATE TABLE output (subject INTEGER NOT NULL, item INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (subject, item));
CREATE TABLE score (subject INTEGER NOT NULL, item INTEGER NOT NULL, score REAL NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;
CREATE TABLE replica (subject INTEGER PRIMARY KEY, loads INTEGER NOT NULL, load_s REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL);
CREATE TABLE allocation (subject INTEGER NOT NULL, cpus REAL NOT NULL, batch_size INTEGER NOT NULL,
    ratio REAL NOT NULL, PRIMARY KEY (subject, cpus, batch_size)) WITHOUT ROWID;
CREATE TABLE effort (subject INTEGER PRIMARY KEY, ran_s REAL NOT NULL, saved_s REAL NOT NULL);
CREATE TABLE failure (subject INTEGER PRIMARY KEY, item_key TEXT, reason TEXT NOT NULL);
CREATE TABLE recording (pipeline TEXT NOT NULL, prefix TEXT NOT NULL, operator TEXT NOT NULL, allowed TEXT NOT NULL,
    service INTEGER NOT NULL, output INTEGER NOT NULL, replica INTEGER NOT NULL, dataset INTEGER NOT NULL,
    seed INTEGER NOT NULL, PRIMARY KEY (pipeline, prefix)) WITHOUT ROWID;
INSERT INTO address VALUES (1, 'an item'), (2, 'a prefix');
INSERT INTO dataset VALUES (1, 'print');
INSERT INTO dataset_item VALUES (1, 0, 1, 'i0', 17);
INSERT INTO service VALUES (2, 1, 0.25, 9);
INSERT INTO replica VALUES (2, 4, 6.0, 1000);
PRAGMA application_id = 1128878659;
PRAGMA user_version = 1;
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A store of schema 1, as it was written then."""
    path = tmp_path / "profiles.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST_SCHEMA)
    connection.close()
    return path


def _tables(path: Path) -> list[tuple[str, list[str]]]:
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    found = [(n, [str(column[1:]) for column in connection.execute(f"PRAGMA table_info({n})")]) for n in names]
    connection.close()
    return found


@pytest.mark.parametrize("create", [True, False])
def test_a_first_store_becomes_a_present_one_and_keeps_what_it_held(first: Path, tmp_path: Path, create: bool) -> None:
    with ProfileStore(first, create=create) as store:
        assert store.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert store.rows("SELECT * FROM service") == [(2, 1, 0.25, 9)]
        assert store.rows("SELECT key, input_bytes, strata FROM dataset_item") == [("i0", 17, None)]
        assert store.existing_ids(["an item", "a prefix"]) == {"an item": 1, "a prefix": 2}
    ProfileStore(tmp_path / "new.sqlite", create=True).close()
    assert _tables(first) == _tables(tmp_path / "new.sqlite")


def test_a_load_from_before_start_ups_were_measured_apart_was_the_whole_start_up(first: Path) -> None:
    with ProfileStore(first) as store:
        assert read_replicas(store, ["a prefix"]) == {"a prefix": StoredReplica(1.5, 1000.0, startup_s=1.5)}


def test_a_step_is_whole_or_not_at_all(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _tables(first)
    steps = (STEPS[0], "CREATE TABLE half (x); CREATE TABLE address (x)")
    monkeypatch.setattr("circinus.profiling.store.migrations.STEPS", steps)
    with raises_code(ProfileError, "store.damaged"):
        ProfileStore(first)
    assert _tables(first) == before
    monkeypatch.undo()
    ProfileStore(first).close()
    assert _tables(first) != before


@pytest.mark.parametrize("name", ["hostile", "sqlite_hostile"])
def test_sql_of_others_does_not_run_in_a_migration(first: Path, name: str) -> None:
    connection = sqlite3.connect(first, isolation_level=None)
    connection.execute("CREATE TRIGGER hostile AFTER UPDATE ON replica BEGIN UPDATE service SET service_s = 9; END")
    connection.execute("PRAGMA writable_schema = ON")
    renamed = "UPDATE sqlite_master SET name = ?1, sql = replace(sql, 'hostile', ?1) WHERE type = 'trigger'"
    connection.execute(renamed, [name])
    connection.close()
    for create in (True, False):
        with raises_code(ProfileError, "store.damaged"):
            ProfileStore(first, create=create)
    connection = sqlite3.connect(first)
    assert connection.execute("PRAGMA user_version").fetchall() == [(1,)]
    assert connection.execute("SELECT service_s FROM service").fetchall() == [(0.25,)]
    connection.execute("UPDATE replica SET loads = 5")
    assert connection.execute("SELECT service_s FROM service").fetchall() == [(9.0,)], "the trigger works"
    connection.close()


def test_verdicts_that_earlier_versions_created_on_demand_are_kept(first: Path) -> None:
    connection = sqlite3.connect(first)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS verdicts (pipeline TEXT PRIMARY KEY, content_hash TEXT, content TEXT)"
    )
    with connection:
        connection.execute("INSERT INTO verdicts VALUES ('sample', 'hash', '{}')")
    connection.close()
    with ProfileStore(first) as store:
        assert store.rows("SELECT * FROM verdicts") == [("sample", "hash", "{}")]


@pytest.mark.slow
def test_killed_between_two_steps_it_goes_on_at_the_next_opening(tmp_path: Path) -> None:
    """Of every number of steps that were done."""
    for done in range(1, SCHEMA_VERSION + 1):
        path = tmp_path / f"{done}.sqlite"
        program = textwrap.dedent(f"""
            import os, signal
            from pathlib import Path
            from circinus.profiling.store import migrations
            from circinus.profiling.store.profile_store import ProfileStore
            steps = migrations.STEPS
            migrations.STEPS = (*steps[:{done}], *["SELECT no_such_column"] * (len(steps) - {done}))
            try:
                ProfileStore(Path({str(path)!r}), create=True)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        """)
        ended = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
        assert ended.returncode == -signal.SIGKILL
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone() == (done,)
        connection.close()
        with ProfileStore(path) as store:
            assert store.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]


@pytest.mark.slow
def test_many_may_migrate_at_once(first: Path) -> None:
    program = "import sys; from pathlib import Path; from circinus.profiling.store.profile_store import ProfileStore; "
    program += "ProfileStore(Path(sys.argv[1])).close()"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(first)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    with ProfileStore(first) as store:
        assert store.rows("SELECT * FROM service") == [(2, 1, 0.25, 9)]


@pytest.mark.usefixtures("inline_replicas")
def test_a_profile_from_before_lists_and_branches_is_read_as_one_run_an_item(application: Application) -> None:
    """Schema 10, whose tables are those of today but one."""
    application.score_alike()
    measured = profile_pipeline(application.specification, "sample", application.store)
    with sqlite3.connect(application.store) as connection:
        assert connection.execute("SELECT count(*) FROM item_runs").fetchone() == (0,)
        connection.executescript("DROP TABLE item_runs; DROP TABLE checksum; ALTER TABLE output DROP COLUMN seal")
        connection.execute("PRAGMA user_version = 10")
    connection.close()
    application.clear_calls()
    loaded = load_profile(application.specification, "sample", application.store)
    assert len(loaded.configurations) == len(measured.configurations) > 0
    for one, other in zip(loaded.configurations, measured.configurations, strict=True):
        assert one.scores.tolist() == other.scores.tolist()
        for name, operator in one.operators.items():
            assert operator.runs is None
            assert operator.service_s.tolist() == other.operators[name].service_s.tolist()
            assert set(operator.run_counts.tolist()) == {1}
    assert application.calls() == {}
    with ProfileStore(application.store) as store:
        assert store.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert store.rows("SELECT * FROM item_runs") == []
