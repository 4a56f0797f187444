"""The complete example of `docs/operators.md` is what it says: an application that profiles and plans."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")


def _run(folder: Path, *arguments: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-m", "circinus", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)["data"]


def test_the_example_with_two_branches_runs(tmp_path: Path) -> None:
    example = PAGE.partition("## A complete example with two branches")[2]
    files = re.findall(r"`(triage\.\w+)` .*?```\w+\n(.*?)```", example, flags=re.DOTALL)
    assert [name for name, _ in files] == ["triage.py", "triage.yaml"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert _run(tmp_path, "validate")["pipelines"] == {"triage": {"operators": 4, "configurations": 4}}
    (profile,) = _run(tmp_path, "profile")
    accurate = {
        (found["configuration"]["topic"]["vocabulary"], found["configuration"]["urgency"]["signs"])
        for found in profile["configurations"]
        if found["accuracy"]["lower"] >= 0.9
    }
    assert accurate == {(3, "many")}
    matching = _run(tmp_path, "plan")["plan_set"]["matching"]
    (assignment,) = matching["assignments"]
    assert assignment["query"] == "inbox"
    chosen = dict(assignment["chosen"]["plan"]["configuration"]["operators"])
    assert chosen["topic"]["values"] == [["vocabulary", 3]]
    assert chosen["urgency"]["values"] == [["signs", "many"]]
    assert "inbox" in _run(tmp_path, "explain")
