"""Schema of the profile store, as a sequence of migrations."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from circinus.errors import ProfileError
from circinus.profiling.store.table_checksums import Columns, read_columns, write_checksums

_MEASUREMENTS = """
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
"""
"""Initial schema. `address` numbers the content hashes of `MeasurementKeys` and of items; `subject`, `item`,
`source`, `service`, `output` and `replica` are such ids. `replica.load_s` is the sum over `loads`, see `_START_UPS`.
`recording` has the ids that the latest measurement of a pipeline used for a prefix, so that recordings are found
without the pipeline's code."""

_MACHINES_AND_STRATA = """
CREATE TABLE machine (id INTEGER PRIMARY KEY, cpu_model TEXT NOT NULL, cores INTEGER NOT NULL,
    UNIQUE (cpu_model, cores));
ALTER TABLE dataset_item ADD COLUMN strata TEXT;
"""
"""Machines that measured into the store, and strata. `dataset_item.strata` is JSON; NULL for a data set that was not
measured since the migration."""

_SCORED = """
CREATE TABLE variant (id INTEGER PRIMARY KEY, description TEXT NOT NULL UNIQUE);
CREATE TABLE scored (variant INTEGER NOT NULL, subject INTEGER NOT NULL, configuration TEXT NOT NULL,
    PRIMARY KEY (variant, subject)) WITHOUT ROWID;
CREATE TABLE undescribed (since INTEGER PRIMARY KEY);
INSERT INTO undescribed SELECT 1 WHERE EXISTS (SELECT 1 FROM score) OR EXISTS (SELECT 1 FROM failure);
"""
"""Configurations that have scores or failed, which content hashes do not reveal. They allow listing configurations
that cannot be enumerated, and scores of other pipelines and versions. `variant.description`: JSON, see
`PipelineVersion`; `scored.configuration`: JSON of the knob values of each operator. `undescribed` has a row if
there were scores before the migration: those are added when their pipeline is measured."""

_OBSERVATIONS = """
CREATE TABLE observation (id INTEGER PRIMARY KEY, at TEXT NOT NULL, mode TEXT NOT NULL, plan TEXT NOT NULL,
    pipeline TEXT NOT NULL, operator TEXT NOT NULL, uses TEXT NOT NULL, version TEXT NOT NULL, knobs TEXT NOT NULL,
    hardware_class TEXT NOT NULL, speed REAL NOT NULL, cpu_model TEXT, cores INTEGER, cpus REAL NOT NULL,
    batch_size INTEGER NOT NULL, log_ratio REAL NOT NULL, standard_error REAL NOT NULL, requests INTEGER NOT NULL,
    items INTEGER NOT NULL);
"""
"""Observations from traffic, see `observations.ServiceTimeObservation`: one immutable row for each deployment in
each run. `cpu_model` and `cores` are those of `profiled_on`; `knobs` is JSON."""

_START_UPS = """
ALTER TABLE replica ADD COLUMN startup_s REAL NOT NULL DEFAULT 0;
UPDATE replica SET startup_s = load_s;
"""
"""`replica.startup_s`: sum over `loads` of the start-up times of replicas. Before the migration `load_s` had this
meaning, and keeps it for earlier loads: it is never less than the operator's own load time."""

_HARDWARE_CLASSES = """
CREATE TABLE class_machine (id INTEGER PRIMARY KEY, hardware_class TEXT NOT NULL, cpu_model TEXT NOT NULL,
    cores INTEGER NOT NULL, UNIQUE (hardware_class, cpu_model, cores));
"""
"""Machines measured as nodes of a hardware class, the last one with the highest `id`. `local` has a row only while
the last profile was measured on a node of that class, as opposed to the machine that ran the command."""

_TRACE = "CREATE TABLE trace (pipeline TEXT NOT NULL, code_versions TEXT NOT NULL);"
"""One row if the store is a trace, which has the measurements of one pipeline: JSON of its specification, and of the
versions of its code by `uses` reference, so that they are found without the code."""

_RUN_TIMES = """
CREATE TABLE run_times (
    subject INTEGER NOT NULL, item INTEGER NOT NULL, elapsed_s REAL NOT NULL, cpu_s REAL NOT NULL, wait_s REAL NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;
"""
"""`run_clock.RunTimes` that the rows of `service` follow from; runs of earlier versions and of traces have none."""

_WORKER_WAITS = """
ALTER TABLE run_times RENAME COLUMN cpu_s TO worker_wait_s;
UPDATE run_times SET worker_wait_s = 0;
"""
"""`run_times.worker_wait_s` in place of CPU seconds, which had no use."""

_IMPORTED_TIMES = """
CREATE TABLE imported_time (pipeline TEXT NOT NULL, operator TEXT NOT NULL, knobs TEXT NOT NULL,
    hardware_class TEXT NOT NULL, cpus REAL NOT NULL, batch_size INTEGER NOT NULL, batch_s REAL NOT NULL,
    version TEXT NOT NULL, origin TEXT NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (pipeline, operator, knobs, hardware_class, cpus, batch_size)) WITHOUT ROWID;
"""
"""Times on hardware classes from tables of the user, see `imported_times.ImportedTime`; `knobs` is JSON."""

_ITEM_RUNS = """
CREATE TABLE item_runs (subject INTEGER NOT NULL, item INTEGER NOT NULL, runs TEXT NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;
"""
"""Runs of an operator for an item that had none, several, or a branch, see `item_runs.ItemRuns.as_json`; `service` has
their totals, and alone the single runs of other items."""

_VERDICTS = "CREATE TABLE IF NOT EXISTS verdicts (pipeline TEXT PRIMARY KEY, content_hash TEXT, content TEXT);"
_VERDICTS_SINCE = 12
"""Last run of each pipeline, see `stored_verdicts`; stores before that schema have the table or not."""

_SEALS_AND_CHECKSUMS = f"""
ALTER TABLE output ADD COLUMN seal BLOB;
CREATE TABLE checksum (name TEXT PRIMARY KEY, sum INTEGER NOT NULL) WITHOUT ROWID;
{_VERDICTS}
"""
"""`output.seal`: see `stored_outputs`; NULL in rows of earlier versions. `checksum`: see `table_checksums`."""

_CHECKSUMS_OF_FIELDS = ""
"""Checksums are computed again: those of the step before do not tell (1, 23) from (12, 3)."""

STEPS: tuple[str, ...] = (
    _MEASUREMENTS,
    _MACHINES_AND_STRATA,
    _SCORED,
    _OBSERVATIONS,
    _START_UPS,
    _HARDWARE_CLASSES,
    _TRACE,
    _RUN_TIMES,
    _WORKER_WAITS,
    _IMPORTED_TIMES,
    _ITEM_RUNS,
    _SEALS_AND_CHECKSUMS,
    _CHECKSUMS_OF_FIELDS,
)
"""Migrations: step k leads from schema k to schema k + 1; 0 is an empty file. Released steps are immutable: add
another."""

SCHEMA_VERSION = len(STEPS)


def migrate(
    connection: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[None]], path: Path
) -> None:
    """Migrate a store to the current schema, each step in its own transaction.

    An interrupted migration continues from its last complete step at the next opening. Concurrent migrations are safe.

    Raises:
        ProfileError: the store has a later schema.
    """
    while (version := require_supported_schema(connection, path)) != SCHEMA_VERSION:
        with transaction():
            if schema_version(connection) == version:  # no concurrent process has migrated it
                for statement in STEPS[version].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
                if version + 1 == SCHEMA_VERSION:
                    write_checksums(connection, current_columns())


def require_supported_schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of a store, which must not be later than that of this version of the package.

    Raises:
        ProfileError: the store has a later schema.
    """
    version = schema_version(connection)
    if version > SCHEMA_VERSION:
        raise ProfileError(
            f"found a profile store of schema {version}, expected at most {SCHEMA_VERSION}; it was written by a "
            "later version of Circinus",
            code="store.newer_schema",
            location=str(path),
            hint="Use that version, or measure into a new file.",
        )
    return version


def current_columns() -> Columns:
    """Return the columns of a store of the current schema."""
    return _database_after(STEPS)[1]


def schema_fault(connection: sqlite3.Connection) -> str | None:
    """Return the first difference of the schema from that of a store of its version, or None.

    Triggers, views, defaults and constraints of others would run when a store is migrated, checked or written. SQLite
    lets a sender give them any name, `sqlite_...` too (`PRAGMA writable_schema`).
    """
    version = schema_version(connection)
    found, expected = _schema(connection), _database_after(STEPS[: max(version, 0)])[0]
    if version < _VERDICTS_SINCE:
        expected |= found & _database_after((_VERDICTS,))[0]
    other, absent = ({repr(entry[1])[:80] for entry in entries} for entries in (found - expected, expected - found))
    for names, problem in ((other & absent, "changed"), (absent, "missing"), (other, "additional")):
        if names:
            return f"{min(names)} is {problem}, compared with version {version} of the schema"
    return None


Schema = frozenset[tuple[Any, ...]]
"""(type, name, table, SQL) of tables, indexes, views and triggers."""

_STATISTICS: Schema = frozenset(
    ("table", name, name, f"CREATE TABLE {name}({columns})")
    for name, columns in (("sqlite_stat1", "tbl,idx,stat"), ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"))
)
"""Tables that ANALYZE and `PRAGMA optimize` of other tools add: data, which only the choice of indexes depends on."""


@cache
def _database_after(steps: tuple[str, ...]) -> tuple[Schema, Columns]:
    connection = sqlite3.connect(":memory:")
    try:
        for step in steps:
            connection.executescript(step)
        return _schema(connection), read_columns(connection)
    finally:
        connection.close()


def _schema(connection: sqlite3.Connection) -> Schema:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    schema = frozenset((*names, re.sub(r"\s+", " ", sql) if isinstance(sql, str) else sql) for *names, sql in rows)
    return schema - _STATISTICS


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of a store; 0 if it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
