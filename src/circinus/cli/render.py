"""`circinus render`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus.cli.command import Command
from circinus.cli.options import DEFAULT_PLAN, Json, PlanFile

_IMAGE = "circinus:latest"

render = typer.Typer(help="Write a plan file as what another tool deploys.", no_args_is_help=True)


@render.callback()
def _root() -> None:
    """Write a plan file as what another tool deploys."""


@render.command(cls=Command)
def kubernetes(
    plan_file: PlanFile = DEFAULT_PLAN,
    image: Annotated[str, typer.Option(help="Container image with Circinus, Ray and the operators' code.")] = _IMAGE,
    name: Annotated[str, typer.Option(help="Of the RayService.")] = "circinus",
    namespace: Annotated[str, typer.Option(help="Of Kubernetes.")] = "default",
    ray_version: Annotated[str, typer.Option(help="Ray's version in the image, such as 2.60.0.")] = "",
    json: Json = False,
) -> None:
    """Print the RayService that runs a plan on Kubernetes with KubeRay: `… | kubectl apply -f -`.

    Nodes of pool P must have the label circinus/pool=P.
    """
    from circinus.api.plan_context import load_plan
    from circinus.cli.output import print_json, progress_console
    from circinus.serving import Mode
    from circinus.serving.ray.kubernetes import Manifest, as_yaml, ray_service

    opened = load_plan(plan_file)
    opened.require_served_query(str(plan_file))
    if image == _IMAGE:
        words = f"pods will run {_IMAGE}: name the image that has your operators' code with --image"
        progress_console().print(words, style="yellow", highlight=False)
    found = ray_service(opened.desired_state(Mode.REAL), Manifest(image, name, namespace, ray_version))
    if json:
        print_json("render", {"manifests": [found]})
    else:
        typer.echo(as_yaml(found), nl=False)
