"""Measuring a pipeline: as little as settles the queries' objectives, within a time budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from circinus.profiling.observer import ProfileObserver
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.recordings import Recordings
from circinus.spec import Configuration, Specification


def profile_pipeline(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    observer: ProfileObserver | None = None,
) -> PipelineProfile:
    """Measure the configurations of a pipeline until all are settled or the budget is spent.

    Ctrl-C ends it early: the result then says `interrupted`, and the next call goes on where it ended.

    Raises:
        ProfileError: a score outside the metric's range, an unusable data set, a store that cannot be used.
        OperatorError: an operator, metric or data set cannot be found.
    """
    raise NotImplementedError


def record_held_out(
    specification: Specification,
    pipeline_name: str,
    store: Path,
    *,
    configurations: Sequence[Configuration],
    items_count: int,
    seed: int = 0,
    observer: ProfileObserver | None = None,
) -> Recordings:
    """Record the given configurations on the last `items_count` items of the order, for replay.

    Raises:
        KeyboardInterrupt: as it comes; what was committed stays and the next call goes on from there.
    """
    raise NotImplementedError
