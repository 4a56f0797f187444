"""`circinus apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.cli.opened_plan import OpenedPlan
    from circinus.serving import DesiredState, EngineStatus
    from circinus.spec import Configuration

DEFAULT_REPLAY_ITEMS = 16


def apply(
    plan_file: PlanFile = DEFAULT_PLAN,
    mode: Annotated[
        Literal["real", "replay"],
        typer.Option(
            help="real: replicas compute, and the infrastructure must fit this machine. replay: they answer from "
            "recorded outputs and sleep the recorded service times."
        ),
    ] = "real",
    items: Annotated[
        int,
        typer.Option(min=1, help="In replay: how many items that planning did not see are recorded for each plan."),
    ] = DEFAULT_REPLAY_ITEMS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Deploy exactly what a plan file says; refuse it when the specification or the code changed since."""
    from circinus.cli.opened_plan import open_plan
    from circinus.cli.output import console, print_json
    from circinus.errors import PlanningError
    from circinus.reporting.status_table import status_table
    from circinus.serving import Mode

    replay = Mode(mode) is Mode.REPLAY
    opened = open_plan(plan_file, needs_store=replay)
    if not opened.plan_set.matching.assignments:
        raise PlanningError(f"{plan_file}: found no query that is served, expected at least one; see circinus explain")
    if replay:
        _record(opened, items)
    found = _deploy(opened.desired_state(Mode(mode)), run_dir)
    if json:
        print_json("apply", {"healthy": found.healthy, **vars(found)})
    else:
        console().print(status_table(found))
        console().print(f"next: circinus load {plan_file}", highlight=False)


def _record(opened: OpenedPlan, items: int) -> None:
    """Record every configuration in use on items that planning did not see."""
    from circinus.cli.output import progress_console
    from circinus.profiling import record_held_out
    from circinus.reporting.progress import profile_bar

    by_pipeline: dict[str, dict[Configuration, None]] = {}
    for assignment in opened.plan_set.matching.assignments:
        chosen = assignment.chosen.plan
        by_pipeline.setdefault(chosen.pipeline, {})[chosen.configuration] = None
    for name, configurations in by_pipeline.items():
        with profile_bar(progress_console(), name) as bar:
            record_held_out(
                opened.specification,
                name,
                opened.store,
                configurations=list(configurations),
                items_count=items,
                seed=opened.plan_set.seed,
                observer=bar,
            )


def _deploy(desired: DesiredState, run_dir: Path) -> EngineStatus:
    import asyncio

    from circinus.errors import ServingError
    from circinus.serving.local.client import connect, start_daemon

    async def deploy() -> EngineStatus:
        try:
            client, started = connect(run_dir), False
        except ServingError:
            client, started = start_daemon(run_dir), True
        try:
            await client.apply(desired)
            return await client.status()
        except BaseException:
            if started:  # an engine that runs nothing is of no use to anybody, however its first state failed
                await client.close()
            raise
        finally:
            await client.disconnect()

    return asyncio.run(deploy())
