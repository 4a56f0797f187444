"""`circinus profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli import elapsed_s
from circinus.cli.options import (
    DEFAULT_ADDRESS,
    ENGINE,
    OUTPUT,
    PROFILES,
    Address,
    Json,
    Kind,
    Paths,
    Seed,
    Store,
    Traces,
    Trust,
    duration_option,
    load_trace_backends,
    quantity,
)

if TYPE_CHECKING:
    from circinus.api.profiling_workspace import Sources
    from circinus.api.reports import ProfileReport
    from circinus.api.workspace import Workspace

_PANEL = "Measurement"
_MIN_SHARE = 0.1
"""Minimum share of a budget for measurements, if the command takes long to start."""
Record = Annotated[
    Path | None,
    typer.Option("--record", help="Trace file to write the measurements to.", rich_help_panel=PROFILES),
]
Calibrated = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Measure this machine's relative speed against a profile of another machine.",
        rich_help_panel=_PANEL,
    ),
]
DeclaredSpeeds = Annotated[
    bool,
    typer.Option(
        "--declared-speeds",
        help="Use the declared speed of hardware classes without a living node on the Ray cluster.",
        rich_help_panel=ENGINE,
    ),
]


Table = Annotated[
    Path | None,
    typer.Option(
        "--import",
        metavar="FILE",
        help="Measure nothing, and take times on hardware classes from this CSV file.",
        rich_help_panel=PROFILES,
    ),
]


def profile(
    paths: Paths = [Path()],  # noqa: B006  (typer shows this default)
    budget: Annotated[
        float | None,
        quantity(duration_option, "Time for all pipelines, such as 2min.", "until every SLO is decided", _PANEL),
    ] = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this pipeline. May be repeated.", rich_help_panel=_PANEL),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the stored profile without measuring.", rich_help_panel=_PANEL)
    ] = False,
    record: Record = None,
    trace: Traces = None,
    table: Table = None,
    calibrate: Calibrated = False,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive",
            help="Measure every configuration on every item, whatever the SLOs.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    allow_declared_speeds: DeclaredSpeeds = False,
    seed: Seed = 0,
    store: Store = None,
    trust: Trust = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Print all configurations, operators and observations, not only what is feasible or undecided.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Measure the pipelines' configurations; an interrupted run is resumed by the same command.

    With --engine ray operators are measured on a node of each hardware class of the infrastructure.
    """
    from circinus.api.workspace import Workspace
    from circinus.cli.output import console, elapsed_time, print_json, progress_bar

    _check_options(
        budget, show=show, record=record, calibrate=calibrate, exhaustive=exhaustive, table=table, pipeline=pipeline
    )
    workspace = Workspace(paths, store=store, seed=seed, engine=engine, address=address)
    if workspace.engine.on_this_machine:
        if allow_declared_speeds:
            raise typer.BadParameter("--declared-speeds is about nodes of a cluster; add --engine ray")
    elif trace or calibrate:
        option = "--trace was measured already" if trace else "--calibrate measures this machine"
        raise typer.BadParameter(f"{option}; --engine {engine} measures nodes, leave out one of the two")
    specification = workspace.specification
    sources = load_trace_backends(trace, specification)
    names = _chosen(pipeline, [name for name in specification.pipelines if not sources or name in sources])
    _check_recording(record, names, bool(sources))
    if not sources:
        with elapsed_time("checking the specification"):
            workspace.validate()
    if calibrate:
        _calibrate(workspace, names, sources, json)
        return
    if table is not None:
        _import(workspace, table, sources, json)
        return

    def show_profile(report: ProfileReport) -> None:
        if not json:
            _print(report, everything=everything, with_observations=show)

    if show:
        with elapsed_time("reading the profile"):
            report = workspace.profile_report(names, sources=sources)
        show_profile(report)
    else:
        report = workspace.profile(
            names,
            budget=budget if budget is None or sources else _remaining_s(budget),
            exhaustive=exhaustive,
            declared_speeds=allow_declared_speeds,
            sources=sources,
            trust=trust,
            progress=progress_bar,
            on_profile=show_profile,
        )
    if record is not None:
        workspace.record_trace(record, names[0])
        if not json:
            console().print(f"trace written to {record}", markup=False, highlight=False, soft_wrap=True)
    if json:
        print_json("profile", report.to_dict()["profiles"])
    if report.interrupted:
        raise KeyboardInterrupt
    if any(profile.failed and not profile.configurations for profile in report.values()):
        raise typer.Exit(1)  # every configuration of a pipeline failed


def _remaining_s(budget_s: float) -> float:
    """Return what is left of a budget that began with the command, at least a share."""
    return max(budget_s - elapsed_s(), _MIN_SHARE * budget_s)


def _print(report: ProfileReport, *, everything: bool, with_observations: bool) -> None:
    from circinus.api.profile_summary import machine_warning
    from circinus.cli.output import console
    from circinus.reporting.profile_frontier import ProfileFrontier
    from circinus.reporting.profile_table import (
        hardware_class_lines,
        imported_lines,
        imported_table,
        observation_table,
        profile_table,
    )

    for name, profile in report.items():
        warning = machine_warning(profile, report.specification)
        metric = report.specification.pipelines[name].metric
        if everything:
            console().print(profile_table(profile, metric.direction, warning, metric.name))
        else:
            slos = (query.slos.accuracy for query in report.specification.queries if query.pipeline == name)
            limits = [slo.threshold for slo in slos if slo is not None]
            console().print(ProfileFrontier(profile, metric.direction, limits, warning, metric.name))
        imported = report.imported.get(name, ())
        for line in (*hardware_class_lines(report.hardware_classes.get(name, ())), *imported_lines(imported, profile)):
            console().print(line)
        if everything and imported:
            console().print(imported_table(imported))
        if everything and with_observations and report.observations[name]:
            console().print(observation_table(report.observations[name]))


def _calibrate(workspace: Workspace, names: list[str], sources: Sources, json: bool) -> None:
    from circinus.api.profile_summary import disturbance_warning
    from circinus.cli.output import console, elapsed_time, print_json
    from circinus.reporting.profile_table import calibration_table

    with elapsed_time("measuring this machine"):
        calibrations = workspace.calibrate(names, sources=sources)
    if json:
        print_json("calibration", calibrations)
        return
    for calibration in calibrations:
        warning = disturbance_warning(calibration.disturbed, "measured", "circinus profile --calibrate")
        console().print(calibration_table(calibration, warning))


def _import(workspace: Workspace, table: Path, sources: Sources, json: bool) -> None:
    from circinus.api.profile_summary import imported_row
    from circinus.cli.output import console, print_json
    from circinus.reporting.profile_table import imported_table

    times = workspace.import_times(table, sources=sources)
    if json:
        print_json("import", [imported_row(time) for time in times])
        return
    console().print(imported_table(times))
    text = f"imported from {table}: `circinus plan` uses them where the operators run on these classes"
    console().print(text, style="dim", markup=False, highlight=False)


def _check_options(
    budget: float | None,
    *,
    show: bool,
    record: Path | None,
    calibrate: bool,
    exhaustive: bool,
    table: Path | None,
    pipeline: list[str] | None,
) -> None:
    if table is not None:
        others: dict[str, object] = {"--show": show, "--record": record, "--calibrate": calibrate}
        others |= {"--exhaustive": exhaustive, "--budget": budget is not None, "--pipeline": pipeline}
        for option, given in others.items():
            if given:
                raise typer.BadParameter(f"--import takes the times of a file as they are; leave out {option}")
    if calibrate and record is not None:
        raise typer.BadParameter("--calibrate measures nothing that could be recorded; leave out --record")
    if show and (budget is not None or exhaustive):
        raise typer.BadParameter(f"--show measures nothing; leave out {'--exhaustive' if exhaustive else '--budget'}")


def _check_recording(record: Path | None, names: list[str], from_traces: bool) -> None:
    if record is not None and len(names) != 1:
        raise typer.BadParameter(f"a trace has one pipeline, got {', '.join(names)}; choose one with --pipeline")
    if record is not None and from_traces:
        raise typer.BadParameter("--record and --trace are mutually exclusive; a trace records a real run")


def _chosen(names: list[str] | None, present: list[str]) -> list[str]:
    for name in names or ():
        if name not in present:
            raise typer.BadParameter(f"no pipeline {name}, expected one of {', '.join(present) or '(none)'}")
    return names or present
