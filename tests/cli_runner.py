"""Runners of the command line, in this process or in a new one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from budget import HANG_LIMIT_S


def run_circinus(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `circinus` in this process, and return its exit code and output.

    Errors that a separate process would show as a traceback are raised.
    """
    from circinus.cli import main

    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with as_a_new_process(arguments, cwd), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def start_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start `circinus` as a process with captured output."""
    return subprocess.Popen(
        [sys.executable, "-m", "circinus", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )


def interruptible() -> None:
    """Enable interrupts, which a shell ignores for tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `circinus` in a new process, and return its exit code and output."""
    with start_process(*arguments, cwd=cwd) as process:
        try:
            stdout, stderr = process.communicate(timeout=HANG_LIMIT_S)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def answer(*arguments: str, cwd: Path, kind: str, code: int = 0) -> Any:
    """Run a command with `--json`, and return the data of its document."""
    return answered(run_circinus(*arguments, "--json", cwd=cwd), kind, code)


def answered(run: subprocess.CompletedProcess[str], kind: str, code: int = 0) -> Any:
    """Return the data of the document that a command printed."""
    assert run.returncode == code, run.stderr + run.stdout
    document = json.loads(run.stdout)
    assert document["schema_version"] == 2
    assert document["kind"] == kind
    return document["data"]


def in_one_line(text: str) -> str:
    """Return printed text without line breaks and frames."""
    return " ".join(text.replace("│", " ").split())


@contextmanager
def as_a_new_process(arguments: tuple[str, ...], cwd: Path) -> Iterator[None]:
    """Isolate the interpreter state of a command: working folder, arguments, search path, modules."""
    cwd = cwd.resolve()
    names = _module_names(cwd)
    hidden = _loaded(names)
    for name in hidden:
        del sys.modules[name]
    excepthook, interrupt = sys.excepthook, signal.getsignal(signal.SIGINT)
    try:
        with (
            chdir(cwd),
            patch.object(sys, "argv", ["circinus", *arguments]),
            patch.object(sys, "path", [str(cwd), *sys.path]),
        ):
            yield
    finally:
        sys.excepthook = excepthook  # typer replaces it
        if signal.getsignal(signal.SIGINT) is not interrupt:
            signal.signal(signal.SIGINT, interrupt)
        for name in _loaded(names | _module_names(cwd)):  # the folder may have changed
            del sys.modules[name]
        sys.modules.update(hidden)
        for entry in [entry for entry in sys.path_importer_cache if not os.path.isabs(entry)]:
            del sys.path_importer_cache[entry]  # relative to the working folder of this call


def _module_names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}


def _loaded(names: set[str]) -> dict[str, Any]:
    """Return loaded modules with some names, even if loaded from another folder."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
