"""`circinus apply`."""

from __future__ import annotations

import shlex

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
    Trust,
    http_address,
)


def apply(
    plan_file: PlanFile = DEFAULT_PLAN,
    mode: Mode = "real",
    items: ReplayItems = None,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    http: Http = "",
    no_http: NoHttp = False,
    http_tokens: HttpTokens = None,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Deploy exactly the plan of a plan file.

    A plan is refused if its specification or code changed since it was made (exit code 3).
    """
    from circinus.cli.output import console, elapsed_time, open_plan, print_json, progress_console, warn_of_controller
    from circinus.errors import ServingError
    from circinus.reporting.control_table import deployment_changes, status_table
    from circinus.reporting.wrapping import print_wrapped

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
    try:
        running = workspace.engine.status()
    except ServingError:
        running = None  # no engine runs yet
    changes = deployment_changes(running, plan.matching.deployments, mode)
    print_wrapped(progress_console(), changes)
    with elapsed_time("starting replicas") as line:
        deployment = workspace.deploy(
            plan,
            mode=mode,
            items=items,
            progress=line.progress_bar,
            on_progress=lambda ready, planned: line(f"starting replicas: {ready} of {planned}"),
        )
    status = deployment.status()
    warn_of_controller(workspace.engine)
    if json:
        print_json("apply", {"healthy": status.healthy, **vars(status), "warnings": deployment.warnings})
    else:
        console().print(status_table(status))
        for warning in deployment.warnings:
            print_wrapped(console(), f"warning: {warning}", style="yellow")
        command = f"circinus load {shlex.quote(str(plan_file))}{workspace.engine.options}"
        console().print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)
