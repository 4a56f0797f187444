"""Every command of `docs/tutorial.md` runs on the files of the page, and its plan serves both queries."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli_runner import answer, run_circinus

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`(notes\.\w+)` .*?```\w+\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ circinus (.*)$", PAGE, flags=re.MULTILINE)


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    assert [name for name, _ in FILES] == ["notes.py", "notes.yaml"]
    for name, content in FILES:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert COMMANDS[-1] == "destroy"
    try:
        for command in COMMANDS:
            if command == "plan --diff":
                specification = tmp_path / "notes.yaml"
                text = specification.read_text(encoding="utf-8")
                specification.write_text(text.replace("rate: 4/s", "rate: 8/s"), encoding="utf-8")
            run = run_circinus(*shlex.split(command), cwd=tmp_path)
            assert run.returncode == 0 or (command, run.returncode) == ("plan --diff", 4), (command, run.stderr)
            if command == "plan":
                matching = answer("explain", cwd=tmp_path, kind="explain")
                assert set(matching) == {"live", "archive"}
            if command == "status":
                assert set(answer("status", cwd=tmp_path, kind="status")["routes"]) == {"live", "archive"}
    finally:
        run_circinus("destroy", cwd=tmp_path)
