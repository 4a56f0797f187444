"""Recording what a replay answers from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.cli.opened_plan import OpenedPlan
    from circinus.spec import Configuration, Plan

DEFAULT_REPLAY_ITEMS = 16


def record_plans(opened: OpenedPlan, plans: Iterable[Plan], items: int) -> None:
    """Record the configurations of plans on items that planning did not see."""
    from circinus.cli.output import progress_console
    from circinus.profiling import record_held_out
    from circinus.reporting.progress import profile_bar

    by_pipeline: dict[str, dict[Configuration, None]] = {}
    for plan in plans:
        by_pipeline.setdefault(plan.pipeline, {})[plan.configuration] = None
    for name, configurations in by_pipeline.items():
        with profile_bar(progress_console(), name) as bar:
            record_held_out(
                opened.specification,
                name,
                opened.store,
                configurations=list(configurations),
                items_count=items,
                seed=opened.plan_set.seed,
                observer=bar,
            )
