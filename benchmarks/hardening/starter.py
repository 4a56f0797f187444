"""The starter application, planned, controlled and loaded once, with every kind of file that the product writes."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.harness.results import ROOT

PLAN, LOAD, TRACE, ARRIVALS = "plan.json", "load.json", "trace.sqlite", "arrivals.csv"
STORE, STATE = ".circinus/profiles.sqlite", ".circinus/engine-control.sqlite"
ENGINE = ".circinus/engine"
QUERY, SITE = "typing-aid", "till"
_BUDGET = "20s"
_STEP_S = 120.0
_ARRIVING = """
apiVersion: circinus/v1
kind: Query
metadata: {name: recorded}
spec:
  pipeline: mend
  source: till
  rate: 2/s
  arrivals: {kind: recorded, file: arrivals.csv}
  slos: [latency p95 <= 500ms, accuracy >= 0.7]
"""


@dataclass(frozen=True)
class StarterApplication:
    """Folder of the application."""

    folder: Path

    def copy(self, folder: Path) -> Path:
        """Copy the application to a new folder."""
        return Path(shutil.copytree(self.folder, folder))

    def copy_without_engine(self, folder: Path) -> StarterApplication:
        """Copy the application to a new folder, without what engines and controllers left behind."""
        ignored = shutil.ignore_patterns("engine", "engine-control.sqlite*")
        return StarterApplication(Path(shutil.copytree(self.folder, folder, ignore=ignored)))

    def run(self, *arguments: str, timeout_s: float = _STEP_S) -> subprocess.CompletedProcess[str]:
        """Run a verb in the folder."""
        return run_verb(self.folder, *arguments, timeout_s=timeout_s)

    @property
    def errors(self) -> Path:
        """Error output of the verbs that were started, beside the folder."""
        return self.folder.with_name(f"{self.folder.name}-errors.log")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a verb in the folder; its output lines are read from `stdout`."""
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                verb(*arguments), cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=errors,
                stdin=subprocess.DEVNULL, env=environment(),
            )  # fmt: skip


def verb(*arguments: str) -> list[str]:
    """Return the command of a verb."""
    return [sys.executable, "-m", "circinus", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of verbs, which find the package in any folder."""
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


def run_verb(folder: Path, *arguments: str, timeout_s: float = _STEP_S) -> subprocess.CompletedProcess[str]:
    """Run a verb in a folder."""
    return subprocess.run(
        verb(*arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s,
        stdin=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip


def require(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a verb that must succeed.

    Raises:
        RuntimeError: it failed.
    """
    if done.returncode:
        raise RuntimeError(f"{' '.join(done.args[2:])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@cache
def prepared() -> StarterApplication:
    """Return the application with everything that the product writes, made once per process and removed at its end.

    The key with which this user's files are sealed is in a folder of its own, too.
    """
    scratch = Path(tempfile.mkdtemp(prefix="circinus-hardening-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ["XDG_STATE_HOME"] = str(scratch / "state")
    application = StarterApplication(scratch / "application")
    application.folder.mkdir()
    require(application.run("init"))
    arrivals = "time_s,query\n" + "".join(f"{number * 0.5:.2f},recorded\n" for number in range(60))
    (application.folder / ARRIVALS).write_text(arrivals, encoding="utf-8")
    with (application.folder / "queries.yaml").open("a", encoding="utf-8") as file:
        file.write(f"---{_ARRIVING}")
    require(application.run("plan", "--budget", _BUDGET))
    require(application.run("profile", "--show", "--record", TRACE))
    _leave_engine(application)
    return application


def _leave_engine(application: StarterApplication) -> None:
    """Write a load test and the files of a controller and of an engine that was killed."""
    run_folder, kept = application.folder / ENGINE, application.folder / "kept"
    with application.start("serve", "--mode", "replay", "--json") as controller:
        try:
            await_event(controller, "applied")
            options = ("--duration", "2s", "--warm-up", "0s", "--controlled", "--json")
            (application.folder / LOAD).write_text(require(application.run("load", *options)), encoding="utf-8")
            shutil.copytree(run_folder, kept, ignore=shutil.ignore_patterns("socket", "*.lock"))
        finally:
            controller.send_signal(signal.SIGINT)
            controller.wait(_STEP_S)
            application.run("destroy")
    shutil.move(kept, run_folder)
    (run_folder / "circinus-engine.lock").write_text("4194305", encoding="utf-8")  # above any process id


def await_event(controller: subprocess.Popen[str], *kinds: str, timeout_s: float = _STEP_S) -> dict[str, object]:
    """Return the next event of some kinds that `serve --json` prints.

    Raises:
        RuntimeError: the controller ended before, or was too slow.
    """
    assert controller.stdout is not None, "its output is a pipe"
    deadline_s = time.monotonic() + timeout_s
    for line in controller.stdout:
        if line.startswith('{"'):
            event: dict[str, object] = json.loads(line)["data"]
            if event["kind"] in kinds:
                return event
        if time.monotonic() > deadline_s:
            break
    raise RuntimeError(f"`circinus serve` printed no event {' or '.join(kinds)}, exit code {controller.poll()}")
