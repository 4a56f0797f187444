"""Reading a pipeline's profile from the store."""

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
    """A profile, and where it stands in the store."""

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
    judged: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> PipelineProfile:
    """What the store knows of a pipeline as specified and coded now.

    Neither builds the data set nor loads an operator's model: the data set is taken to be what its code and arguments
    made when it was last measured on. What was measured on this machine comes first, unless the last profile was made
    on a pool's node of the class `local`: then that. Where both are nothing, it is what another machine measured
    (`PipelineProfile.machine`): never a mixture.

    Args:
        specification: has the pipeline and the queries that say what is settled.
        pipeline_name: which pipeline.
        store: file.
        seed: of the order of the items.
        source: where measurements came from; None: the operators.
        from_other_machines: whether to leave out what was measured on this machine.
        judged: whether to say what is decided of every configuration, too (`PipelineProfile.judgements`).
        explorer: who said which configurations are worth measuring; None: all are.

    Raises:
        ProfileError: there is no store, or nothing in it is of the pipeline as it is now.
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
            judged=judged,
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
    judged: bool = False,
    explorer: ConfigurationSampler | None = None,
) -> LoadedProfile:
    """As `load_profile`, from an open store."""
    source = source or LocalBackend(specification.module_paths)
    pipeline = specification.pipelines[pipeline_name]
    objectives = PipelineSlos.of(specification, pipeline_name)
    failing = None
    # Where a node of the class `local` profiled last, pools of that class are such nodes, wherever this process runs.
    on_pools = class_machines(store).get(LOCAL, ()) if isinstance(source, LocalBackend) else ()
    machines = dict.fromkeys((*on_pools, source.machine, *read_machines(store), None))
    for machine in (machine for machine in machines if not from_other_machines or machine != current_machine()):
        addresses = source.addresses(pipeline, machine)
        dataset = read_dataset(store, addresses.dataset(), seed)
        if dataset is None:
            break
        profile = build_profile(store, addresses, dataset, objectives, with_verdicts=judged, explorer=explorer)
        found = LoadedProfile(profile, addresses, dataset)
        if found.profile.configurations:
            return found
        if found.profile.failed and failing is None:
            failing = found
    if failing is None:
        where = " on another machine" if from_other_machines else ""
        command = "circinus profile" if isinstance(source, LocalBackend) else "circinus profile --trace"
        raise ProfileError(
            f"{store.path}: found no measurement of pipeline {pipeline_name}{where} as its operators, metric and data "
            f"set are now (order of items: seed {seed}); measure it{where} ({command})"
        )
    return failing
