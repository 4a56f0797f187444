"""`circinus destroy`."""

from __future__ import annotations

import typer

from circinus.cli.options import Json, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER


def destroy(run_dir: RunDir = DEFAULT_RUN_FOLDER, json: Json = False) -> None:
    """End the engine with everything it started."""
    from circinus.cli.output import print_json
    from circinus.serving.local.client import destroy as end_engine

    ended = end_engine(run_dir)
    if json:
        print_json("destroy", {"ended": ended, "run_dir": run_dir})
    else:
        typer.echo(f"the engine in {run_dir} has ended" if ended else f"no engine was running in {run_dir}")
