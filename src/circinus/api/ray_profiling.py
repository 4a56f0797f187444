"""Profiling on the nodes of pools, for the verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from circinus.profiling import HardwareClassReport, PipelineProfile
    from circinus.serving.ray.profiling_targets import ProfilingTargets
    from circinus.specification import Specification


def connect_profiling_targets(specification: Specification, address: str, *, declared_speeds: bool) -> ProfilingTargets:
    """A node of every hardware class on the cluster at `address`.

    Raises:
        ServingError: there is no such cluster, or a node does not answer.
        ProfileError: a class has no living node, and `declared_speeds` are not allowed to stand for it.
    """
    from circinus.serving.ray.cluster import Cluster
    from circinus.serving.ray.profiling_targets import find_profiling_targets as places_on
    from circinus.serving.ray.settings import RaySettings

    if specification.infrastructure is None:
        raise typer.BadParameter("--engine ray measures the hardware of an infrastructure; found none in the files")
    return places_on(
        Cluster(RaySettings(address=address)),
        address,
        specification.infrastructure,
        specification.module_paths,
        declared_speeds=declared_speeds,
    )


def profile_on_pools(
    specification: Specification,
    name: str,
    store: Path,
    budget_s: float | None,
    seed: int,
    places: ProfilingTargets,
    *,
    exhaustive: bool,
    without_lost: bool,
) -> tuple[PipelineProfile, tuple[HardwareClassReport, ...]]:
    """Measure one pipeline on every hardware class behind a progress bar."""
    from circinus.cli.output import progress_console
    from circinus.planning.sampler import make_sampler
    from circinus.profiling import profile_on_hardware_classes
    from circinus.reporting.progress import profile_bar

    with profile_bar(progress_console(), name) as bar:
        found = profile_on_hardware_classes(
            specification,
            name,
            store,
            reference=places.reference,
            classes=places.classes,
            explorer=lambda: make_sampler(specification, name),
            budget_s=budget_s,
            seed=seed,
            observer=bar,
            exhaustive=exhaustive,
            skip_lost_nodes=without_lost,
        )
    return found.profile, found.reports


def machine_warning(profile: PipelineProfile, specification: Specification) -> str | None:
    """Why a profile's times are not to be taken for those of this machine.

    None: they are its own, or those of the pools' own nodes.
    """
    from circinus.profiling import machine_mismatch
    from circinus.profiling.hardware.heterogeneous_profiler import classes_with_declared_speed

    if specification.infrastructure is not None and not classes_with_declared_speed(profile, specification):
        return None
    return machine_mismatch(profile.machine)
