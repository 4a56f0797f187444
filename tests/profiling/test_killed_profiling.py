"""Killed at random moments, profiling loses nothing committed, reads nothing half-written, and ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.profiling.crash_recovery import KILLED_AT_A_STEP

from budget import seeds, share_of
from circinus.profiling import PipelineProfile, TraceBackend, load_profile, profile_pipeline, save_trace
from circinus.profiling.store.profile_store import ProfileStore
from random_traces import random_trace, specification_of, trace_pipeline

pytestmark = pytest.mark.slow  # starts processes

ITEMS = 80
KILLS = 4 + share_of(6)
EVERY = 25

PROGRAM = (
    KILLED_AT_A_STEP
    + """
from random_traces import specification_of, trace_pipeline
from circinus.profiling import TraceBackend, load_trace, profile_pipeline

class Teller:
    def progressed(self, progress):
        print(progress.done, flush=True)

    def failed(self, failure):
        raise AssertionError(failure)

pipeline = trace_pipeline()
source = TraceBackend(load_trace(trace))
profile_pipeline(specification_of(pipeline), pipeline.name, store, source=source, observer=Teller())
print(steps)
"""
)


def _run(store: Path, trace: Path, kill_at: int) -> tuple[int, list[int]]:
    """Exit code, and the numbers that were told: of runs that were committed."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store), str(trace), str(kill_at), str(EVERY)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode, [int(line) for line in ended.stdout.split()]


def _contents(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """What the store holds, after checking that every increment is in it as a whole."""
    with ProfileStore(path, create=True) as store:  # killed while it was made, it is made now
        assert store.rows("PRAGMA integrity_check") == [("ok",)]
        tables = ("address", "dataset_item", "service", "output", "score")
        found = {table: set(store.rows(f"SELECT * FROM {table}")) for table in tables}
        scored = {row[:2] for row in found["score"]}
        # Eight configurations of four operators: each score has its answer, and of each item all times.
        assert len(scored) == len(found["output"])
        for item in {item for _, item in scored}:
            times = {subject for subject, other, *_ in found["service"] if other == item}
            configurations = {subject for subject, other in scored if other == item}
            assert len(times) >= len(configurations) + 3
    return found


def _assert_same(one: PipelineProfile, other: PipelineProfile) -> None:
    assert [p.configuration for p in one.configurations] == [p.configuration for p in other.configurations]
    for mine, its in zip(one.configurations, other.configurations, strict=True):
        assert mine.accuracy == its.accuracy
        np.testing.assert_array_equal(mine.items, its.items)
        np.testing.assert_array_equal(mine.scores, its.scores)
        for name, operator in mine.operators.items():
            np.testing.assert_array_equal(operator.service_s, its.operators[name].service_s)
            np.testing.assert_array_equal(operator.output_bytes, its.operators[name].output_bytes)


@pytest.mark.parametrize("seed", seeds(4))
def test_killed_again_and_again_it_ends_as_if_it_had_never_been(tmp_path: Path, seed: int) -> None:
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, ITEMS, seed=seed)
    specification, source = specification_of(pipeline), TraceBackend(trace)
    save_trace(trace, tmp_path / "trace")
    whole = profile_pipeline(specification, pipeline.name, tmp_path / "whole.sqlite", source=source)
    code, told = _run(tmp_path / "counted.sqlite", tmp_path / "trace", 0)
    assert code == 0
    steps = told[-1]
    store = tmp_path / "profiles.sqlite"
    rng = np.random.default_rng(seed)
    before: dict[str, set[tuple[object, ...]]] = {}
    killed = committed = 0
    for _ in range(KILLS):
        code, told = _run(store, tmp_path / "trace", int(rng.integers(1, steps // 3)))
        if code == 0:
            break
        killed += 1
        found = _contents(store)
        for table, rows in before.items():
            assert rows <= found[table]
        committed = max([committed, *told])
        assert len(found["score"]) >= committed
        before = found
    assert killed >= 5
    resumed = profile_pipeline(specification, pipeline.name, store, source=source)
    _assert_same(resumed, whole)
    _assert_same(load_profile(specification, pipeline.name, store, source=source), whole)
