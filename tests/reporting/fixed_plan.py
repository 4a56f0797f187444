"""A plan of five queries, three of which are served, with fixed values."""

from __future__ import annotations

from dataclasses import replace

from circinus.estimation import Estimate, PlanCandidate, ReplicaDemand, SloProbabilities, StageEstimate
from circinus.matching import Alternative, Assignment, Matching, Rejection, ShadowPrice, SizedDeployment
from circinus.planning import BestEffortPlan, Ladder
from circinus.planning.rungs import Rung
from circinus.specification import (
    AccuracySlo,
    Allocation,
    Configuration,
    CostSlo,
    Deployment,
    HardwareClass,
    Infrastructure,
    KnobValues,
    LatencySlo,
    Link,
    PlanShare,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
)
from circinus.statistics.interval import Interval

METRIC = "words right"
OPERATORS = ("split", "lookup", "rank", "join")
KNOBS = {"split": {"mode": "dashes"}, "lookup": {"size": 120}, "rank": {"keep": 1}, "join": {"style": "plain"}}
INFRASTRUCTURE = Infrastructure(
    name="office",
    sites=(Site(name="tablet"), Site(name="office")),
    pools=(
        Pool(name="tablet", site="tablet", tier="device", cpus=2, memory="2GiB", hardware=HardwareClass(name="local")),
        Pool(
            name="office-server",
            site="office",
            tier="edge",
            nodes=2,
            cpus=4,
            memory="8GiB",
            hardware=HardwareClass(name="local"),
            price="$0.40/h",
        ),
    ),
    links=(Link(source="tablet", target="office", bandwidth="50Mbit/s", round_trip="3ms", price="$0.05/GB"),),
)


def _slos(latency_s: float, accuracy: float, cost: float | None = None, percentile: float = 95) -> Slos:
    return Slos(
        latency=LatencySlo(percentile=percentile, limit_s=latency_s),
        accuracy=AccuracySlo(threshold=accuracy),
        cost=None if cost is None else CostSlo(limit_usd_per_h=cost),
    )


QUERIES = {
    name: Query(name=name, pipeline="notes", source="tablet", rate=rate, slos=slos)
    for name, rate, slos in (
        ("live-1", "4/s", _slos(0.06, 0.7)),
        ("live-captions", "2/s", _slos(0.047, 0.92, 0.2, percentile=99)),
        ("free", "1/s", Slos()),
        ("archive", "5/s", _slos(1.0, 0.95)),
        ("bulk", "90/s", _slos(1.0, 0.7)),
    )
}


def plan(pools: tuple[str, ...], *, size: int = 120, cpus: float = 0.25, batch_size: int = 1) -> QueryPlan:
    """Return a plan of which the operators are in four pools."""
    knobs = {**KNOBS, "lookup": {"size": size}}
    return QueryPlan(
        pipeline="notes",
        configuration=Configuration.of({name: KnobValues.of(values) for name, values in knobs.items()}),
        placement=tuple(sorted(zip(OPERATORS, pools, strict=True))),
        allocations=tuple(
            sorted((name, Allocation(cpus, batch_size if name == "lookup" else 1, 0.7)) for name in OPERATORS)
        ),
    )


def estimate(
    pools: tuple[str, ...], latency_s: Interval, accuracy: Interval, cost: Interval, **others: object
) -> Estimate:
    """Return an estimate with fixed mean times."""
    times = ((0.0, 0.0002, 0.005), (0.0, 0.0045, 0.0074), (0.0, 8.9e-6, 0.0011), (0.0, 5.6e-17, 0.00054))
    transfers = [0.0 if before == pool else 0.0016 for before, pool in zip(("tablet", *pools), pools, strict=False)]
    stages = tuple(
        StageEstimate(name, pool, transfer, wait, service)
        for name, pool, transfer, (_, wait, service) in zip(OPERATORS, pools, transfers, times, strict=True)
    )
    values = {"percentile": 95.0, "return_s": 0.0 if pools[-1] == "tablet" else 0.0016, **others}
    return Estimate(latency_s=latency_s, accuracy=accuracy, cost_usd_per_h=cost, stages=stages, **values)


ACCURACY = Interval(0.962, 0.929, 0.982)
ON_TABLET, SPLIT = ("tablet",) * 4, ("tablet", "tablet", "office-server", "office-server")


def _served(query: str, pools: tuple[str, ...], reason: str, est: Estimate, *others: Alternative) -> Assignment:
    return Assignment(query, PlanCandidate(query, plan(pools), est, (), (), 0.0), reason, others)


def _alternative(pools: tuple[str, ...], latency_s: float, reason: str, score: float = 0.962, **changes) -> Alternative:
    cost = Interval(0.02, 1.69e-5, 0.02) if "office-server" in pools else Interval.exact(0.0)
    accuracy = Interval(score, score - 0.033, score + 0.02)
    latency = Interval(latency_s, latency_s * 0.9, latency_s * 1.1)
    return Alternative(plan(pools, **changes), estimate(pools, latency, accuracy, cost), reason)


_AS_CHEAP = "costs the same as the running plan"
_UNSURE = "guaranteed accuracy 0.929 (measured 0.962) < 0.95"
_BEST = _alternative(ON_TABLET, 0.0577, _UNSURE, batch_size=8)

MATCHING = Matching(
    assignments=(
        _served(
            "live-1",
            ON_TABLET,
            "none of its 168 plans fits and costs less in total, given those of the other queries; unchanged",
            estimate(
                ON_TABLET,
                Interval(0.0191, 0.0189, 0.0212),
                ACCURACY,
                Interval.exact(0.0),
                caveats=("operator split: arrivals are bursty",),
                simulated=True,
                slo_probability=SloProbabilities.of(0.976, 0.999, 1.0, latency_items=59),
            ),
            replace(_alternative(ON_TABLET, 0.0481, _AS_CHEAP, 0.805, size=100), obstacle="cost", added_usd_per_h=0.0),
            replace(_alternative(ON_TABLET, 0.0401, _AS_CHEAP, cpus=0.5), obstacle="cost", added_usd_per_h=0.0),
            replace(_alternative(SPLIT, 0.0332, "costs $0.10/h more in total"), obstacle="cost", added_usd_per_h=0.1),
            _alternative(ON_TABLET, 0.0427, "accuracy 0.653 (at least 0.590) < 0.7", 0.653, size=80),
        ),
        _served(
            "live-captions",
            SPLIT,
            "its only plan",
            estimate(SPLIT, Interval(0.0228, 0.02, 0.0252), ACCURACY, Interval(0.1, 0.0125, 0.2), percentile=99.0),
        ),
        _served(
            "free",
            ON_TABLET,
            "its only plan",
            estimate(ON_TABLET, Interval(0.0194, 0.018, 1.2), ACCURACY, Interval.exact(0.0), caveats=("bursty",)),
        ),
    ),
    rejections=(
        Rejection(
            "archive",
            "no plan meets all SLOs with deployments at their utilization targets",
            ("accuracy",),
            None,
            (_BEST,),
            BestEffortPlan(
                PlanCandidate("archive", _BEST.plan, _BEST.estimate, (), (), 0.0), 0.993, 384, 384, more_items=2750
            ),
        ),
        Rejection(
            "bulk",
            "none of its plans fits with those of the other queries: its only plan needs 1.5 CPUs more at pool tablet",
            ("pool tablet: cpus",),
            None,
            (_alternative(ON_TABLET, 0.0577, "needs 1.5 CPUs more at pool tablet"),),
        ),
    ),
    deployments=tuple(
        SizedDeployment(
            Deployment("notes", name, KnobValues.of(KNOBS[name]), pool, Allocation(cpus, batch_size, 0.7)),
            ReplicaDemand(cpus, 15.6 * 2**20, 0.0, 0.0, 0.0 if pool == "tablet" else 0.025),
            (0,) * replicas,
            utilization,
            startup_s,
        )
        for name, pool, cpus, batch_size, replicas, utilization, startup_s in (
            ("split", "tablet", 0.25, 1, 1, 0.062, 0.0152),
            ("lookup", "tablet", 0.5, 8, 2, 0.412, 0.0132),
            ("rank", "tablet", 0.25, 1, 1, 0.004, 0.0262),
            ("join", "tablet", 0.25, 1, 1, 0.009, None),
            ("rank", "office-server", 0.25, 1, 1, 0.01, 0.0164),
            ("join", "office-server", 0.25, 1, 3, 1.0, 0.0111),
        )
    ),
    satisfied_weight=3.0,
    total_weight=5.0,
    cost_usd_per_h=0.1,
    weight_bound=3.5,
    optimal=False,
    cost_bound_usd_per_h=0.05,
    prices=(
        ShadowPrice("pool tablet: cpus", "CPU", 2.0, 0.875, 0.4, 0.0),
        ShadowPrice("pool tablet: memory", "GiB", 2.0, 0.04, 0.0, 0.0),
        ShadowPrice("pool office-server: cpus", "CPU", 8.0, 0.125, 0.0, 0.0125),
        ShadowPrice("link tablet->office", "MB/s", 5.6, 0.12, 0.0, 0.0),
        ShadowPrice("link office->tablet", "MB/s", 5.6, 0.0, 0.0, 0.0),
    ),
)


def _divided() -> Assignment:
    """Return the first assignment with a third of the requests on a larger model, partly in another pool."""
    first, large = MATCHING.assignments[0], plan(SPLIT, size=400)
    small = replace(first.chosen.estimate, simulated=False, caveats=(), slo_probability=None)
    slower = estimate(SPLIT, Interval(0.0391, 0.0371, 0.0412), Interval(0.994, 0.981, 0.999), Interval.exact(0.1))
    estimates = ((plan(ON_TABLET), small), (large, slower))
    parts = tuple(PlanCandidate("live-1", of_part, found, (), (), 0.0) for of_part, found in estimates)
    divided = QueryPlan.split([PlanShare(0.68421, parts[0].plan), PlanShare(0.31579, parts[1].plan)])
    mixed = replace(
        small,
        latency_s=Interval(0.0364, 0.0351, 0.0412),
        accuracy=Interval(0.972, 0.945, 0.987),
        cost_usd_per_h=slower.cost_usd_per_h,
    )
    chosen = PlanCandidate("live-1", divided, mixed, (), (), 0.0, parts)
    rungs = (Rung(chosen, 0.0187, 0.06, ()), Rung(parts[0], 0.0141, 0.0, ()))
    return replace(first, chosen=chosen, ladder=Ladder(rungs, 0))


DIVIDED = replace(MATCHING, assignments=(_divided(), *MATCHING.assignments[1:]))
"""The plan with one query whose requests are divided."""
