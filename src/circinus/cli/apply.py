"""`circinus apply`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from circinus.api.replay_recording import DEFAULT_REPLAY_ITEMS
from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    Address,
    Http,
    Json,
    Kind,
    PlanFile,
    RunDir,
    host_and_port,
)
from circinus.serving.local import DEFAULT_RUN_FOLDER


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
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    http: Http = "",
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Deploy exactly what a plan file says; refuse it when the specification or the code changed since."""
    from circinus.api.deployment import apply_state
    from circinus.api.engine_options import EngineOptions
    from circinus.api.plan_context import load_plan
    from circinus.api.replay_recording import record_plans
    from circinus.cli.output import console, print_json, profile_progress, warn_of_controller
    from circinus.reporting.control_table import status_table
    from circinus.serving import Mode

    replay = Mode(mode) is Mode.REPLAY
    chosen = EngineOptions(engine, run_dir, address, host_and_port(http))
    opened = load_plan(plan_file, needs_store=replay)
    opened.require_served_query(str(plan_file))
    if replay:
        plans = [assignment.chosen.plan for assignment in opened.plan_set.matching.assignments]
        record_plans(
            opened.specification, opened.store, plans, items, seed=opened.plan_set.seed, progress=profile_progress
        )
    found = apply_state(opened.desired_state(Mode(mode)), chosen)
    warn_of_controller(chosen)
    if json:
        print_json("apply", {"healthy": found.healthy, **vars(found)})
    else:
        console().print(status_table(found))
        console().print(f"next: circinus load {plan_file}{chosen.options}", highlight=False)
