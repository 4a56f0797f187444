"""Interruptions of verbs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from budget import HANG_LIMIT_S
from circinus.api.workspace import Workspace
from circinus.cli.app import app
from cli_runner import interruptible, run_circinus, start_process


@pytest.mark.slow
def test_profile_says_that_what_was_measured_is_kept(tmp_path: Path) -> None:
    assert run_circinus("init", cwd=tmp_path).returncode == 0
    begun = tmp_path / "begun"
    dataset = tmp_path / "starter" / "words.py"
    # The verb waits for the import of the data set then.
    told = f"\nimport pathlib\nimport time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    dataset.write_text(dataset.read_text(encoding="utf-8") + told, encoding="utf-8")
    with start_process("profile", cwd=tmp_path) as process:
        try:
            while not begun.exists() and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=HANG_LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; what was measured is stored, and the same command resumes" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("options", "is_measured"), [((), False), (("--budget", "1s"), True)])
def test_plan_names_stored_measurements_only_if_it_measures(
    options: tuple[str, ...], is_measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    assert CliRunner().invoke(app, ["init", str(tmp_path)]).exit_code == 0
    monkeypatch.setattr(Workspace, "plan", interrupted)
    run = CliRunner().invoke(app, ["plan", str(tmp_path), *options])
    assert run.exit_code == 130
    assert ("stored" in run.stderr) == is_measured


@pytest.mark.parametrize("module", ["lazy_loader", "circinus.cli", "typer.main", "circinus.errors", "pydantic_core"])
def test_an_interrupt_while_modules_are_imported_is_no_traceback(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "circinus", "explain", "plan.json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif line.rpartition("|")[2].strip() == module:  # it has just been imported
                process.send_signal(signal.SIGINT)
    assert (process.returncode, said) == (130, ["interrupted\n"])


def test_other_programs_keep_what_they_do_on_errors(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import circinus, sys\nprint(sys.excepthook is sys.__excepthook__)\n")
    for arguments in (["-m", "program"], ["program.py"]):
        ran = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ran.stdout == "True\n"
