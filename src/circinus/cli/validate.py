"""`circinus validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.options import Json, Paths


def validate(
    paths: Paths = [Path()],  # noqa: B006  (typer shows this default)
    no_operators: Annotated[
        bool, typer.Option("--no-operators", help="Skip the import and check of operators, metrics and data sets.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a specification, and print every problem with file, line and the fix."""
    from circinus.api.workspace import Workspace
    from circinus.cli.output import elapsed_time, print_json
    from circinus.reporting.wrapping import printable

    with elapsed_time("checking the specification"):
        report = Workspace(paths).validate(operators=not no_operators)
    specification, summary = report.specification, report.to_dict()
    infrastructure = specification.infrastructure
    if json:
        print_json("validate", summary)
        return
    for name, pipeline in specification.pipelines.items():
        counts = summary["pipelines"][name]
        typer.echo(
            f"pipeline {name}: {counts['operators']} operators, {counts['configurations']:,} configurations, "
            f"metric {pipeline.metric.name}"
        )
    if infrastructure is not None:
        cpus = sum(pool.nodes * pool.cpus for pool in infrastructure.pools)
        typer.echo(f"infrastructure {infrastructure.name}: {len(infrastructure.pools)} pools, {cpus:g} CPUs")
    typer.echo(f"{len(specification.queries)} queries")
    for document in specification.skipped_documents:
        typer.echo(printable(f"passed over: {document}"))
    typer.echo("all is well")
