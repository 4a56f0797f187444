"""`circinus status`."""

from __future__ import annotations

import typer

from circinus.cli.options import DEFAULT_ADDRESS, DEFAULT_RUN_FOLDER, Address, Json, Kind, RunDir


def status(
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Print the engine's deployments and replicas (exit code 1 if a replica is not ready)."""
    from circinus.api.engine_handle import EngineHandle
    from circinus.cli.output import console, print_json
    from circinus.reporting.control_table import status_table

    current = EngineHandle.of(engine, run_dir, address).status()
    if json:
        print_json("status", {"healthy": current.healthy, **vars(current)})
    else:
        console().print(status_table(current))
    if not current.healthy:
        raise typer.Exit(1)
