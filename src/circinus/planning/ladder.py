"""The ladder of a plan: neighbours on its query's frontier to step down to under a burst, and up again when calm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.estimation import PlanCandidate
from circinus.planning.steps import LadderSteps, OperatorChange, plan_changes
from circinus.spec import Query

IntArray = NDArray[np.int64]

MAX_RUNGS = 8
"""Most rungs of a ladder."""


@dataclass(frozen=True)
class Rung:
    """One plan of a ladder. It promises its query's objectives at the query's rate by itself."""

    candidate: PlanCandidate
    """As estimated for this query alone with deployments as busy as they may get."""
    cpu_s_per_request: float
    """CPU seconds that a request keeps its replicas busy, over all operators."""
    shared_usd_per_h: float
    """What it costs where others fill its replicas, transfers included."""
    changes: tuple[OperatorChange, ...]
    """What differs from the rung above, in topological order; empty at the top."""


@dataclass(frozen=True)
class Ladder:
    """Rungs from the one with most margin down to the one that takes least.

    A step down never takes more CPU seconds a request and never costs more fully shared, and takes less of one of them;
    and it is never more accurate.
    """

    rungs: tuple[Rung, ...]
    chosen: int
    """Index of the plan that the query got."""


def ladder(query: Query, plans: Sequence[PlanCandidate], chosen: PlanCandidate, most: int = MAX_RUNGS) -> Ladder:
    """The ladder of a chosen plan.

    The top is the most accurate plan, and of equally accurate ones the one with most latency margin, of all that the
    chosen plan is a step down from; the bottom is the cheapest, then that with fewest CPU seconds, of all that are a
    step down from it. From the top over the chosen plan to the bottom the rungs are those with the smallest steps: the
    sum of `Steps.jolt` over all steps is least. Plans that others beat in all that counts are no rungs.

    Args:
        query: whose plans these are.
        plans: different promised plans, such as a frontier's.
        chosen: one of them, or another promised plan of the query; with its promise, as all of them.
        most: most rungs.

    Raises:
        ValueError: `most` is below 3, which top, chosen plan and bottom may take.
    """
    if most < 3:
        raise ValueError(f"found {most} rungs, expected at least 3")
    known = [chosen, *(candidate for candidate in plans if candidate.plan != chosen.plan)]
    steps = LadderSteps.of(query, known)
    which = steps.efficient.copy()
    which[0] = True
    steps = steps.among(which)
    up, down = _ways(steps, _top(steps, 0), 0, most), _ways(steps, 0, _bottom(steps, 0), most)
    pairs = [(a[0] + b[0], a[1], b[1]) for a in up for b in down if len(a[1]) + len(b[1]) - 1 <= most]
    _, upper, lower = min(pairs)
    indexes = [*upper, *lower[1:]]
    rungs = tuple(
        Rung(
            candidate=known[index],
            cpu_s_per_request=float(steps.busy[index]),
            shared_usd_per_h=float(steps.cost[index]),
            changes=plan_changes(known[indexes[position - 1]], known[index]) if position else (),
        )
        for position, index in enumerate(indexes)
    )
    return Ladder(rungs, len(upper) - 1)


def _top(steps: LadderSteps, chosen: int) -> int:
    """The plan with most margin of all that `chosen` is a step down from."""
    above = np.flatnonzero(steps.down[:, chosen])
    order = np.lexsort((above, steps.cost[above], -steps.latency[above], -steps.accuracy[above]))
    return int(above[order[0]]) if len(above) else chosen


def _bottom(steps: LadderSteps, chosen: int) -> int:
    """The plan that takes least of all that are a step down from `chosen`."""
    below = np.flatnonzero(steps.down[chosen])
    order = np.lexsort((below, steps.busy[below], steps.cost[below]))
    return int(below[order[0]]) if len(below) else chosen


def _ways(steps: LadderSteps, start: int, end: int, most: int) -> list[tuple[float, list[int]]]:
    """For each number of rungs up to `most` the way down from `start` to `end` with the smallest steps, if any."""
    if start == end:
        return [(0.0, [start])]
    found: list[tuple[float, list[int]]] = []
    count = len(steps.busy)
    best = np.full(count, np.inf)
    best[start] = 0.0
    came: list[IntArray] = []
    for _ in range(most - 1):
        through = best[:, None] + steps.step_size
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
        if np.isfinite(best[end]):
            way = [end]
            for sources in reversed(came):
                way.append(int(sources[way[-1]]))
            found.append((float(best[end]), way[::-1]))
    return found
