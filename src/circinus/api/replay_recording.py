"""Recording what a replay answers from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.specification import Configuration, QueryPlan, Specification

DEFAULT_REPLAY_ITEMS = 16


def record_plans(
    specification: Specification, store: Path, plans: Iterable[QueryPlan], items: int, *, seed: int, quiet: bool = False
) -> None:
    """Record the configurations of plans on items that planning did not see.

    Args:
        specification: with their pipelines.
        store: the profile store.
        plans: to be replayed.
        items: how many are recorded of each configuration.
        seed: of the order in which items were measured.
        quiet: whether no progress is shown.
    """
    configurations = ((plan.pipeline, plan.configuration) for plan in plans)
    record_configurations(specification, store, configurations, items, seed=seed, quiet=quiet)


def record_configurations(
    specification: Specification,
    store: Path,
    configurations: Iterable[tuple[str, Configuration]],
    items: int,
    *,
    seed: int,
    quiet: bool = False,
) -> None:
    """`record_plans` of (pipeline, configuration)."""
    from circinus.cli.output import progress_console
    from circinus.profiling import SilentObserver, record_for_replay
    from circinus.reporting.progress import profile_bar

    by_pipeline: dict[str, dict[Configuration, None]] = {}
    for pipeline, configuration in configurations:
        by_pipeline.setdefault(pipeline, {})[configuration] = None
    for name, its in by_pipeline.items():
        with nullcontext(SilentObserver()) if quiet else profile_bar(progress_console(), name) as bar:
            record_for_replay(
                specification,
                name,
                store,
                configurations=list(its),
                items_count=items,
                seed=seed,
                observer=bar,
            )
