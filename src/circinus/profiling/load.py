"""Reading a pipeline's profile from the store."""

from __future__ import annotations

from pathlib import Path

from circinus.profiling.profile import PipelineProfile
from circinus.spec import Specification


def load_profile(specification: Specification, pipeline_name: str, store: Path, *, seed: int = 0) -> PipelineProfile:
    """What the store knows of a pipeline as specified and coded now.

    Neither builds the data set nor loads an operator's model.

    Raises:
        ProfileError: there is no store, or nothing in it is of the pipeline as it is now.
        OperatorError: an operator, metric or data set cannot be found.
    """
    raise NotImplementedError
