"""`circinus apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.cli.options import DEFAULT_PLAN, DEFAULT_RUN_DIR, Json, PlanFile, RunDir

if TYPE_CHECKING:
    from circinus.matching import PlanSet
    from circinus.serving import DesiredState, EngineStatus
    from circinus.spec import Specification

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
    seed: Annotated[int, typer.Option(help="Of the order in which items are measured.")] = 0,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    json: Json = False,
) -> None:
    """Deploy exactly what a plan file says; refuse it when the specification or the code changed since."""
    from circinus.cli.output import console, print_json
    from circinus.cli.specification_of import profile_store_of, specification_of
    from circinus.matching import check_fresh, load_plan_set
    from circinus.reporting.status_table import status_table
    from circinus.serving import Mode
    from circinus.serving.deploy import desired_state

    plan_set = load_plan_set(plan_file)
    specification = specification_of(plan_set, plan_file)
    check_fresh(plan_set, specification)
    store = profile_store_of(plan_set, plan_file)
    if Mode(mode) is Mode.REPLAY:
        record_configurations(plan_set, specification, store, items, seed)
    desired = desired_state(plan_set.matching, specification, Mode(mode), store.resolve(), plan_set.operator_versions)
    found = _deploy(desired, run_dir)
    if json:
        print_json("apply", {"healthy": found.healthy, **vars(found)})
    else:
        console().print(status_table(found))
        console().print(f"next: circinus load {plan_file}", highlight=False)


def record_configurations(plan_set: PlanSet, specification: Specification, store: Path, items: int, seed: int) -> None:
    """Record every configuration in use on items that planning did not see."""
    from circinus.cli.output import progress_console
    from circinus.profiling import record_held_out
    from circinus.reporting.progress import profile_bar

    by_pipeline: dict[str, dict[object, None]] = {}
    for assignment in plan_set.matching.assignments:
        chosen = assignment.chosen.plan
        by_pipeline.setdefault(chosen.pipeline, {})[chosen.configuration] = None
    for name, configurations in by_pipeline.items():
        with profile_bar(progress_console(), f"{name}: recording") as bar:
            record_held_out(
                specification,
                name,
                store,
                configurations=list(configurations),  # type: ignore[arg-type]
                items_count=items,
                seed=seed,
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
        except ServingError:
            if started:  # an engine that runs nothing is of no use to anybody
                await client.close()
            raise
        finally:
            await client.disconnect()

    return asyncio.run(deploy())
