"""`circinus schema`."""

from __future__ import annotations

import json as json_module

import typer

from circinus.cli.options import Json


def schema(json: Json = False) -> None:
    """Print the JSON Schema of the YAML documents, for editors."""
    from circinus.cli.output import print_json
    from circinus.specification.json_schema import json_schema

    if json:
        print_json("schema", json_schema())
    else:
        typer.echo(json_module.dumps(json_schema(), indent=2))
