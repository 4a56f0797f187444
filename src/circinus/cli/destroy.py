"""`circinus destroy`."""

from __future__ import annotations

import typer

from circinus.cli.options import DEFAULT_ADDRESS, DEFAULT_RUN_FOLDER, Address, Json, Kind, RunDir


def destroy(
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """End the engine and everything that it started.

    A local engine that does not respond is killed. A Ray cluster keeps running; the applications of Circinus on it end.
    """
    from circinus.api.engine_handle import EngineHandle
    from circinus.cli.output import elapsed_time, print_json, warn_of_controller

    handle = EngineHandle.of(engine, run_dir, address)
    warn_of_controller(handle)
    killed: list[int] = []
    with elapsed_time(f"ending {handle}"):
        ended = handle.close(killed.append)
    if json:
        print_json("destroy", {"ended": ended, "killed": bool(killed), **handle.place})
    elif killed:
        typer.echo(f"{handle} did not end; its process {killed[0]} was killed, with its replicas")
    elif ended:
        typer.echo(f"{handle} has ended")
    else:
        typer.echo(f"no engine was running in {run_dir.absolute()}")
