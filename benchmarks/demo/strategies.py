"""The strategies that the demo compares: plans of Circinus and two choices that people make by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import circinus as c
from benchmarks.baselines.by_hand import FixedChoice, fixed_matching
from circinus.api.progress import ProgressFactory
from circinus.matching import make_plan_set

if TYPE_CHECKING:
    from circinus.serving.loadtest.load_test import LoadProgress

OURS = "Circinus"


def fixed_plan(workspace: c.Workspace, report: c.ProfileReport, choice: FixedChoice) -> c.Plan:
    """Return the plan that gives every query the same choice among the measured configurations."""
    matching = fixed_matching(workspace.specification, report.profiles, choice)
    return c.Plan(
        make_plan_set(
            workspace.specification,
            report.profiles,
            matching,
            plan_file=workspace.store.parent / "plan.json",
            profile_store=workspace.store,
            seed=workspace.seed,
            created_at=datetime.now(UTC),
            planning_s=0.0,
        )
    )


def load_test_side_by_side(
    plans: Mapping[str, c.Plan],
    *,
    specification: c.Specification,
    store: Path,
    folder: Path,
    seed: int,
    duration_s: float,
    warm_up_s: float,
    load_factor: float,
    items: int,
    progress: ProgressFactory,
    on_progress: Callable[[LoadProgress], None],
) -> dict[str, c.LoadReport]:
    """Deploy each plan as a replay on an engine of its own, and load-test all of them at the same time.

    Args:
        plans: strategy -> plan; all get the same arrivals.
        specification: specification of the plans.
        store: profile store; held-out items are recorded there.
        folder: existing folder for the engines' run directories.
        seed: seed of arrivals and of the order of items.
        duration_s: measured time.
        warm_up_s: time before the measurement.
        load_factor: factor on the rate of each query.
        items: number of held-out items.
        progress: observer of the recording.
        on_progress: callback for the load test of `OURS`.
    """
    # Engines are closed before the threads are joined, so that an interrupt ends the load tests at once.
    with ThreadPoolExecutor(len(plans)) as senders, ExitStack() as engines:
        deployed = {}
        for index, (name, plan) in enumerate(plans.items()):
            workspace = c.Workspace(specification, store=store, seed=seed, run_dir=folder / str(index))
            deployment = workspace.deploy(plan, mode="replay", items=items, progress=progress)
            deployed[name] = engines.enter_context(deployment)
        tests = {
            name: senders.submit(
                deployment.load_test,
                duration=duration_s,
                warm_up=warm_up_s,
                load_factor=load_factor,
                items=items,
                seed=seed,
                on_progress=on_progress if name == OURS else None,
            )
            for name, deployment in deployed.items()
        }
        return {name: test.result() for name, test in tests.items()}
