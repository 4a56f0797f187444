"""`circinus destroy`."""

from __future__ import annotations

import typer

from circinus.cli.options import DEFAULT_ADDRESS, Address, Json, Kind, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER


def destroy(
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """End the engine with everything it started; of a Ray cluster, what Circinus runs there."""
    import asyncio

    from circinus.api.engine_options import EngineOptions
    from circinus.cli.output import print_json, warn_of_controller
    from circinus.serving.local.client import destroy as end_engine

    chosen = EngineOptions(engine, run_dir, address)
    warn_of_controller(chosen)
    if chosen.kind == "ray":
        asyncio.run(chosen.ray().close())
        if json:
            print_json("destroy", {"ended": True, "address": address})
        else:
            typer.echo(f"what Circinus ran on {chosen} has ended")
        return
    ended = end_engine(run_dir)
    if json:
        print_json("destroy", {"ended": ended, "run_dir": run_dir})
    else:
        typer.echo(f"the engine in {run_dir} has ended" if ended else f"no engine was running in {run_dir}")
