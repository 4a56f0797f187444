"""`circinus load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import DEFAULT_PLAN, DEFAULT_RUN_DIR, Json, PlanFile, RunDir, duration_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circinus.matching import Matching
    from circinus.operators import Item
    from circinus.serving import Mode
    from circinus.serving.load import Traffic
    from circinus.serving.measurement import LoadReport
    from circinus.spec import Specification


def load(
    plan_file: PlanFile = DEFAULT_PLAN,
    duration: Annotated[float, typer.Option(parser=duration_option, metavar="DURATION", help="Measured time.")] = 30.0,
    warm_up: Annotated[
        float, typer.Option(parser=duration_option, metavar="DURATION", help="Time before it that is not measured.")
    ] = 5.0,
    rate_factor: Annotated[float, typer.Option(help="Multiplies every query's rate.")] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(help="CSV file (time_s,query) with arrivals, instead of Poisson ones.")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items that planning did not see are sent.")] = 16,
    seed: Annotated[int, typer.Option(help="Of arrivals and of the order of items.")] = 0,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    json: Json = False,
) -> None:
    """Send open-loop traffic to the applied plans and measure every request against every objective."""
    from circinus.cli.output import console, print_json
    from circinus.cli.specification_of import profile_store_of, specification_of
    from circinus.matching import check_fresh, load_plan_set
    from circinus.reporting.load_table import load_table
    from circinus.serving.load import Traffic

    plan_set = load_plan_set(plan_file)
    specification = specification_of(plan_set, plan_file)
    check_fresh(plan_set, specification)
    traffic = Traffic(duration_s=duration, warm_up_s=warm_up, rate_factor=rate_factor, seed=seed, trace=trace)
    store = profile_store_of(plan_set, plan_file)
    report = _run(specification, plan_set.matching, store, items, traffic, run_dir)
    if json:
        print_json("load", report)
    else:
        console().print(load_table(report))


def _run(
    specification: Specification, matching: Matching, store: Path, items: int, traffic: Traffic, run_dir: Path
) -> LoadReport:
    import asyncio

    from circinus.cli.output import progress_console
    from circinus.reporting.progress import load_bar
    from circinus.serving.load import run_load
    from circinus.serving.local.client import connect
    from circinus.serving.local.fine_timers import new_event_loop

    async def run() -> LoadReport:
        client = connect(run_dir)
        try:
            mode = (await client.status()).mode
            chosen = items_to_send(specification, matching, store, items, mode)
            with load_bar(progress_console()) as bar:
                return await run_load(client, specification, matching, chosen, traffic, bar)
        finally:
            await client.disconnect()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # sends on time, to a fraction of a millisecond
        return runner.run(run())


def items_to_send(
    specification: Specification, matching: Matching, store: Path, count: int, mode: Mode
) -> dict[str, Sequence[Item]]:
    """For each pipeline in use up to `count` items that planning did not see; in replay, of those that are recorded."""
    from circinus.profiling import load_dataset, load_recordings
    from circinus.serving import Mode
    from circinus.spec import prefix

    chosen: dict[str, Sequence[Item]] = {}
    for name in {assignment.chosen.plan.pipeline for assignment in matching.assignments}:
        pipeline = specification.pipelines[name]
        held_out = load_dataset(pipeline, specification.module_paths).held_out(count)
        if mode is Mode.REPLAY:
            plans = [a.chosen.plan for a in matching.assignments if a.chosen.plan.pipeline == name]
            prefixes = {
                prefix(pipeline, plan.configuration, operator.name) for plan in plans for operator in pipeline.operators
            }
            recorded = set(load_recordings(store, name, prefixes).items)
            held_out = tuple(item for item in held_out if item.key in recorded)
        chosen[name] = held_out
    return chosen
