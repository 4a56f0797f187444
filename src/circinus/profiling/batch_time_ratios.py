"""The allocations that an operator may be given, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from circinus.specification import OperatorSpec


def allowed_allocations(spec: OperatorSpec) -> tuple[tuple[float, int], ...]:
    """Every (CPUs, batch size) that an operator may be given."""
    return tuple((cpus, size) for cpus in spec.cpus for size in spec.batch_sizes)


def batch_ratios(
    allowed: Sequence[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> Mapping[tuple[float, int], float]:
    """Ratio for every allowed (CPUs, batch size); what was not measured is taken to gain nothing."""
    fewest = min(cpus for cpus, _ in allowed)
    return {
        (cpus, size): 1.0 if (cpus, size) == (fewest, 1) else measured.get((cpus, size), float(size))
        for cpus, size in allowed
    }


def min_batch_ratio(spec: OperatorSpec, measured: Mapping[tuple[float, int], float]) -> float:
    """The least ratio that an allowed allocation may have.

    As measured; an allocation that nobody measured is taken to gain all that its CPUs may, and its batch to take no
    longer than one item.
    """
    fewest = min(spec.cpus)
    return min(
        1.0 if (cpus, size) == (fewest, 1) else measured.get((cpus, size), fewest / cpus)
        for cpus, size in allowed_allocations(spec)
    )


def measured_allocations(
    allowed: Iterable[tuple[float, int]], measured: Mapping[tuple[float, int], float]
) -> frozenset[tuple[float, int]]:
    """Those of the allowed combinations that stand on a measurement; a single item on the fewest CPUs always does."""
    allowed = tuple(allowed)
    fewest = min(cpus for cpus, _ in allowed)
    return frozenset(pair for pair in allowed if pair in measured or pair == (fewest, 1))
