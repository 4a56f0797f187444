"""`circinus status`."""

from __future__ import annotations

import typer

from circinus.cli.options import Json, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER


def status(run_dir: RunDir = DEFAULT_RUN_FOLDER, json: Json = False) -> None:
    """Say what runs; ends with 1 when a replica that is wanted is not ready."""
    import asyncio

    from circinus.cli.output import console, print_json
    from circinus.reporting.status_table import status_table
    from circinus.serving import EngineStatus
    from circinus.serving.local.client import connect

    async def ask() -> EngineStatus:
        client = connect(run_dir)
        try:
            return await client.status()
        finally:
            await client.disconnect()

    found = asyncio.run(ask())
    if json:
        print_json("status", {"healthy": found.healthy, **vars(found)})
    else:
        console().print(status_table(found))
    if not found.healthy:
        raise typer.Exit(1)
