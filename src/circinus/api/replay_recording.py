"""Recording of the outputs that a replay returns."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.progress import ProgressFactory, no_progress
from circinus.profiling import record_for_replay

if TYPE_CHECKING:
    from circinus.specification import Configuration, QueryPlan, Specification

_log = logging.getLogger(__name__)


def record_plans(
    specification: Specification,
    store: Path,
    plans: Iterable[QueryPlan],
    items: int,
    *,
    seed: int,
    progress: ProgressFactory = no_progress,
) -> None:
    """Record the configurations of plans on held-out items.

    Args:
        specification: specification that has the plans' pipelines.
        store: profile store.
        plans: plans to replay.
        items: number of items to record for each configuration.
        seed: seed of the order of items.
        progress: observer for each pipeline.
    """
    configurations = ((plan.pipeline, plan.configuration) for plan in plans)
    record_configurations(specification, store, configurations, items, seed=seed, progress=progress)


def record_configurations(
    specification: Specification,
    store: Path,
    configurations: Iterable[tuple[str, Configuration]],
    items: int,
    *,
    seed: int,
    progress: ProgressFactory = no_progress,
) -> None:
    """Record (pipeline, configuration) pairs on held-out items; see `record_plans`."""
    by_pipeline: dict[str, dict[Configuration, None]] = {}
    for pipeline, configuration in configurations:
        by_pipeline.setdefault(pipeline, {})[configuration] = None
    for name, chosen in by_pipeline.items():
        _log.info("record %d configurations of pipeline %s on %d items", len(chosen), name, items)
        with progress(name) as observer:
            record_for_replay(
                specification,
                name,
                store,
                configurations=list(chosen),
                items_count=items,
                seed=seed,
                observer=observer,
            )
