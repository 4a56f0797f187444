"""Reading a pipeline's profile from the store."""

from __future__ import annotations

from pathlib import Path

from circinus.errors import ProfileError
from circinus.profiling.addresses import Addresses, dataset_source, pipeline_code
from circinus.profiling.assembly import read_profile
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.store import ProfileStore
from circinus.profiling.stored import read_dataset
from circinus.spec import Specification


def load_profile(specification: Specification, pipeline_name: str, store: Path, *, seed: int = 0) -> PipelineProfile:
    """What the store knows of a pipeline as specified and coded now.

    Neither builds the data set nor loads an operator's model: the data set is taken to be what its code and arguments
    made when it was last measured on.

    Raises:
        ProfileError: there is no store, or nothing in it is of the pipeline as it is now.
        OperatorError: an operator, metric or data set cannot be found.
    """
    pipeline = specification.pipelines[pipeline_name]
    with ProfileStore(store) as opened:
        addresses = Addresses(pipeline, pipeline_code(pipeline, specification.module_paths))
        source = dataset_source(pipeline.dataset, addresses.code.dataset)
        dataset = read_dataset(opened, source, seed)
        objectives = Objectives.of(specification.queries, pipeline_name)
        profile = None if dataset is None else read_profile(opened, addresses, dataset, objectives)
    if profile is None or not (profile.configurations or profile.failed):
        raise ProfileError(
            f"{store}: found no measurement of pipeline {pipeline_name} as its operators, metric and data set are now "
            f"(order of items: seed {seed}); measure it (circinus profile)"
        )
    return profile
