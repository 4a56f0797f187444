"""Batch times relative to unbatched service times."""

from __future__ import annotations

from itertools import pairwise

from circinus.errors import PlanningError
from circinus.profiling import OperatorProfile


def batch_time_ratios(profile: OperatorProfile, cpus: float, batch_size: int) -> tuple[float, ...]:
    """Return (batch_size,) times of a batch of 1, 2, ... relative to the mean unbatched time of its items.

    Unbatched times are those on the fewest CPUs. Ratios are interpolated linearly between the batch sizes that were
    profiled with `cpus` CPUs, and constant below the smallest of them.

    Args:
        profile: profile of the operator.
        cpus: CPUs of a replica.
        batch_size: maximum batch size.

    Raises:
        PlanningError: the allocation was not profiled.
    """
    measured = {size: ratio for (its_cpus, size), ratio in profile.batch_ratio.items() if its_cpus == cpus}
    if batch_size not in measured:
        allocations = ", ".join(f"{c:g} CPUs with batches of {b}" for c, b in sorted(profile.batch_ratio))
        raise PlanningError(
            f"{cpus:g} CPUs with batches of {batch_size} were not profiled (profiled: {allocations})",
            code="profile.allocation_not_measured",
            location=f"operator {profile.operator}",
            hint="Run `circinus profile` again.",
        )
    sizes = sorted(size for size in measured if size <= batch_size)
    ratios = [measured[sizes[0]]] * sizes[0]
    for below, above in pairwise(sizes):
        step = (measured[above] - measured[below]) / (above - below)
        ratios += [measured[below] + step * k for k in range(1, above - below + 1)]
    return tuple(ratios)
