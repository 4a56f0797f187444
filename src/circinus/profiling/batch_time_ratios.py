"""Allocations of CPUs and batch sizes, and the batch time ratios measured for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from circinus.specification import OperatorSpec


def allowed_allocations(spec: OperatorSpec) -> tuple[tuple[float, int], ...]:
    """Return every allocation (CPUs, batch size) that the specification of an operator allows."""
    return tuple((cpus, size) for cpus in spec.cpus for size in spec.batch_sizes)


def batch_ratios(
    allowed: Sequence[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> Mapping[tuple[float, int], float]:
    """Return the batch time ratio of every allowed allocation; unmeasured ones get their batch size (no gain)."""
    fewest = min(cpus for cpus, _ in allowed)
    return {
        (cpus, size): 1.0 if (cpus, size) == (fewest, 1) else measured.get((cpus, size), float(size))
        for cpus, size in allowed
    }


def min_batch_ratio(spec: OperatorSpec, measured: Mapping[tuple[float, int], float]) -> float:
    """Return the smallest batch time ratio that an allowed allocation may have.

    Measured ratios are used as they are. An unmeasured allocation is assumed to scale perfectly with its CPUs and to
    process a batch in the time of one item.
    """
    fewest = min(spec.cpus)
    return min(
        1.0 if (cpus, size) == (fewest, 1) else measured.get((cpus, size), fewest / cpus)
        for cpus, size in allowed_allocations(spec)
    )


def measured_allocations(
    allowed: Iterable[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> frozenset[tuple[float, int]]:
    """Return the allowed allocations with a measurement; a single item on the fewest CPUs always has one."""
    allowed = tuple(allowed)
    fewest = min(cpus for cpus, _ in allowed)
    return frozenset(pair for pair in allowed if pair in measured or pair == (fewest, 1))


def bounded_batch_times_s(
    allocations: Iterable[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> Mapping[tuple[float, int], float]:
    """Return seconds of a full batch of every allocation from those of some, at least one.

    Measured times are used as they are. Other times have an upper bound: a batch takes at most as long as a larger one,
    and as all parts that it is divided into; on more CPUs at most as long, and on fewer longer at most in proportion.
    """
    return {
        (cpus, size): measured[cpus, size]
        if (cpus, size) in measured
        else min(math.ceil(size / s) * batch_s * max(c / cpus, 1.0) for (c, s), batch_s in measured.items())
        for cpus, size in allocations
    }
