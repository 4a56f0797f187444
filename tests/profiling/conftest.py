"""The sample application, written afresh for every test, and replicas without processes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from inline_replica import InlineReplica
from sample_application import SOURCES, Application

from circinus.profiling.race.profiling_loop import ProfilingLoop
from circinus.specification import Configuration


class UnpacedLoop(ProfilingLoop):
    """Each analysis ends an increment, however slow the machine of the tests is."""

    def _paced(self, configuration: Configuration, target: int) -> int:
        return target


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second would share their bytecode
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SAMPLE_LOG", str(tmp_path / "calls.log"))
    # Runs that waited for a CPU are not repeated, however busy the machine of the tests is.
    monkeypatch.setattr("circinus.profiling.profiler.busy_share", lambda: math.inf)
    monkeypatch.setattr("circinus.profiling.profiler.ProfilingLoop", UnpacedLoop)
    found = Application(tmp_path)
    for module, source in SOURCES.items():
        found.write(module, source)
    yield found
    found.forget()


@pytest.fixture
def inline_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local runners load operators into this process: no process is started, whatever is measured."""
    in_this_process = partial(InlineReplica, count())
    monkeypatch.setattr("circinus.profiling.measurement.operator_session.OperatorProcess", in_this_process)
