"""How long batches take that are not full."""

from __future__ import annotations

from itertools import pairwise

from circinus.errors import PlanningError
from circinus.profiling import OperatorProfile


def batch_time_ratios(profile: OperatorProfile, cpus: float, batch_size: int) -> tuple[float, ...]:
    """(batch_size,) seconds of a batch of 1, 2, ... over the mean of what its items take alone on the fewest CPUs.

    Linear between the batch sizes that were profiled with these CPUs; below the least of them as long as that.

    Args:
        profile: of the operator.
        cpus: of a replica.
        batch_size: most items in a batch.

    Raises:
        PlanningError: the profile does not have this allocation.
    """
    known = {size: ratio for (its_cpus, size), ratio in profile.batch_ratio.items() if its_cpus == cpus}
    if batch_size not in known:
        found = ", ".join(f"{c:g} CPUs with batches of {b}" for c, b in sorted(profile.batch_ratio))
        raise PlanningError(
            f"operator {profile.operator}: found an allocation of {cpus:g} CPUs with batches of {batch_size}, expected "
            f"one that was profiled ({found}); profile the pipeline again",
            code="profile.allocation_not_measured",
        )
    sizes = sorted(size for size in known if size <= batch_size)
    ratios = [known[sizes[0]]] * sizes[0]
    for below, above in pairwise(sizes):
        step = (known[above] - known[below]) / (above - below)
        ratios += [known[below] + step * k for k in range(1, above - below + 1)]
    return tuple(ratios)
