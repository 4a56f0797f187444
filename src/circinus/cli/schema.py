"""`circinus schema`."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of the YAML documents, for editors."""
    from circinus.specification.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
