"""Paths and follow-up commands that verbs print: unchanged, and quoted where a shell would split them."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli_runner import in_one_line, run_circinus


def test_the_next_command_quotes_the_folder(tmp_path: Path) -> None:
    run = run_circinus("init", "my app", cwd=tmp_path)
    assert "next: cd 'my app' && circinus validate" in run.stdout


def test_a_path_is_printed_as_it_is(application: Path) -> None:
    output = Path("[bold]x" + "y" * 200, "plan.json")
    (application / output).parent.mkdir()
    run = run_circinus("plan", "-o", str(output), cwd=application)
    assert f"written to {output}\n" in run.stdout


def test_an_unknown_query_or_pool_is_a_usage_error(application: Path) -> None:
    pools = (("--keep", "nothing"), ("--max-nodes", "nothing=1"), ("--keep", "region", "--max-nodes", "region=1"))
    for typed in (("admit", "nothing"), ("explain", "plan.json", "nothing"), *(("size", *pool) for pool in pools)):
        run = run_circinus(*typed, cwd=application)
        assert (run.returncode, "expected one of" in in_one_line(run.stderr)) == (2, True)


def test_the_command_after_apply_names_plan_and_engine(application: Path) -> None:
    shutil.copy(application / "plan.json", application / "my plan.json")
    engine = "--run-dir", "my run"
    try:
        run = run_circinus("apply", "my plan.json", "--mode", "replay", *engine, cwd=application)
        assert "next: circinus load 'my plan.json' --run-dir 'my run'\n" in run.stdout, run.stderr
    finally:
        run_circinus("destroy", *engine, cwd=application)
