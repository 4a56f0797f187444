"""The complete example of `docs/operators.md` is what it says: an application that profiles and plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli_runner import answer

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_with_two_branches_runs(tmp_path: Path) -> None:
    example = PAGE.partition("## A complete example with two branches")[2]
    files = re.findall(r"`(triage\.\w+)` .*?```\w+\n(.*?)```", example, flags=re.DOTALL)
    assert [name for name, _ in files] == ["triage.py", "triage.yaml"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert answer("validate", cwd=tmp_path, kind="validate")["pipelines"] == {
        "triage": {"operators": 4, "configurations": 4}
    }
    (profile,) = answer("profile", cwd=tmp_path, kind="profile")
    accurate = {
        (found["configuration"]["topic"]["vocabulary"], found["configuration"]["urgency"]["signs"])
        for found in profile["configurations"]
        if found["accuracy"]["lower"] >= 0.9
    }
    assert accurate == {(3, "many")}
    matching = answer("plan", cwd=tmp_path, kind="plan")["plan_set"]["matching"]
    (assignment,) = matching["assignments"]
    assert assignment["query"] == "inbox"
    chosen = dict(assignment["chosen"]["plan"]["configuration"]["operators"])
    assert chosen["topic"]["values"] == [["vocabulary", 3]]
    assert chosen["urgency"]["values"] == [["signs", "many"]]
    assert "inbox" in answer("explain", cwd=tmp_path, kind="explain")["queries"]
