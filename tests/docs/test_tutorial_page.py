"""Every command of `docs/tutorial.md` runs on the files of the page, and each shows what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli_runner import answer, run_circinus

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(notes\.\w+)` .*?```\w+\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))
(URGENT,) = re.findall(r"^```yaml\n(---.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ circinus (.*)$", PAGE, flags=re.MULTILINE)
SHORTER = {"8s": "2s"}
"""Durations of load tests on the page, and here."""
DIFF, ADMIT = "plan --diff", "admit urgent"


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    assert COMMANDS.count(DIFF) == 1
    assert COMMANDS.count(ADMIT) == 2
    assert COMMANDS[-1] == "destroy"
    (tmp_path / "notes.py").write_text(FILES["notes.py"], encoding="utf-8")
    specification, text = tmp_path / "notes.yaml", FILES["notes.yaml"]
    routes, admitted = [], []
    try:
        for command in COMMANDS:
            if command == DIFF:
                text = text.replace("<= 500ms, accuracy >= 0.55", "<= 500ms, accuracy >= 0.9")
            elif command == ADMIT:
                text = text.replace("<= 50us", "<= 500ms") if URGENT in text else text + URGENT
            specification.write_text(text, encoding="utf-8")
            run = run_circinus(*(SHORTER.get(word, word) for word in shlex.split(command)), cwd=tmp_path)
            if command == ADMIT:
                admitted.append(run.returncode == 0)
            else:
                assert run.returncode in ((0, 4) if command == DIFF else (0,)), (command, run.stderr)
            if command == "plan":
                matching = answer("explain", cwd=tmp_path, kind="explain")["queries"]
                assert set(matching) == {"live", "archive"}
            if command == "status":
                routes.append(set(answer("status", cwd=tmp_path, kind="status")["routes"]))
    finally:
        run_circinus("destroy", cwd=tmp_path)
    assert matching["live"]["chosen"]["estimate"]["accuracy"]["lower"] >= 0.9
    assert admitted == [False, True]
    assert routes == [{"live", "archive"}, {"live", "archive", "urgent"}]
