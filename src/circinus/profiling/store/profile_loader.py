"""Loading of a pipeline's profile from the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from circinus.errors import ProfileError
from circinus.profiling.hardware.class_times import class_machines
from circinus.profiling.hardware.machine import current_machine
from circinus.profiling.measurement.backend import LocalBackend, MeasurementBackend
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.race.sampler import ConfigurationSampler
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.profiling.store.profile_builder import build_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredDataset, read_dataset, read_machines
from circinus.specification import Specification


@dataclass(frozen=True)
class LoadedProfile:
    """Profile with its keys and data set in the store."""

    profile: PipelineProfile
    addresses: MeasurementKeys
    dataset: StoredDataset


def load_profile(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    seed: int = 0,
    source: MeasurementBackend | None = None,
    from_other_machines: bool = False,
    with_verdicts: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> PipelineProfile:
    """Load the profile of a pipeline with its current specification and code.

    Neither the data set is built nor a model loaded: the data set is assumed to equal the one that its code and
    arguments built at the last measurement. Measurements of this machine come first, unless the last profile was
    measured on a pool's node of class `local`, which then comes first. Without either, those of another machine are
    loaded (`PipelineProfile.machine`). Machines are never mixed.

    Args:
        specification: specification of the pipeline and its queries.
        pipeline_name: name of the pipeline.
        store: store file.
        seed: random seed of the measurement order.
        source: measurement backend; default: the operators.
        from_other_machines: whether to exclude measurements of this machine.
        with_verdicts: whether to add the verdicts of all configurations (`PipelineProfile.verdicts`).
        explorer: sampler that selected the configurations to measure; default: all.

    Raises:
        ProfileError: the store is missing, or has no measurement of the current version of the pipeline.
        OperatorError: an operator, metric or data set cannot be found.
    """
    with ProfileStore(store) as opened:
        return read_profile(
            opened,
            specification,
            pipeline_name,
            seed,
            source,
            from_other_machines=from_other_machines,
            with_verdicts=with_verdicts,
            explorer=explorer,
        ).profile


def read_profile(
    store: ProfileStore,
    specification: Specification,
    pipeline_name: str,
    seed: int,
    source: MeasurementBackend | None = None,
    *,
    from_other_machines: bool = False,
    with_verdicts: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> LoadedProfile:
    """Load a profile from an open store (see `load_profile`)."""
    source = source or LocalBackend(specification.module_paths)
    pipeline = specification.pipelines[pipeline_name]
    slos = PipelineSlos.of(specification, pipeline_name)
    failed_only = None
    # If the last profile was measured on a node of class `local`, it represents the pools of that class.
    on_pools = class_machines(store).get(LOCAL, ()) if isinstance(source, LocalBackend) else ()
    machines = dict.fromkeys((*on_pools, source.machine, *read_machines(store), None))
    for machine in (machine for machine in machines if not from_other_machines or machine != current_machine()):
        keys = source.addresses(pipeline, machine)
        dataset = read_dataset(store, keys.dataset(), seed)
        if dataset is None:
            break
        profile = build_profile(store, keys, dataset, slos, with_verdicts=with_verdicts, explorer=explorer)
        loaded = LoadedProfile(profile, keys, dataset)
        if profile.configurations:
            return loaded
        if profile.failed and failed_only is None:
            failed_only = loaded
    if failed_only is None:
        elsewhere = " on another machine" if from_other_machines else ""
        command = "circinus profile" if isinstance(source, LocalBackend) else "circinus profile --trace"
        raise ProfileError(
            f"no measurement of pipeline {pipeline_name}{elsewhere} with its current operators, metric and data set "
            f"(order of items: seed {seed})",
            code="profile.not_measured",
            location=str(store.path),
            hint=f"Run `{command}`{elsewhere}.",
        )
    return failed_only
