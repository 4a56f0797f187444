"""`circinus serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    DEFAULT_RUN_FOLDER,
    Address,
    Http,
    HttpTokens,
    Json,
    Kind,
    Mode,
    NoHttp,
    PlanFile,
    ReplayItems,
    RunDir,
    StateFile,
    Trust,
    factor_option,
    fraction_option,
    http_address,
    listen_address,
    positive_duration_option,
    quantity,
)

if TYPE_CHECKING:
    from circinus.api.control import PlanController
    from circinus.control.state_store import Event

_LADDERS, _DRIFT, _LOOP = "Ladders", "Drift", "Control loop"


def serve(
    plan_file: PlanFile = DEFAULT_PLAN,
    mode: Mode = "real",
    items: ReplayItems = None,
    standby_factor: Annotated[
        float,
        quantity(
            factor_option,
            "Burst factor to keep standby replicas for: every query can degrade to serve this multiple of its "
            "planned rate (1x disables).",
            "1x",
            _LADDERS,
        ),
    ] = 1.0,
    interval: Annotated[
        float, quantity(positive_duration_option, "Polling interval of the control loop.", "250ms", _LOOP)
    ] = 0.25,
    dwell: Annotated[
        float,
        quantity(
            positive_duration_option, "Minimum time of low load before a query is upgraded again.", "10s", _LADDERS
        ),
    ] = 10.0,
    audit_rate: Annotated[
        float | None,
        quantity(
            fraction_option,
            "Fraction of answers to audit against ground truth (or the most accurate configuration).",
            "1%; in a replay 0",
            _DRIFT,
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help='File to which ground truths are appended, as lines {"pipeline": .., "item": .., "truth": ..}.',
            rich_help_panel=_DRIFT,
        ),
    ] = None,
    ground_truth_timeout: Annotated[
        float, quantity(positive_duration_option, "Time to wait for an answer's ground truth.", "1h", _DRIFT)
    ] = 3600.0,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Listen address of the Prometheus endpoint (default host 127.0.0.1).",
            show_default="no endpoint",
            rich_help_panel=_LOOP,
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Report decisions without applying them.", rich_help_panel=_LOOP),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    http: Http = "",
    no_http: NoHttp = False,
    http_tokens: HttpTokens = None,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    state_file: StateFile = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Keep an engine at a plan until interrupted, and adapt to bursts, node failures, edits and drift.

    Under a burst, queries step down their ladders to cheaper configurations, and up again when the load is low.

    The controller plans again when nodes fail or return, and when the plan file or its specification is edited. It
    rolls back when the new plans do worse.

    Each event is printed as one line with its reason. A state file keeps all decisions: a restarted controller
    continues, and a second controller is refused while the first is running.
    """
    from circinus.api.control import ControlOptions
    from circinus.cli.output import console, open_plan, progress_bar, progress_console
    from circinus.reporting.wrapping import print_wrapped

    options = ControlOptions(
        standby_factor=standby_factor,
        interval=interval,
        dwell=dwell,
        audit_rate=audit_rate,
        ground_truth=ground_truth,
        ground_truth_timeout=ground_truth_timeout,
        items=items,
        state_file=state_file,
        metrics=listen_address("--metrics", metrics),
        dry_run=dry_run,
    )
    workspace, plan = open_plan(
        plan_file,
        needs_store=mode == "replay",
        engine=engine,
        run_dir=run_dir,
        address=address,
        http=http_address(http, no_http),
        http_tokens=http_tokens,
        trust=trust,
    )

    def report(event: Event) -> None:
        if event.kind != "began":
            _print_event(event, would=dry_run, json=json)
        elif dry_run:
            typer.echo("decisions are reported until interrupted, and nothing is changed", err=True)
        else:
            _print_event(event, would=False, json=json)
            _print_standby(controller, standby_factor, err=json)

    controller = workspace.control(plan, options, mode=mode, on_event=report, progress=progress_bar)
    for warning in controller.warnings:
        print_wrapped(progress_console() if json else console(), f"warning: {warning}", style="yellow")
    if dry_run:
        _print_standby(controller, standby_factor, err=json)
    controller.run()
    if not dry_run:
        stopped = "the controller has stopped; the engine keeps running until `circinus destroy`"
        print_wrapped(progress_console(), stopped)


def _print_standby(controller: PlanController, standby_factor: float, *, err: bool) -> None:
    from circinus.specification.formatting import format_usd_per_h

    if standby_factor <= 1:
        return
    standby = controller.standby
    count, cost = sum(standby.extra.values()), format_usd_per_h(standby.cost_usd_per_h)
    line = f"ready for {standby_factor:g}x: {count} more replicas for {cost}"
    if standby.queries_without_room:
        line += f"; no room for a lower rung of {', '.join(standby.queries_without_room)}"
    typer.echo(line, err=err)


def _print_event(event: Event, *, would: bool, json: bool) -> None:
    from dataclasses import asdict

    from circinus.cli.output import print_json
    from circinus.reporting.control_table import event_line

    if json:
        print_json("event", {**asdict(event), "would": would}, indent=None)
    else:
        typer.echo(event_line(event, would=would))
