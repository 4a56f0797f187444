"""Reading a pipeline's profile from the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from circinus.errors import ProfileError
from circinus.profiling.addresses import LOCAL, Addresses
from circinus.profiling.assembly import read_profile
from circinus.profiling.class_times import class_machines
from circinus.profiling.explorer import Explorer
from circinus.profiling.machine import this_machine
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.source import LocalSource, Source
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import StoredDataset, read_dataset, read_machines
from circinus.spec import Specification


@dataclass(frozen=True)
class FoundProfile:
    """A profile, and where it stands in the store."""

    profile: PipelineProfile
    addresses: Addresses
    dataset: StoredDataset


def load_profile(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    seed: int = 0,
    source: Source | None = None,
    of_others: bool = False,
    judged: bool = False,
    explorer: Explorer | None = None,
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
        of_others: whether to leave out what was measured on this machine.
        judged: whether to say what is decided of every configuration, too (`PipelineProfile.judgements`).
        explorer: who said which configurations are worth measuring; None: all are.

    Raises:
        ProfileError: there is no store, or nothing in it is of the pipeline as it is now.
        OperatorError: an operator, metric or data set cannot be found.
    """
    with ProfileStore(store) as opened:
        return find_profile(
            opened, specification, pipeline_name, seed, source, of_others=of_others, judged=judged, explorer=explorer
        ).profile


def find_profile(
    store: ProfileStore,
    specification: Specification,
    pipeline_name: str,
    seed: int,
    source: Source | None = None,
    *,
    of_others: bool = False,
    judged: bool = False,
    explorer: Explorer | None = None,
) -> FoundProfile:
    """As `load_profile`, from an open store."""
    source = source or LocalSource(specification.module_paths)
    pipeline = specification.pipelines[pipeline_name]
    objectives = Objectives.of(specification, pipeline_name)
    failing = None
    # Where a node of the class `local` profiled last, pools of that class are such nodes, wherever this process runs.
    on_pools = class_machines(store).get(LOCAL, ()) if isinstance(source, LocalSource) else ()
    machines = dict.fromkeys((*on_pools, source.machine, *read_machines(store), None))
    for machine in (machine for machine in machines if not of_others or machine != this_machine()):
        addresses = source.addresses(pipeline, machine)
        dataset = read_dataset(store, addresses.dataset(), seed)
        if dataset is None:
            break
        profile = read_profile(store, addresses, dataset, objectives, judged=judged, explorer=explorer)
        found = FoundProfile(profile, addresses, dataset)
        if found.profile.configurations:
            return found
        if found.profile.failed and failing is None:
            failing = found
    if failing is None:
        where = " on another machine" if of_others else ""
        command = "circinus profile" if isinstance(source, LocalSource) else "circinus profile --trace"
        raise ProfileError(
            f"{store.path}: found no measurement of pipeline {pipeline_name}{where} as its operators, metric and data "
            f"set are now (order of items: seed {seed}); measure it{where} ({command})"
        )
    return failing
