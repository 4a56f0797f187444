"""`circinus report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.options import (
    DEFAULT_PLAN,
    DEFAULT_RUN_FOLDER,
    OUTPUT,
    TRAFFIC,
    Json,
    PlanFile,
    RunDir,
    StateFile,
    duration_option,
    quantity,
)


def report(
    plan_file: PlanFile = DEFAULT_PLAN,
    load: Annotated[
        Path | None,
        typer.Option(
            help="Load test to compare with: the output of `circinus load --json`.",
            rich_help_panel=TRAFFIC,
        ),
    ] = None,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    state_file: StateFile = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.", rich_help_panel=OUTPUT)] = Path(
        "report.html"
    ),
    what_if: Annotated[
        float,
        quantity(duration_option, "Time for other loads and for rejected queries; 0 leaves them out.", "20s", OUTPUT),
    ] = 20.0,
    json: Json = False,
) -> None:
    """Write a plan as one HTML page that opens offline, with its map, frontiers, profiles and what-if.

    The code of the operators is not needed.
    """
    from circinus.cli.output import elapsed_time, open_plan, print_json

    workspace, plan = open_plan(plan_file, shows_rejected=True, check_fresh=False, run_dir=run_dir)
    with elapsed_time("reporting the plan") as show:
        written = workspace.report(plan, output, load=load, state_file=state_file, what_if=what_if, on_progress=show)
    if json:
        print_json("report", {"file": written})
    else:
        typer.echo(f"wrote {written}")
