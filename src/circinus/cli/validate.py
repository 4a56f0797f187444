"""`circinus validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.options import Json, Paths


def validate(
    paths: Paths = [Path()],  # noqa: B006  (typer wants the default as it is shown)
    no_operators: Annotated[
        bool, typer.Option("--no-operators", help="Do not import and check operators, metrics and data sets.")
    ] = False,
    json: Json = False,
) -> None:
    """Check everything that was written; print every fault with file, line and a near name."""
    from circinus.cli.output import print_json
    from circinus.errors import SpecError
    from circinus.operators.validation import check_operators
    from circinus.specification import configuration_count
    from circinus.specification.loader import load_specification

    specification = load_specification(paths)
    faults = () if no_operators else check_operators(specification)
    if faults:
        raise SpecError(faults)
    infrastructure = specification.infrastructure
    summary = {
        "files": list(specification.files),
        "passed_over": list(specification.skipped_documents),
        "pipelines": {
            name: {
                "operators": len(pipeline.operators),
                "configurations": configuration_count(pipeline),
            }
            for name, pipeline in specification.pipelines.items()
        },
        "pools": len(infrastructure.pools) if infrastructure else 0,
        "queries": [query.name for query in specification.queries],
    }
    if json:
        print_json("validate", summary)
        return
    for name, pipeline in specification.pipelines.items():
        counts = summary["pipelines"][name]  # type: ignore[index]
        typer.echo(
            f"pipeline {name}: {counts['operators']} operators, {counts['configurations']:,} configurations, "
            f"metric {pipeline.metric.name}"
        )
    if infrastructure is not None:
        cpus = sum(pool.nodes * pool.cpus for pool in infrastructure.pools)
        typer.echo(f"infrastructure {infrastructure.name}: {len(infrastructure.pools)} pools, {cpus:g} CPUs")
    typer.echo(f"{len(specification.queries)} queries")
    for what in specification.skipped_documents:
        typer.echo(f"passed over: {what}")
    typer.echo("all is well")
