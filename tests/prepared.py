"""The starter application, profiled and planned once for all tests of a run."""

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
    """What `init` and `plan --budget` make from nothing; not to be changed."""

    folder: Path

    def copy(self, folder: Path) -> Path:
        """A copy in `folder`, which must not exist yet."""
        return Path(shutil.copytree(self.folder, folder))

    @property
    def planned(self) -> Any:
        """What `plan --json` said."""
        return json.loads(_said(self.folder).read_text(encoding="utf-8"))["data"]


def prepared_starter(factory: pytest.TempPathFactory) -> Starter:
    """The one of this run, which all workers of pytest-xdist share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    ready = base / "starter-application"
    with (base / "starter-application.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            made = factory.mktemp("starter")
            assert run_circinus("init", cwd=made).returncode == 0
            run = run_circinus("plan", "--budget", f"{HANG_LIMIT_S}s", "--json", cwd=made)
            assert run.returncode == 0, run.stderr + run.stdout
            _said(ready).write_text(run.stdout, encoding="utf-8")
            made.rename(ready)
    return Starter(ready)


def _said(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
