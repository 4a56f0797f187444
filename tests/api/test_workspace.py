"""Behaviour of the Python API beyond its examples: errors, logging, threads and event loops."""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

import circinus as c
from budget import HANG_LIMIT_S
from circinus.api.control import PlanController
from circinus.api.synchronous import outside_loop, run
from circinus.profiling.observer import ProfileProgress, SilentObserver
from cli_runner import as_a_new_process
from prepared import prepared_starter
from raised import raises_code


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[c.Workspace]:
    """The starter application, profiled and planned; its folder is the working folder."""
    folder = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    with as_a_new_process((), folder):
        yield c.Workspace(".")


def test_unknown_names_are_errors_with_codes(workspace: c.Workspace) -> None:
    plan = workspace.load_plan()
    with raises_code(c.PlanningError, "query.unknown") as caught:
        workspace.admit("archiv", plan)
    assert caught.value.location == "queries.yaml"
    assert "archive" in caught.value.hint
    with raises_code(c.PlanningError, "query.unknown"):
        workspace.explain(plan, ["nothing"])
    with raises_code(c.PlanningError, "query.unknown"):
        workspace.frontier("nothing")
    with raises_code(c.ProfileError, "pipeline.unknown"):
        workspace.profile(["nothing"])


def test_a_plan_is_written_only_where_it_is_asked_for(workspace: c.Workspace) -> None:
    before = Path("plan.json").read_bytes()
    one = replace(workspace.specification, queries=workspace.specification.queries[:1])
    running = c.Workspace(one, store=workspace.store).plan()
    with raises_code(c.PlanningError, "query.not_planned"):
        workspace.explain(running, ["archive"])
    result = workspace.admit("archive", running)
    assert result.written is None
    assert workspace.admit("archive", running, output="admitted.json").written == Path("admitted.json")
    assert set(c.Plan.load("admitted.json")) == set(result.plan) == {"typing-aid", "archive"}
    assert Path("plan.json").read_bytes() == before
    assert workspace.admit("archive", replace(running, path=Path("plan.json"))).plan.path is None


def test_a_plan_can_be_opened_wherever_it_was_written(workspace: c.Workspace) -> None:
    copy = workspace.load_plan().save("deep/er/copy.json")
    _, plan = c.Workspace.open_plan(copy, needs_store=True)
    assert plan.matching == workspace.load_plan().matching
    one = replace(workspace.specification, queries=workspace.specification.queries[:1])
    running = c.Workspace(one, store=workspace.store).plan()
    admitted = workspace.admit("archive", running, output="other/plan.json").plan
    assert admitted.path is not None
    assert c.Workspace.open_plan(admitted.path, needs_store=True)[1].file == admitted.file


def test_a_plan_of_objects_in_python_is_opened_without_them(workspace: c.Workspace) -> None:
    files = workspace.specification
    objects = (files.pipelines.values(), files.infrastructure)
    one, both = (c.Specification.of(*objects, files.queries[:n], files.module_paths) for n in (1, 2))
    made = c.Workspace(one, store=workspace.store).plan(output="one/plan.json")
    opened, plan = c.Workspace.open_plan(made.save("copies/plan.json"), needs_store=True)
    assert (opened.specification, opened.specification.module_paths) == (one, one.module_paths)
    assert plan.matching == made.matching
    c.Workspace(both, store=workspace.store).admit("archive", plan, output="plan.json")
    assert c.Workspace.open_plan()[0].specification == both
    neither = replace(made.file, inline=None)
    with raises_code(c.PlanningError, "plan.no_specification"):
        c.Workspace.open_plan(replace(made, file=neither).save("one/plan.json"))


def test_a_plan_of_another_specification_is_stale(workspace: c.Workspace) -> None:
    plan = workspace.load_plan()
    one = c.Workspace(replace(workspace.specification, queries=workspace.specification.queries[:1]))
    for use in (one.deploy, one.control):
        with raises_code(c.StalePlanError, "plan.stale"):
            use(plan, mode="replay")  # type: ignore[operator]


def test_a_plan_that_serves_no_query_is_not_controlled(workspace: c.Workspace) -> None:
    queries = tuple(
        query.model_copy(update={"slos": c.Slos.parse(["latency p95 <= 1us"])})
        for query in workspace.specification.queries
    )
    hopeless = c.Workspace(replace(workspace.specification, queries=queries), store=workspace.store)
    plan = hopeless.plan()
    assert set(plan.rejected) == {"typing-aid", "archive"}
    with raises_code(c.PlanningError, "plan.no_served_query"):
        hopeless.control(plan, mode="replay")


def test_forgetting_needs_a_selection(workspace: c.Workspace) -> None:
    with raises_code(c.ProfileError, "forget.no_selection"):
        workspace.forget()
    with raises_code(c.ProfileError, "forget.ambiguous"):
        workspace.forget(operator="clean", everything=True)
    with raises_code(c.ProfileError, "forget.no_match"):
        workspace.forget(operator="clean")


def test_use_cases_log_below_circinus(workspace: c.Workspace, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "circinus"):
        workspace.plan()
    assert any(
        record.name.startswith("circinus.api.") and "planned 2 of 2 queries" in record.message
        for record in caplog.records
    )


def test_without_a_handler_nothing_is_logged() -> None:
    code = "import logging, circinus as c; c.Workspace; logging.getLogger('circinus.api').warning('unseen')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""


@pytest.mark.slow
def test_a_controller_is_stopped_from_another_thread(workspace: c.Workspace) -> None:
    began = Event()
    controller = workspace.control(workspace.load_plan(), mode="replay", on_event=lambda event: began.set())
    thread = Thread(target=controller.run, daemon=True)
    thread.start()
    try:
        assert began.wait(HANG_LIMIT_S)
        assert workspace.engine.controller() != ""
        controller.stop()
        thread.join(HANG_LIMIT_S)
        assert not thread.is_alive()
        assert workspace.engine.controller() == ""
    finally:
        controller.stop()
        thread.join(HANG_LIMIT_S)
        workspace.engine.close()


def test_a_controller_runs_again_and_leaves_signal_handlers(
    workspace: c.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []

    async def wait(self: PlanController, stop: asyncio.Event) -> None:
        waited.append(not stop.is_set())
        asyncio.get_running_loop().call_later(0.01, self.stop)
        await stop.wait()

    def handler(number: int, frame: object) -> None: ...

    monkeypatch.setattr(PlanController, "_control", wait)
    controller = workspace.control(workspace.load_plan(), mode="replay")
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        controller.stop()
        for _ in range(3):
            controller.run()
            assert all(signal.getsignal(number) is handler for number in before)
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
    assert waited == [False, True, True]


def test_a_controller_names_and_repeats_recordings_of_a_busy_machine(
    workspace: c.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, options, phases = workspace.load_plan(), c.ControlOptions(items=2), set[str]()

    class Phases(SilentObserver):
        def progressed(self, progress: ProfileProgress) -> None:
            phases.add(progress.phase)

    workspace.control(plan, options, mode="replay")
    with closing(sqlite3.connect(workspace.store)) as store, store:
        store.execute("UPDATE run_times SET wait_s = elapsed_s")
        store.execute("DELETE FROM checksum")
    monkeypatch.setattr("circinus.profiling.profiler.busy_share", lambda: 1.0)
    controller = workspace.control(plan, options, mode="replay")
    (warning,) = controller.warnings
    assert "clean" in warning
    assert "circinus serve" in warning
    monkeypatch.setattr("circinus.profiling.profiler.busy_share", lambda: 0.0)
    source = controller._source
    assert source.prepare(source.managed) == ()  # as a running controller does: it repeats nothing, and warns once
    assert controller.warnings == (warning,)
    source.warnings = ()
    assert source.prepare(source.managed) == (warning,)
    workspace.control(plan, options, mode="replay", progress=lambda _: nullcontext(Phases()))
    assert "disturbed runs" in phases


@pytest.mark.slow
def test_a_dry_run_needs_an_engine(workspace: c.Workspace) -> None:
    controller = workspace.control(workspace.load_plan(), c.ControlOptions(dry_run=True), mode="replay")
    with pytest.raises(c.ServingError):
        controller.run()


def test_synchronous_calls_work_inside_a_running_event_loop() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def call() -> int:
        return run(answer)

    assert run(answer) == asyncio.run(call()) == 42


def test_an_interruption_cancels_the_other_thread() -> None:
    cancelled = Event()

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def call() -> None:
        outside_loop(interrupted, cancelled.set)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(call())
    assert cancelled.is_set()
