"""`circinus size`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.command import names_as_arguments
from circinus.cli.options import (
    OUTPUT,
    FailOnRejection,
    Json,
    NoCorrections,
    Paths,
    Seed,
    Store,
    Traces,
    duration_option,
    load_trace_backends,
    quantity,
)

_MACHINES = "Machines"


def size(
    paths: Paths = [Path()],  # noqa: B006  (typer shows this default)
    max_nodes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POOL=N",
            help="Greatest number of nodes of a pool. May be repeated.",
            show_default="that of the infrastructure; pools of the tier device stay as they are",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POOL",
            help="Pool that is there already: all of its nodes run and are paid, whatever plans use. May be repeated.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Leave out what each query adds, what looser SLOs save, and the cost over the share of weight served.",
            rich_help_panel="Solver",
        ),
    ] = False,
    time_limit: Annotated[
        float | None,
        quantity(
            duration_option,
            "Time limit of each matching, of which there are some for each query.",
            "20s, and 0.1s more for each query beyond 40, at most 60s",
            "Solver",
        ),
    ] = None,
    trace: Traces = None,
    no_corrections: NoCorrections = False,
    seed: Seed = 0,
    store: Store = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="YAML file to write the infrastructure to, each pool with the chosen number of nodes, also instead of "
            "`min` and `max`.",
            show_default="none is written",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    fail_on_rejection: FailOnRejection = False,
    json: Json = False,
) -> None:
    """Find the cheapest machines on which all SLOs hold, and what queries and SLOs add to their price.

    Every pool has 0 nodes up to those of the infrastructure, or from `min` to `max`, and its nodes are paid whole.
    """
    from circinus.api.plan_context import require_file
    from circinus.api.workspace import Workspace
    from circinus.cli.output import console, elapsed_time, print_json
    from circinus.reporting.wrapping import print_wrapped

    workspace = Workspace(paths, store=store, seed=seed)
    if store is not None and not trace:
        require_file(store, "a profile store; run `circinus profile` first")
    with names_as_arguments(), elapsed_time("reading profiles") as line:
        sizing = workspace.size(
            output=output,
            max_nodes=_limits(max_nodes or ()),
            keep=keep or (),
            quick=quick,
            time_limit=time_limit,
            sources=load_trace_backends(trace, workspace.specification),
            corrections=not no_corrections,
            on_progress=line,
        )
    if json:
        print_json("size", sizing.to_dict())
    else:
        sizing.print(console())
        if sizing.path is not None:
            print_wrapped(console(), f"infrastructure written to {sizing.path}")
        elif output is not None:
            print_wrapped(console(), f"{output} not written: no query is served")
    matching = sizing.sizing.matching
    if workspace.specification.queries and (not matching.assignments or (fail_on_rejection and matching.rejections)):
        raise typer.Exit(1)


def _limits(texts: list[str] | tuple[str, ...]) -> dict[str, int]:
    """Return pool -> greatest number of nodes, from texts such as `servers=8`."""
    limits = {}
    for text in texts:
        pool, _, number = text.rpartition("=")
        if not pool or not (number.isascii() and number.isdecimal()):
            raise typer.BadParameter(f"--max-nodes: found {text!r}, expected POOL=N such as servers=8")
        limits[pool] = int(number)
    return limits
