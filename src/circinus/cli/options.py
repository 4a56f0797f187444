"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.api.plan_context import DEFAULT_PLAN as DEFAULT_PLAN

if TYPE_CHECKING:
    from circinus.specification.units import Quantity

Paths = Annotated[list[Path], typer.Argument(help="YAML files, or folders of them.", show_default="the current folder")]
PlanFile = Annotated[Path, typer.Argument(help="A plan file, as `circinus plan` writes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Profile store.", show_default=".circinus/profiles.sqlite beside the first file"),
]
RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the running engine.", envvar="CIRCINUS_RUN_DIR")]
Records = Annotated[
    Path | None,
    typer.Option(
        help="File that keeps what the controller decided. Who controls one engine must use one file.",
        show_default="beside the folder of the running engine",
    ),
]
Kind = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        help="local: processes on this machine. ray: Ray Serve on the cluster at --address.",
        envvar="CIRCINUS_ENGINE",
    ),
]
Address = Annotated[
    str, typer.Option("--address", help="Of the Ray cluster, as `ray.init` takes it.", envvar="RAY_ADDRESS")
]
Http = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        show_default=False,
        help="With --engine ray: where every node takes requests over HTTP; by default where Ray Serve does already, "
        "else on 127.0.0.1:8000.",
    ),
]
DEFAULT_ADDRESS = "auto"


def duration_option(text: str | float) -> float:
    """Seconds, from `90s`, `2min` or 0; as in the specification a bare number is refused. A default is in seconds."""
    from circinus.specification.units import DURATION

    return _quantity(text, DURATION)


def _quantity(text: str | float, quantity: Quantity) -> float:
    if not isinstance(text, str):
        return text
    try:
        bare = float(text)
    except ValueError:
        bare = None
    if bare == 0:
        return 0.0
    try:
        return quantity.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def positive_duration_option(text: str | float) -> float:
    """Seconds above 0, written as for `duration_option`."""
    seconds = duration_option(text)
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"found {text!r}, expected a duration above 0 such as 30s")
    return seconds


def factor_option(text: str | float) -> float:
    """A factor above 0, from `2x` or `2`."""
    try:
        factor = float(str(text).lower().removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise typer.BadParameter(f"found {text!r}, expected a number above 0 such as 2x")
    return factor


def fraction_option(text: str | float) -> float:
    """From 0 to 1, from `2%` or `0.02`."""
    try:
        share = float(str(text).removesuffix("%")) / (100.0 if str(text).endswith("%") else 1.0)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"found {text!r}, expected a share such as 2% or 0.02")
    return share


def hours_option(text: str | float) -> float:
    """Hours above 0, from a plain number of hours, or `90s`, `2min`."""
    try:
        hours = float(text)
    except ValueError:
        hours = duration_option(str(text)) / 3600.0
    if not 0 < hours < float("inf"):
        raise typer.BadParameter(f"found {text!r}, expected hours above 0, or a duration such as 10min")
    return hours


def price_option(text: str | float) -> float:
    """US dollars per hour, from `$0.01/h`, `$10/month` or 0. A default is in dollars per hour."""
    from circinus.specification.units import PRICE_PER_H

    return _quantity(text, PRICE_PER_H)


def host_and_port(text: str) -> tuple[str, int] | None:
    """From `HOST:PORT`, or nothing."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise typer.BadParameter(f"--http: found {text!r}, expected HOST:PORT such as 0.0.0.0:8000")
    return host, int(port)


def metrics_address(text: str) -> tuple[int, str]:
    """(port, host) from `PORT`, for this machine alone, or `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise typer.BadParameter(f"--metrics: found {text!r}, expected [HOST:]PORT such as 9090 or 0.0.0.0:9090")
    return int(port), host or "127.0.0.1"


def store_path(chosen: Path | None, paths: list[Path]) -> Path:
    """The profile store: the chosen one, or `.circinus/profiles.sqlite` beside the first specification file."""
    if chosen is not None:
        return chosen
    first = paths[0] if paths else Path()
    return (first if first.is_dir() else first.parent) / ".circinus" / "profiles.sqlite"
