"""Arguments and options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circinus.api.defaults import DEFAULT_ADDRESS as DEFAULT_ADDRESS
from circinus.api.defaults import DEFAULT_PLAN as DEFAULT_PLAN
from circinus.api.defaults import DeploymentMode, EngineKind, HttpAddress
from circinus.serving.local import DEFAULT_RUN_FOLDER as DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.profiling import TraceBackend
    from circinus.specification import Specification
    from circinus.specification.units import Quantity

PROFILES, ENGINE, OUTPUT, TRAFFIC = "Profiles", "Engine", "Output", "Traffic"
"""Help panels that several verbs have."""

Paths = Annotated[
    list[Path], typer.Argument(help="YAML files, or folders with YAML files.", show_default="the current folder")
]
PlanFile = Annotated[Path, typer.Argument(help="Plan file that `circinus plan` wrote.")]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document instead of tables; so does `-o json`.", rich_help_panel=OUTPUT
    ),
]
FailOnRejection = Annotated[
    bool,
    typer.Option(
        "--fail-on-rejection",
        help="End with exit code 1 if any query is rejected, not only if all are.",
        rich_help_panel=OUTPUT,
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Profile store.",
        show_default=".circinus/profiles.sqlite beside the first file",
        rich_help_panel=PROFILES,
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Random seed for the order of data set items.", rich_help_panel=PROFILES)
]
RunDir = Annotated[
    Path,
    typer.Option(
        "--run-dir",
        metavar="FOLDER",
        help="Run directory of the local engine.",
        envvar="CIRCINUS_RUN_DIR",
        rich_help_panel=ENGINE,
    ),
]
StateFile = Annotated[
    Path | None,
    typer.Option(
        help="State file of the controller. All controllers of one engine must share it.",
        show_default="beside the run directory",
        rich_help_panel=ENGINE,
    ),
]
Kind = Annotated[
    EngineKind,
    typer.Option(
        "--engine",
        help="`local`: processes of this machine. `ray`: Ray Serve on the cluster at --address.",
        envvar="CIRCINUS_ENGINE",
        rich_help_panel=ENGINE,
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Address of the Ray cluster (as for `ray.init`).",
        envvar="RAY_ADDRESS",
        rich_help_panel=ENGINE,
    ),
]
Http = Annotated[
    str,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Listen address for HTTP requests: of the local engine, or of every node of a Ray cluster.",
        show_default="a free port of 127.0.0.1; on Ray that of Ray Serve, or 127.0.0.1:8000",
        rich_help_panel=ENGINE,
    ),
]
NoHttp = Annotated[
    bool, typer.Option("--no-http", help="Do not take HTTP requests (local engine).", rich_help_panel=ENGINE)
]
HttpTokens = Annotated[
    Path | None,
    typer.Option(
        "--http-tokens",
        metavar="FILE",
        help="File of mode 0600 with lines `TENANT TOKEN` or `* TOKEN` (all queries), of which each HTTP request needs "
        "one. The variable CIRCINUS_HTTP_TOKENS may hold the lines instead.",
        show_default="those in force, if any",
        rich_help_panel=ENGINE,
    ),
]
Mode = Annotated[
    DeploymentMode,
    typer.Option(
        help="`real` runs operators, and this machine must fit the pools in use; `replay` returns recorded outputs "
        "after recorded delays.",
        rich_help_panel="Deployment",
    ),
]
ReplayItems = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum number of held-out items to record for each plan of a replay.",
        show_default="all",
        rich_help_panel="Deployment",
    ),
]
TrafficSeed = Annotated[int, typer.Option(min=0, help="Random seed for arrivals and items.", rich_help_panel=TRAFFIC)]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run code that this user did not write, and seal the values of the store as this user's, for good.",
        rich_help_panel=ENGINE,
    ),
]
Traces = Annotated[
    list[Path] | None,
    typer.Option(
        "--trace",
        help="Trace file to read measurements from instead of running operators. May be repeated.",
        rich_help_panel=PROFILES,
    ),
]


def quantity(parser: Callable[[str | float], float], help: str, default: str, panel: str | None = None) -> Any:
    """Return the option of a number with a unit.

    Args:
        parser: one of the functions below.
        help: help of the option.
        default: text of the default value.
        panel: help panel.
    """
    metavar = _METAVARS[parser]
    return typer.Option(parser=parser, metavar=metavar, help=help, show_default=default, rich_help_panel=panel)


def duration_option(text: str | float) -> float:
    """Return seconds, from `90s`, `2min` or `90`: as in Python, a number without a unit is one of seconds."""
    from circinus.specification.units import DURATION

    return _quantity(f"{text}s" if _is_number(text) else text, DURATION)


def _quantity(text: str | float, quantity: Quantity) -> float:
    if not isinstance(text, str):
        return text
    if _is_number(text) and float(text) == 0:
        return 0.0
    try:
        return quantity.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _is_number(text: str | float) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def positive_duration_option(text: str | float) -> float:
    """Return seconds above 0; see `duration_option`."""
    seconds = duration_option(text)
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"found {text!r}, expected a duration above 0 such as 30s")
    return seconds


def factor_option(text: str | float) -> float:
    """Return a factor above 0, from `2x` or `2`."""
    try:
        factor = float(str(text).lower().removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise typer.BadParameter(f"found {text!r}, expected a number above 0 such as 2x")
    return factor


def fraction_option(text: str | float) -> float:
    """Return a number between 0 and 1, from `2%` or `0.02`."""
    try:
        fraction = float(str(text).removesuffix("%")) / (100.0 if str(text).endswith("%") else 1.0)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise typer.BadParameter(f"found {text!r}, expected a fraction such as 2% or 0.02")
    return fraction


def price_option(text: str | float) -> float:
    """Return US dollars per hour, from `$0.01/h`, `$10/month` or 0. Default values are dollars per hour."""
    from circinus.specification.units import PRICE_PER_H

    return _quantity(text, PRICE_PER_H)


_METAVARS: dict[Callable[[str | float], float], str] = {
    duration_option: "DURATION",
    positive_duration_option: "DURATION",
    factor_option: "FACTOR",
    fraction_option: "FRACTION",
    price_option: "PRICE",
}

WARM_UP = "Warm-up time, left out of the figures."
NoCorrections = Annotated[
    bool,
    typer.Option(
        "--no-corrections",
        help="Ignore service times observed under traffic, which correct the profile.",
        rich_help_panel=PROFILES,
    ),
]
LoadFactor = Annotated[float, quantity(factor_option, "Factor on every query's rate.", "1x", TRAFFIC)]


def listen_address(option: str, text: str) -> tuple[str, int] | None:
    """Return (host, port) from `[HOST:]PORT`, by default of 127.0.0.1, or None from an empty text."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65_536 or any(char in host for char in "/[]"):
        raise typer.BadParameter(f"{option}: found {text!r}, expected [HOST:]PORT such as 9090 or 0.0.0.0:9090")
    return host or "127.0.0.1", int(port)


def http_address(http: str, no_http: bool) -> HttpAddress:
    """Return the value of `EngineHandle.http` from the options."""
    if http and no_http:
        raise typer.BadParameter("found --http and --no-http, expected one of them")
    return False if no_http else listen_address("--http", http)


def load_trace_backends(traces: list[Path] | None, specification: Specification) -> dict[str, TraceBackend]:
    """Return pipeline -> measurement backend, one for each trace file.

    Raises:
        ProfileError: a file is no trace, or of a pipeline that is not specified or has another trace already.
    """
    if not traces:
        return {}
    from circinus.errors import ProfileError
    from circinus.profiling import TraceBackend, load_trace

    backends: dict[str, TraceBackend] = {}
    for path in traces:
        trace = load_trace(path)
        name = trace.pipeline.name
        if name in backends:
            raise ProfileError(
                f"this is a second trace of pipeline {name}",
                code="trace.duplicate",
                location=str(path),
                hint="Name one.",
            )
        if name not in specification.pipelines:
            present = ", ".join(specification.pipelines) or "(none)"
            raise ProfileError(
                f"the specification has no pipeline {name}, expected one of {present}",
                code="trace.unknown_pipeline",
                location=str(path),
            )
        trace.check(specification.pipelines[name])
        backends[name] = TraceBackend(trace)
    return backends
