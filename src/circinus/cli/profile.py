"""`circinus profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import DEFAULT_ADDRESS, Address, Json, Kind, Paths, Store, duration_option, store_path
from circinus.cli.trace_options import Traces, load_trace_backends

if TYPE_CHECKING:
    from collections.abc import Mapping

    from circinus.profiling import (
        HardwareClassReport,
        MeasurementBackend,
        ServiceTimeObservation,
    )
    from circinus.specification import Specification


Record = Annotated[
    Path | None, typer.Option("--record", help="Write a trace of what is known afterwards to this file.")
]
Calibrated = Annotated[
    bool,
    typer.Option("--calibrate", help="Measure this machine's relative speed against what another put into the store."),
]
DeclaredSpeeds = Annotated[
    bool,
    typer.Option(
        "--declared-speeds", help="With --engine ray: go on with the declared speed of classes without a living node."
    ),
]


def profile(
    paths: Paths = [Path()],  # noqa: B006  (typer wants the default as it is shown)
    budget: Annotated[
        float | None,
        typer.Option(
            parser=duration_option,
            metavar="DURATION",
            help="Time to spend on each pipeline, such as 2min; by default until every objective is settled.",
        ),
    ] = None,
    pipeline: Annotated[list[str] | None, typer.Option(help="Only this pipeline; may be repeated.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing, print what is known.")] = False,
    record: Record = None,
    trace: Traces = None,
    calibrate: Calibrated = False,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Measure every configuration on every item, whatever the queries ask.")
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    allow_declared_speeds: DeclaredSpeeds = False,
    seed: Annotated[int, typer.Option(help="Of the order in which items are measured.")] = 0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Measure the pipelines' configurations; may be interrupted, and then goes on where it was.

    With --engine ray on a node of each hardware class of the infrastructure.
    """
    from circinus.api.profile_summary import profile_summary
    from circinus.api.ray_profiling import connect_profiling_targets, machine_warning, profile_on_targets
    from circinus.api.workspace import Workspace
    from circinus.cli.output import console, print_json, profile_progress
    from circinus.errors import SpecError
    from circinus.operators.validation import check_operators
    from circinus.profiling import export_trace, save_trace
    from circinus.reporting.profile_table import hardware_class_lines, observation_table, profile_table
    from circinus.specification.loader import load_specification

    _check_options(budget, show=show, record=record, calibrate=calibrate, exhaustive=exhaustive)
    _check_engine(engine, traced=bool(trace), calibrate=calibrate, allow_declared_speeds=allow_declared_speeds)
    specification = load_specification(paths)
    sources = load_trace_backends(trace, specification)
    names = _chosen(pipeline, [name for name in specification.pipelines if not sources or name in sources])
    _check_recording(record, names, bool(sources))
    faults = check_operators(specification) if not sources else ()
    if faults:
        raise SpecError(faults)
    known = store_path(store, paths)
    if calibrate:
        _calibrate(specification, names, known, sources, seed, json)
        return
    places = (
        connect_profiling_targets(specification, address, declared_speeds=allow_declared_speeds)
        if engine == "ray" and not show
        else None
    )
    profiles, reports = [], dict[str, "tuple[HardwareClassReport, ...]"]()
    for name in names:
        if show:
            found = Workspace(specification, store=known, seed=seed).profile_report([name], sources=sources)[name]
        elif places is not None:
            found, reports[name] = profile_on_targets(
                specification,
                name,
                known,
                places,
                budget_s=budget,
                seed=seed,
                exhaustive=exhaustive,
                skip_lost_nodes=allow_declared_speeds,
                progress=profile_progress,
            )
        else:
            workspace = Workspace(specification, store=known, seed=seed)
            found = workspace.profile(
                [name], budget=budget, exhaustive=exhaustive, sources=sources, progress=profile_progress
            )[name]
        profiles.append(found)
        if not json:
            warning = machine_warning(found, specification)
            console().print(profile_table(found, specification.pipelines[name].metric.direction, warning))
            for line in hardware_class_lines(reports.get(name, ())):
                console().print(line)
            if show and (observed := _observed(known, name)):
                console().print(observation_table(observed))
        if found.interrupted:
            break
    if record is not None:
        save_trace(export_trace(specification, names[0], known, seed=seed), record)
        if not json:
            console().print(f"trace written to {record}", highlight=False)
    if json:
        print_json(
            "profile",
            [
                profile_summary(p, specification, reports.get(p.pipeline, ()), _observed(known, p.pipeline))
                for p in profiles
            ],
        )
    if any(found.interrupted for found in profiles):
        raise KeyboardInterrupt
    if any(found.failed and not found.configurations for found in profiles):
        raise typer.Exit(1)  # not one configuration works


def _check_options(budget: float | None, *, show: bool, record: Path | None, calibrate: bool, exhaustive: bool) -> None:
    if calibrate and record is not None:
        raise typer.BadParameter("--calibrate measures nothing that could be recorded; leave out --record")
    if show and (budget is not None or exhaustive):
        raise typer.BadParameter(f"--show measures nothing; leave out {'--exhaustive' if exhaustive else '--budget'}")


def _check_engine(engine: str, *, traced: bool, calibrate: bool, allow_declared_speeds: bool) -> None:
    if engine == "ray" and traced:
        raise typer.BadParameter("found both --engine ray and --trace; a trace is measured already")
    if engine == "ray" and calibrate:
        raise typer.BadParameter("--calibrate measures this machine; --engine ray measures every class without it")
    if allow_declared_speeds and engine != "ray":
        raise typer.BadParameter("--declared-speeds is about nodes of a cluster; it goes with --engine ray")


def _calibrate(
    specification: Specification,
    names: list[str],
    store: Path,
    sources: Mapping[str, MeasurementBackend],
    seed: int,
    json: bool,
) -> None:
    from circinus.cli.output import console, print_json
    from circinus.profiling import calibrate, load_profile
    from circinus.reporting.profile_table import calibration_table

    found = []
    for name in names:
        source = sources.get(name)
        recorded = load_profile(
            specification, name, store, seed=seed, source=source, from_other_machines=source is None
        )
        found.append(calibrate(specification, recorded, seed=seed))
    if json:
        print_json("calibration", found)
        return
    for calibration in found:
        console().print(calibration_table(calibration))


def _check_recording(record: Path | None, names: list[str], from_traces: bool) -> None:
    if record is not None and len(names) != 1:
        raise typer.BadParameter(f"a trace is of one pipeline, found {', '.join(names)}: choose one with --pipeline")
    if record is not None and from_traces:
        raise typer.BadParameter("found both --record and --trace; a trace is recorded of a real run")


def _chosen(wanted: list[str] | None, present: list[str]) -> list[str]:
    for name in wanted or ():
        if name not in present:
            raise typer.BadParameter(f"found no pipeline {name}, expected one of {', '.join(present) or '(none)'}")
    return wanted or present


def _observed(store: Path, pipeline: str) -> list[ServiceTimeObservation]:
    from circinus.profiling import load_observations

    return [observation for observation in load_observations(store) if observation.pipeline == pipeline]
