"""Verbs that are interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from verbs import run_circinus


def test_profile_says_that_what_was_measured_is_kept(tmp_path: Path) -> None:
    assert run_circinus("init", cwd=tmp_path).returncode == 0
    begun = tmp_path / "begun"
    dataset = tmp_path / "starter" / "words.py"
    # The data set is built by the verb's own process, which is at work then.
    told = f"\nimport pathlib\nimport time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    dataset.write_text(dataset.read_text(encoding="utf-8") + told, encoding="utf-8")
    command = [sys.executable, "-m", "circinus", "profile"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not begun.exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was measured is kept, the same command goes on from there" in said
    assert "Traceback" not in said
