"""Plan files of other users: reading them runs no code, and what would run it refuses to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import circinus as c
from circinus.api.plan_context import load_plan
from circinus.api.plan_source import PlanFileSource
from circinus.serving import Mode
from cli_runner import answer, as_a_new_process, run_circinus
from raised import raises_code

READING = (
    ("explain", "plan.json"),
    ("simulate", "plan.json", "--duration", "1min"),
    ("report", "plan.json", "--what-if", "1s"),
    ("render", "kubernetes", "plan.json", "--image", "shop:1"),
)
RUNNING = (
    ("apply", "plan.json"),
    ("apply", "plan.json", "--mode", "replay"),
    ("serve", "plan.json", "--dry-run"),
    ("load", "plan.json", "--duration", "1s"),
    ("request", "archive", "--plan", "plan.json"),
    ("admit", "another", "--plan", "plan.json"),
)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that the code of the foreign application writes when it is imported."""
    return tmp_path / "marker"


@pytest.fixture
def inbox(application: Path, marker: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with a plan file whose specification is elsewhere, with code that was changed after profiling."""
    code = f"open({str(marker)!r}, 'a').write('imported')\n"
    for module in (application / "starter").glob("*.py"):
        module.write_text(f"{module.read_text(encoding='utf-8')}\n{code}", encoding="utf-8")
    first = (application / "queries.yaml").read_text(encoding="utf-8").split("---")[0]
    (application / "further.yaml").write_text(first.replace("typing-aid", "another"), encoding="utf-8")
    folder = tmp_path / "inbox"
    c.Plan.load(application / "plan.json").save(folder / "plan.json")
    edit(folder / "plan.json", lambda plan: plan.update(seal="00" * 16, code_files={}))
    yield folder
    run_circinus("destroy", cwd=folder)


def edit(plan_file: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(plan_file.read_text(encoding="utf-8"))
    change(document)
    plan_file.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("verb", READING, ids=lambda verb: verb[0])
def test_reading_a_plan_runs_none_of_its_code(verb: tuple[str, ...], inbox: Path, marker: Path) -> None:
    run = run_circinus(*verb, cwd=inbox)
    assert run.returncode == 0, run.stderr
    assert not marker.exists()


@pytest.mark.parametrize("verb", RUNNING, ids=" ".join)
def test_code_of_a_foreign_plan_is_refused(verb: tuple[str, ...], inbox: Path, marker: Path) -> None:
    error = answer(*verb, cwd=inbox, kind="error", code=1)
    assert error["code"] == "plan.untrusted_code"
    assert str(inbox.parent / "application") in error["message"]
    assert not marker.exists()
    assert not (inbox / ".circinus").exists()


def test_trust_runs_the_code(inbox: Path, marker: Path) -> None:
    run = run_circinus("admit", "another", "--plan", "plan.json", "--trust", "--json", cwd=inbox)
    assert json.loads(run.stdout)["data"]["code"] == "profile.not_measured", "its code was changed after profiling"
    assert marker.exists()


def test_methods_that_run_code_need_trust(inbox: Path, marker: Path) -> None:
    with as_a_new_process((), inbox):
        workspace, plan = c.Workspace.open_plan("plan.json")
        calls: tuple[Callable[[], object], ...] = (
            workspace.validate,
            workspace.profile,
            workspace.profile_report,
            workspace.calibrate,
            lambda: workspace.import_times("times.csv"),
            lambda: workspace.record_trace("mend.trace"),
            workspace.plan,
            workspace.size,
            lambda: workspace.frontier("archive"),
            lambda: workspace.admit("archive", plan),
            lambda: workspace.deploy(plan),
            lambda: workspace.control(plan, mode="replay"),
            lambda: workspace.attach(plan),
        )
        for call in calls:
            with raises_code(c.PlanningError, "plan.untrusted_code"):
                call()
    assert not marker.exists()


def test_a_controller_adopts_no_plan_of_another_user(inbox: Path, application: Path, marker: Path) -> None:
    (application / "further.yaml").unlink()
    with as_a_new_process((), inbox):
        opened = load_plan(Path("plan.json"))
        sources = [PlanFileSource(opened, Mode.REAL, 1.0, 10.0, trust=trust) for trust in (False, True)]
        with raises_code(c.PlanningError, "plan.untrusted_code"):
            sources[0].planner().latest(sources[0].managed)
        assert sources[1].planner().latest(sources[1].managed).fingerprint == sources[1].managed.fingerprint
    assert not marker.exists()


def test_own_plans_are_read_without_their_code(application: Path) -> None:
    with as_a_new_process((), application):
        workspace, plan = c.Workspace.open_plan("plan.json", needs_store=True)
        workspace.explain(plan)
        workspace.simulate(plan, duration="1min")
        workspace.render_kubernetes(plan, image="shop:1")
        workspace.load_plan("plan.json")
        workspace.validate()  # in the process of user code
        assert not {name for name in sys.modules if name.partition(".")[0] == "starter"}


def test_changed_code_makes_a_plan_stale_for_readers(application: Path) -> None:
    (application / "starter" / "words.py").open("a").write("\n# changed\n")
    for verb in ("explain", "simulate", "load"):
        assert answer(verb, cwd=application, kind="error", code=3)["code"] == "plan.stale"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda plan, pipe: plan.update(files=[pipe]), "plan.no_file"),
        (lambda plan, pipe: plan.update(files=["/dev/zero"]), "plan.no_file"),
        (lambda plan, pipe: plan.update(profile_store=pipe), "plan.no_file"),
        (lambda plan, pipe: plan.update(code_files=dict.fromkeys(plan["code_versions"], pipe)), "plan.stale"),
        (lambda plan, pipe: plan.update(code_files=dict.fromkeys(plan["code_versions"], "/dev/zero")), "plan.stale"),
        (lambda plan, pipe: plan.update(code_files=dict.fromkeys(plan["code_versions"], "a\0b")), "plan.damaged"),
        (lambda plan, pipe: plan.update(files=["\ud800"]), "plan.damaged"),
        (lambda plan, pipe: plan.update(profile_store="\ud800"), "plan.damaged"),
    ],
)
def test_paths_in_a_plan_file_are_those_of_files(
    change: Callable[[Any, str], object], code: str, inbox: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    edit(inbox / "plan.json", lambda plan: change(plan, str(tmp_path / "pipe")))
    with as_a_new_process((), inbox), raises_code(c.CircinusError, code):
        c.Workspace.open_plan("plan.json")
