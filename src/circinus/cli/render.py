"""`circinus render`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus.cli.command import Command
from circinus.cli.options import DEFAULT_PLAN, HttpTokens, Json, PlanFile

_IMAGE = "circinus:latest"

render = typer.Typer(
    help="Write a plan as the input of another deployment tool.", no_args_is_help=True, add_completion=False
)


@render.callback()
def _root() -> None:
    """Write a plan as the input of another deployment tool."""


@render.command(cls=Command)
def kubernetes(
    plan_file: PlanFile = DEFAULT_PLAN,
    image: Annotated[str, typer.Option(help="Container image with Circinus, Ray and the operators' code.")] = _IMAGE,
    name: Annotated[str, typer.Option(help="Name of the RayService.")] = "circinus",
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace.")] = "default",
    ray_version: Annotated[str, typer.Option(help="Version of Ray in the image, such as 2.60.0.")] = "",
    http_tokens: HttpTokens = None,
    json: Json = False,
) -> None:
    """Print the RayService and NetworkPolicy that run a plan on Kubernetes with KubeRay, for `kubectl apply -f -`.

    Nodes of pool P must have the label circinus/pool=P.
    """
    from circinus.cli.output import open_plan, print_json, progress_console
    from circinus.reporting.wrapping import print_wrapped
    from circinus.serving.ray.kuberay_manifest import as_yaml

    workspace, plan = open_plan(plan_file, http_tokens=http_tokens)
    if image == _IMAGE and len(plan):
        warning = f"pods will run {_IMAGE}: name the image that has your operators' code with --image"
        print_wrapped(progress_console(), warning, style="yellow")
    manifests = workspace.render_kubernetes(plan, image=image, name=name, namespace=namespace, ray_version=ray_version)
    if json:
        print_json("render", {"manifests": manifests})
    else:
        typer.echo(as_yaml(*manifests), nl=False)
