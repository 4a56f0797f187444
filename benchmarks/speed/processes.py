"""Commands of Circinus as processes, with their times."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""An installed package is compiled; without bytecode each process would compile all modules again."""


@dataclass(frozen=True)
class CommandTimes:
    """Output and times of a whole process, with its children."""

    output: str
    wall_s: float
    cpu_s: float


def run_command(*arguments: str, folder: Path, code: int = 0) -> CommandTimes:
    """Run `circinus` with arguments in a folder.

    Raises:
        subprocess.CalledProcessError: the command ended with another exit code.
    """
    before, start_s = os.times(), perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "circinus", *arguments],
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if process.returncode != code:
        raise subprocess.CalledProcessError(process.returncode, process.args, process.stdout, process.stderr)
    after, wall_s = os.times(), perf_counter() - start_s
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return CommandTimes(process.stdout, wall_s, cpu_s)
