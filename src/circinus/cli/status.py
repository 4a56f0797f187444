"""`circinus status`."""

from __future__ import annotations

import typer

from circinus.cli.options import DEFAULT_ADDRESS, Address, Json, Kind, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER


def status(
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Say what runs; ends with 1 when a replica that is wanted is not ready."""
    import asyncio

    from circinus.api.engine_options import EngineOptions
    from circinus.cli.output import console, print_json
    from circinus.reporting.control_table import status_table
    from circinus.serving import EngineStatus

    async def ask() -> EngineStatus:
        async with EngineOptions(engine, run_dir, address).connected() as found:
            return await found.status()

    found = asyncio.run(ask())
    if json:
        print_json("status", {"healthy": found.healthy, **vars(found)})
    else:
        console().print(status_table(found))
    if not found.healthy:
        raise typer.Exit(1)
