"""`circinus load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    Address,
    Json,
    Kind,
    PlanFile,
    RunDir,
    duration_option,
    factor_option,
    positive_duration_option,
)
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    pass


def load(
    plan_file: PlanFile = DEFAULT_PLAN,
    duration: Annotated[
        float,
        typer.Option(parser=positive_duration_option, metavar="DURATION", help="Measured time.", show_default="30s"),
    ] = 30.0,
    warm_up: Annotated[
        float,
        typer.Option(
            parser=duration_option, metavar="DURATION", help="Time before it that is not measured.", show_default="5s"
        ),
    ] = 5.0,
    rate_factor: Annotated[
        float,
        typer.Option(parser=factor_option, metavar="TIMES", help="Multiplies every query's rate.", show_default="1x"),
    ] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(help="CSV file (time_s,query) with arrivals, instead of those that queries ask for.")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items that planning did not see are sent.")] = 16,
    seed: Annotated[int, typer.Option(help="Of arrivals and of the order of items.")] = 0,
    keep_observations: Annotated[
        bool,
        typer.Option(
            " /--no-keep-observations",
            show_default=False,
            help="Do not keep for later plans what was observed of service times.",
        ),
    ] = True,
    controlled: Annotated[
        bool,
        typer.Option(
            "--controlled", help="The engine is kept by circinus serve: queries may be on other rungs of their ladders."
        ),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Send open-loop traffic to the applied plans and measure every request against every objective."""
    from circinus.api.engine_options import EngineOptions
    from circinus.api.load_test import keep_observations as keep
    from circinus.api.load_test import run_load_test
    from circinus.api.plan_context import load_plan
    from circinus.cli.output import console, print_json, progress_console
    from circinus.reporting.load_table import load_table, service_time_text
    from circinus.reporting.progress import load_bar
    from circinus.serving.loadtest.load_test import LoadSpec

    opened = load_plan(plan_file)
    traffic = LoadSpec(duration_s=duration, warm_up_s=warm_up, rate_factor=rate_factor, seed=seed, trace=trace)
    chosen = EngineOptions(engine, run_dir, address)
    with load_bar(progress_console()) as bar:
        result = run_load_test(
            opened, chosen, traffic, items=items, controlled=controlled, location=str(plan_file), on_progress=bar
        )
    report, seen, sent = result.measured, result.profiled_items_sent, result.items_sent
    why_not_kept = keep(opened, result) if keep_observations else "--no-keep-observations"
    if json:
        further = {"items_sent": sent, "items_sent_seen_by_planning": seen, "observations_kept": not why_not_kept}
        print_json("load", {**vars(report), **further})
        return
    console().print(load_table(report))
    if report.learning is not None:
        console().print(service_time_text(report.learning, why_not_kept))
    if seen:
        console().print(
            f"{seen} of the {sent} different items sent were measured when planning, too: their accuracy is no test of "
            "the plan's promise",
            style="yellow",
        )
