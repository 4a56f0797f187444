"""Verbs in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_circinus(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`circinus` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "circinus", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def answer(*arguments: str, cwd: Path, kind: str, code: int = 0) -> Any:
    """The data of the document that a verb prints with `--json`."""
    run = run_circinus(*arguments, "--json", cwd=cwd)
    assert run.returncode == code, run.stderr + run.stdout
    document = json.loads(run.stdout)
    assert document["schema_version"] == 1
    assert document["kind"] == kind
    return document["data"]
