"""Contests on the three published data sets: queries over three tiers, with objectives from loose to tight.

A query's accuracy objective is a quantile of the configurations that fit somewhere, its latency limit a multiple of the
tightest that any plan guarantees at that accuracy, and one query in three has a cost limit, a multiple of the cheapest
plan's cost: see `benchmarks.workloads.published.queries`, which draws them from a seed. All hold on an empty
infrastructure of all tiers. Load 1 is the number of queries that the capacities serve if replicas could be divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from benchmarks.evaluation.contest import Contest
from benchmarks.matching.goodput_over_load import queries_at_capacity
from benchmarks.workloads.published.queries import FluidWorkload, workloads
from benchmarks.workloads.published.speech import traces_folder

TIGHTNESS = {"tight": (1.05, 1.5), "medium": (1.5, 2.5), "loose": (2.5, 6.0), "mixed": (1.05, 6.0)}
"""Latency limits over the tightest that can be guaranteed."""
KINDS = 30
"""Number of kinds of queries of each data set."""
_BUSIER = 20.0
"""Factor of the rates of `workloads`, with which a few hundred queries fill the capacities."""


def contests(loads: Sequence[float], seed: int, tightness: str = "mixed", *, kinds: int = KINDS) -> Iterator[Contest]:
    """Yield a contest for each data set, and for all together, at each load.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    for workload in workloads(traces_folder(), seed, kinds=kinds, busier=_BUSIER, latency_factors=TIGHTNESS[tightness]):
        capacity = queries_at_capacity(FluidWorkload.of(workload))
        for load in loads:
            specification, _ = workload.queries(ceil(load * capacity), seed)
            name = f"{workload.name}, load {load:g}, {tightness}"
            yield Contest(name, specification, workload.profiles, workload.traces)
