"""Starter application of half the configurations, profiled and planned once per test run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from budget import HANG_LIMIT_S
from cli_runner import run_circinus


@dataclass(frozen=True)
class Starter:
    """Read-only result of `init`, a reduction and `plan --budget` in an empty folder."""

    folder: Path

    def copy(self, folder: Path) -> Path:
        """Copy the application to `folder`, which must not exist."""
        return Path(shutil.copytree(self.folder, folder))

    @property
    def planned(self) -> Any:
        """Data of the output of `plan --json`."""
        return json.loads(_output_file(self.folder).read_text(encoding="utf-8"))["data"]


def prepared_starter(factory: pytest.TempPathFactory) -> Starter:
    """Return the application of this run, which the workers of pytest-xdist share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    ready = base / "starter-application"
    with (base / "starter-application.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            folder = factory.mktemp("starter")
            assert run_circinus("init", cwd=folder).returncode == 0
            _reduce(folder)
            run = run_circinus("plan", "--budget", f"{HANG_LIMIT_S}s", "--json", cwd=folder)
            assert run.returncode == 0, run.stderr + run.stdout
            _output_file(ready).write_text(run.stdout, encoding="utf-8")
            folder.rename(ready)
    return Starter(ready)


def _reduce(folder: Path) -> None:
    """Halve the configurations and leave requests undivided: profiling and planning take half the time."""
    for name, text, reduced in (
        ("pipeline.yaml", "lower: [true, false]", "lower: [true]"),
        ("queries.yaml", "spec:\n", "spec:\n  split: false\n"),
    ):
        before = (folder / name).read_text(encoding="utf-8")
        assert text in before
        (folder / name).write_text(before.replace(text, reduced), encoding="utf-8")


def _output_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
