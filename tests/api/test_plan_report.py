"""The report of a plan of the starter, from the store, a load test and a time limit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import circinus as c
from circinus.control.managed_plans import ladders_fingerprint
from circinus.control.state_store import ControlStateStore, Event, EventKind
from circinus.matching import Matching
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification.formatting import format_duration, format_interval, format_latency_bound, format_score
from cli_runner import as_a_new_process, run_circinus
from prepared import prepared_starter
from raised import raises_code


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Path]:
    """The starter application, profiled and planned; the working folder."""
    application = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    with as_a_new_process((), application):
        yield application


def test_a_report_needs_no_code_and_says_what_would_change(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")
    for module in folder.rglob("*.py"):
        module.unlink()
    steps: list[str] = []
    page = workspace.report(plan, "new.html", what_if="10min", on_progress=steps.append).read_text(encoding="utf-8")
    assert [step for step in steps if "load" in step] == [f"{load}× load" for load in ("0.5", "1.5", "2", "3", "4")]
    for section in ("summary", "map", "resources", "queries", "profiles", "what-if"):
        assert f'<section id="{section}"' in page
    for section in ("load", "observations", "events"):
        assert f'<section id="{section}"' not in page
    assert "scores measured (" in page
    figures = plan["archive"].chosen.estimate.latency_s
    assert f"{format_duration(figures.value)} ≤ {format_latency_bound(figures.upper)}" in page


def test_bounds_and_verdicts_are_those_of_the_profile_also_where_none_are_stored(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")
    with ProfileStore(workspace.store) as store, store.transaction():
        store.rows("DELETE FROM verdicts")
    (profile,) = workspace.profile_report().values()
    page = workspace.report(plan, what_if=0).read_text(encoding="utf-8")
    for measured in profile.configurations:
        bounds = format_interval(format_score, measured.accuracy)
        verdict = profile.verdicts[measured.configuration].verdict
        assert f"{verdict}: {measured.configuration}" in page
        assert f"{bounds} on {len(measured.items)} items" in page


def test_changes_that_serve_rejected_queries_are_planned(folder: Path) -> None:
    application = c.Workspace(".").specification
    aid, archive = application.queries
    slos = archive.slos.replaced("accuracy", archive.slos.accuracy.with_limit(0.9999))
    queries = (aid, archive.model_copy(update={"slos": slos}))
    workspace = c.Workspace(replace(application, queries=queries), store=Path(".circinus/profiles.sqlite"))
    plan = workspace.plan()
    assert list(plan.rejected) == [archive.name]
    page = workspace.report(plan, what_if="1min").read_text(encoding="utf-8")
    assert "<h3>Changes that serve a rejected query</h3>" in page
    assert "Not computed" not in page


def test_time_is_not_spent_where_none_is_given(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")
    shutil.rmtree(folder / ".circinus")
    page = workspace.report(plan, what_if=0).read_text(encoding="utf-8")
    assert 'id="what-if"' not in page
    assert f"<h3>mend</h3><p>{workspace.store}: " in page
    from_trace = replace(plan, file=replace(plan.file, code_versions={}))
    page = workspace.report(from_trace).read_text(encoding="utf-8")
    assert "trace" in page.split('<section id="profiles"')[1]
    assert "mend" in page.split('<section id="what-if"')[1]


@pytest.mark.slow
def test_a_load_test_stands_beside_the_prediction(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")
    with workspace.deploy(plan, mode="replay", items=4) as deployment:
        measured = deployment.load_test(duration="1s", warm_up="0s", items=4)
    by_value = workspace.report(plan, load=measured, what_if=0).read_text(encoding="utf-8")
    assert 'id="load"' in by_value
    assert by_value.count("measured: ") >= 2 * len(plan)
    document = {"schema_version": 2, "kind": "load", "data": measured.to_dict()}
    Path("load.json").write_text(json.dumps(document), encoding="utf-8")
    assert workspace.report(plan, load="load.json", what_if=0).read_text(encoding="utf-8") == by_value
    document["data"]["machine"] = {"cpus": 2, "own_cpus": 0.1, "others_cpus": 1.9}
    Path("load.json").write_text(json.dumps(document), encoding="utf-8")
    assert "1.9 of the machine" in workspace.report(plan, load="load.json", what_if=0).read_text(encoding="utf-8")
    document["data"]["queries"][0]["predicted"]["latency_s"]["value"] *= 2
    Path("load.json").write_text(json.dumps(document), encoding="utf-8")
    with raises_code(c.PlanningError, "report.other_plan"):
        workspace.report(plan, load="load.json", what_if=0)


def test_a_timeline_has_the_last_run_of_a_controller_of_this_plan(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")

    def report(name: str, matching: Matching) -> str:
        state = json.dumps({"base": f"{ladders_fingerprint(matching)}-options"})
        with closing(ControlStateStore(folder / name)) as store:
            lease = store.acquire("test", 0.0, 9.0)
            for start_s, kept in ((0.0, "earlier"), (100.0, "last")):
                failure = Event(start_s + 5, EventKind.FAILED, "engine", f"{kept} run")
                store.commit(lease, state, (Event(start_s, EventKind.STARTED, "plans", f"{kept} start"), failure))
        return workspace.report(plan, state_file=folder / name, what_if=0).read_text(encoding="utf-8")

    page = report("own.sqlite", plan.matching)
    assert "last run" in page
    assert "earlier run" not in page
    other = replace(plan.matching, assignments=plan.matching.assignments[:1])
    assert 'id="events"' not in report("other.sqlite", other)
    shared = folder / "shared" / "own.sqlite"
    ControlStateStore(shared).close()
    shared.parent.chmod(0o777)
    with pytest.warns(UserWarning, match="other users"):
        page = workspace.report(plan, state_file=shared, what_if=0).read_text(encoding="utf-8")
    assert 'id="events"' not in page


def test_errors_have_codes(folder: Path) -> None:
    workspace, plan = c.Workspace.open_plan(folder / "plan.json")
    query = {"query": "q", "latency_s": {"percentile": "x"}}
    damaged = json.dumps({"kind": "load", "data": {"schema_version": 3, "queries": [query]}})
    for content in ("{}", "no JSON", '{"kind": "plan", "data": {}}', damaged, "[" * 100_000):
        Path("load.json").write_text(content, encoding="utf-8")
        with raises_code(c.PlanningError, "report.no_load_test"):
            workspace.report(plan, load="load.json")
    with raises_code(c.PlanningError, "report.no_load_test") as caught:
        workspace.report(plan, load="/dev/null")
    assert "Errno" not in caught.value.message
    with raises_code(c.CircinusError, "file.missing"):
        workspace.report(plan, state_file="missing.sqlite")
    with raises_code(c.PlanningError, "report.unwritable"):
        workspace.report(plan, "missing/report.html", what_if=0)
    fewer = replace(workspace.specification, queries=workspace.specification.queries[:1])
    with raises_code(c.StalePlanError, "plan.stale"):
        c.Workspace(fewer, store=workspace.store).report(plan, what_if=0)


def test_the_command_writes_the_page(folder: Path) -> None:
    run = run_circinus("report", "--what-if", "0", "-o", "page.html", cwd=folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "page.html" in run.stdout
