"""Profiling on the nodes of a Ray cluster, one for each hardware class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.progress import ProgressFactory, no_progress

if TYPE_CHECKING:
    from circinus.profiling import HardwareClassReport, PipelineProfile
    from circinus.serving.ray.profiling_targets import ProfilingTargets
    from circinus.specification import Specification


def connect_profiling_targets(specification: Specification, address: str, *, declared_speeds: bool) -> ProfilingTargets:
    """Return a node of each hardware class on the cluster at `address`.

    Raises:
        ProfileError: the specification has no infrastructure, or a class has no living node and `declared_speeds` do
            not replace it.
        ServingError: there is no such cluster, or a node does not respond.
    """
    from circinus.errors import ProfileError
    from circinus.serving.ray.cluster import Cluster
    from circinus.serving.ray.profiling_targets import find_profiling_targets
    from circinus.serving.ray.settings import RaySettings

    if specification.infrastructure is None:
        raise ProfileError(
            "profiling on Ray measures the hardware of an infrastructure, and the specification has none",
            code="profile.no_infrastructure",
            hint="Add a document of kind Infrastructure.",
        )
    return find_profiling_targets(
        Cluster(RaySettings(address=address)),
        address,
        specification.infrastructure,
        specification.module_paths,
        declared_speeds=declared_speeds,
    )


def profile_on_targets(
    specification: Specification,
    name: str,
    store: Path,
    targets: ProfilingTargets,
    *,
    budget_s: float | None,
    seed: int,
    exhaustive: bool,
    skip_lost_nodes: bool,
    progress: ProgressFactory = no_progress,
) -> tuple[PipelineProfile, tuple[HardwareClassReport, ...]]:
    """Profile one pipeline on each hardware class."""
    from circinus.planning.sampler import make_sampler
    from circinus.profiling import profile_on_hardware_classes

    with progress(name) as observer:
        profile = profile_on_hardware_classes(
            specification,
            name,
            store,
            reference=targets.reference,
            classes=targets.classes,
            explorer=lambda: make_sampler(specification, name),
            budget_s=budget_s,
            seed=seed,
            observer=observer,
            exhaustive=exhaustive,
            skip_lost_nodes=skip_lost_nodes,
        )
    return profile.profile, profile.reports


def machine_warning(profile: PipelineProfile, specification: Specification) -> str | None:
    """Return why a profile's times do not apply to this machine.

    None if they are its own, or those of the pools' own nodes.
    """
    from circinus.profiling import machine_mismatch
    from circinus.profiling.hardware.heterogeneous_profiler import classes_with_declared_speed

    if specification.infrastructure is not None and not classes_with_declared_speed(profile, specification):
        return None
    return machine_mismatch(profile.machine)
