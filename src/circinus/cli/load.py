"""`circinus load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    DEFAULT_RUN_FOLDER,
    ENGINE,
    OUTPUT,
    PROFILES,
    TRAFFIC,
    WARM_UP,
    Address,
    Json,
    Kind,
    LoadFactor,
    PlanFile,
    RunDir,
    TrafficSeed,
    Trust,
    duration_option,
    positive_duration_option,
    quantity,
)

if TYPE_CHECKING:
    from circinus.api.reports import LoadReport


def load(
    plan_file: PlanFile = DEFAULT_PLAN,
    duration: Annotated[float, quantity(positive_duration_option, "Measured time.", "30s", TRAFFIC)] = 30.0,
    warm_up: Annotated[float, quantity(duration_option, WARM_UP, "5s", TRAFFIC)] = 5.0,
    load_factor: LoadFactor = 1.0,
    arrivals: Annotated[
        Path | None,
        typer.Option(
            help="CSV file (time_s,query) with arrivals, instead of the queries' own.",
            rich_help_panel=TRAFFIC,
        ),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of held-out items to send for each pipeline; in a replay of the recorded ones.",
            show_default="all",
            rich_help_panel=TRAFFIC,
        ),
    ] = None,
    seed: TrafficSeed = 0,
    no_keep_observations: Annotated[
        bool,
        typer.Option(
            "--no-keep-observations",
            help="Do not store the observed service times, which correct later plans.",
            rich_help_panel=PROFILES,
        ),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    trust: Trust = False,
    controlled: Annotated[
        bool,
        typer.Option(
            "--controlled",
            help="Allow an engine that `circinus serve` controls, which may have degraded queries.",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    fail_on_miss: Annotated[
        bool,
        typer.Option(
            "--fail-on-miss",
            help="End with exit code 1 if a served query misses an SLO beyond chance.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Send open-loop traffic to the applied plan, and measure every request against the SLOs."""
    from circinus.cli.output import open_plan, print_json, progress_console
    from circinus.reporting.progress import load_bar

    workspace, plan = open_plan(plan_file, engine=engine, run_dir=run_dir, address=address, trust=trust)
    with load_bar(progress_console()) as bar:
        report = workspace.attach(plan).load_test(
            duration=duration,
            warm_up=warm_up,
            load_factor=load_factor,
            arrivals=arrivals,
            items=items,
            seed=seed,
            keep_observations=not no_keep_observations,
            controlled=controlled,
            on_progress=bar,
        )
    if json:
        print_json("load", report.to_dict())
    else:
        _print(report, keep_observations=not no_keep_observations)
    if report.measured.engine_end_s is not None or (fail_on_miss and report.missed):
        raise typer.Exit(1)


def _print(report: LoadReport, *, keep_observations: bool) -> None:
    from circinus.cli.output import console
    from circinus.reporting.load_table import load_table, service_time_text
    from circinus.reporting.wrapping import print_wrapped

    console().print(load_table(report.measured))
    learning = report.measured.learning if report.measured.mode == "real" else None
    reason = report.not_stored_reason if keep_observations else "--no-keep-observations"
    console().print(service_time_text(learning, reason))
    for warning in report.warnings:
        print_wrapped(console(), f"warning: {warning}", style="yellow")
    if report.profiled_items_sent:
        console().print(
            f"{report.profiled_items_sent} of the {report.items_sent} items to send were also measured for the "
            "profile: their accuracy is no test of the plan",
            style="yellow",
        )
