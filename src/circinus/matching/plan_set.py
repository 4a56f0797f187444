"""The plans of all queries together, as deployed: what `plan` writes and `apply` executes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from circinus.estimation import NO_CORRECTIONS, Corrections, Estimate, PlanCandidate, ReplicaDemand
from circinus.matching.explanation.shadow_prices import ShadowPrice
from circinus.planning import BestEffortPlan, Ladder
from circinus.specification import Deployment, Query, QueryPlan, Slos, Tenant

SCHEMA_VERSION = 3


_ROUNDING = 1e-9
"""Share of a tenant's weight that may be missing from what was promised."""


@dataclass(frozen=True)
class SizedDeployment:
    """A deployment with whole replicas, packed on nodes."""

    deployment: Deployment
    demand: ReplicaDemand
    nodes: tuple[int, ...]
    """For each replica the index of its node in the pool, ascending."""
    utilization: float
    """Share of the time that a replica is busy at the merged rate."""
    startup_s: float | None = None
    """Seconds from asking for a further replica in its pool until that can take work; None: not profiled, or planned
    before that was told."""
    relative_speed: float | None = None
    """Of its operator on the hardware of its pool, as measured there; None: as declared of the pool."""

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return len(self.nodes)


@dataclass(frozen=True)
class Alternative:
    """A plan that a query did not get, and why."""

    plan: QueryPlan
    estimate: Estimate
    reason: str


@dataclass(frozen=True)
class Assignment:
    """The plan that a query gets, estimated under the final sizes and the merged load."""

    query: str
    chosen: PlanCandidate
    reason: str
    alternatives: tuple[Alternative, ...] = ()
    """The best that were not chosen, best first."""
    ladder: Ladder | None = None
    """The plan's neighbours to step down and up to; None: it was not planned from a frontier."""


@dataclass(frozen=True)
class Relaxation:
    """The smallest change of a query's objectives under which it would be served next to the others."""

    slos: Slos
    plan: QueryPlan
    estimate: Estimate
    change: str
    """What changed, in words: `latency p95 <= 300ms -> 412ms`."""


@dataclass(frozen=True)
class Rejection:
    """A query that gets no plan."""

    query: str
    reason: str
    binding: tuple[str, ...]
    """The objectives (`latency`, ...) or resources (`pool edge: cpus`, ...) that stand in the way; `measurements` where
    too little was measured to promise anything."""
    relaxation: Relaxation | None
    alternatives: tuple[Alternative, ...] = ()
    best_so_far: BestEffortPlan | None = None
    """Of a query that has no promised plan even by itself: the one that most likely meets the objectives."""


@dataclass(frozen=True)
class TenantShare:
    """What a tenant gets."""

    tenant: str
    satisfied_weight: float
    total_weight: float
    promised: float
    """Share of the total weight that is to be satisfied, as far as it can be."""

    @property
    def share(self) -> float:
        """Of the total weight that is satisfied; all of nothing."""
        return self.satisfied_weight / self.total_weight if self.total_weight > 0 else 1.0

    @property
    def kept(self) -> bool:
        """Whether the promise is kept, rounding aside."""
        return self.share >= self.promised - _ROUNDING


def tenant_shares(
    queries: Sequence[Query], serving: Collection[str], tenants: Sequence[Tenant]
) -> tuple[TenantShare, ...]:
    """What every tenant that has queries gets where those called as in `serving` are served."""
    found = []
    for tenant in tenants:
        theirs = [query for query in queries if query.tenant == tenant.name]
        if theirs:
            satisfied = sum(query.weight for query in theirs if query.name in serving)
            found.append(TenantShare(tenant.name, satisfied, sum(query.weight for query in theirs), tenant.at_least))
    return tuple(found)


@dataclass(frozen=True)
class Matching:
    """The answer for all queries together."""

    assignments: tuple[Assignment, ...]
    rejections: tuple[Rejection, ...]
    deployments: tuple[SizedDeployment, ...]
    satisfied_weight: float
    total_weight: float
    cost_usd_per_h: float
    """Of all deployments as sized plus all transfers."""
    weight_bound: float
    """No matching of the listed candidates satisfies more weight than this; where there are priorities, summed over
    them: no matching that serves as much of every higher priority satisfies more of one."""
    optimal: bool
    """Whether the solver proved both objectives over the listed candidates; where plans ran already, of cost with what
    changes counted, and of as few changes as were allowed."""
    cost_bound_usd_per_h: float
    """No matching of the listed candidates that satisfies this weight costs less, whatever changes of plan count."""
    prices: tuple[ShadowPrice, ...] = ()
    """What a little more of every resource would be worth."""
    tenants: tuple[TenantShare, ...] = ()
    """What the infrastructure's tenants get, those that have queries."""

    @property
    def weight_gap(self) -> float:
        """Share of the weight that could be satisfied at most which may be missing."""
        return 1.0 - self.satisfied_weight / self.weight_bound if self.weight_bound > 0 else 0.0

    @property
    def cost_gap(self) -> float:
        """Share of the cost which may be too much for the weight that is satisfied."""
        return 1.0 - self.cost_bound_usd_per_h / self.cost_usd_per_h if self.cost_usd_per_h > 0 else 0.0


@dataclass(frozen=True)
class PlanFile:
    """A plan file: the matching, and what it was made from."""

    specification_fingerprint: str
    parts: Mapping[str, str]
    """`pipeline NAME`, `infrastructure NAME`, `query NAME` -> fingerprint of that document alone."""
    files: tuple[str, ...]
    """Specification files, and folders with any, relative to the plan file."""
    code_versions: Mapping[str, str]
    """`uses` reference of operators, metrics and data sets -> version of the code when it was profiled."""
    seed: int
    """Of the order in which items were measured: tells which ones planning has not seen."""
    profile_store: str
    """Profile store, relative to the plan file."""
    hardware_class: str
    """The class the profiles were measured on."""
    matching: Matching
    created_at: str
    """ISO 8601, UTC."""
    planning_s: float
    corrections: Corrections = NO_CORRECTIONS
    """Factors on profiled service times that all estimates were made with; what is observed later does not make the
    plan stale."""
    schema_version: int = field(default=SCHEMA_VERSION)


@dataclass(frozen=True)
class PlanDiff:
    """Queries by what became of them, in the order of their names."""

    kept: tuple[str, ...]
    """They ran, and have the same plan."""
    changed: tuple[str, ...]
    """They ran, and get another plan."""
    stopped: tuple[str, ...]
    """They ran, are still asked for, and get no plan."""
    new: tuple[str, ...]
    """They did not run, and get a plan."""
    removed: tuple[str, ...]
    """They ran, and are not asked for any more."""

    @classmethod
    def between(cls, before: Mapping[str, QueryPlan], after: Matching) -> PlanDiff:
        """From the plans that ran, by query name, to a matching."""
        served = {assignment.query: assignment.chosen.plan for assignment in after.assignments}
        rejected = {rejection.query for rejection in after.rejections}

        def named(queries: Collection[str]) -> tuple[str, ...]:
            return tuple(sorted(queries))

        return cls(
            kept=named([query for query in before if served.get(query) == before[query]]),
            changed=named([query for query in before if query in served and served[query] != before[query]]),
            stopped=named(before.keys() & rejected),
            new=named(served.keys() - before.keys()),
            removed=named(before.keys() - served.keys() - rejected),
        )

    def __str__(self) -> str:
        """`2 of 14 running queries get another plan (a, b), 1 none (c), 1 new, 1 removed`."""
        running = len(self.kept) + len(self.changed) + len(self.stopped)
        words = [f"{len(self.changed)} of {running} running queries get another plan{_names(self.changed)}"]
        words += [f"{len(self.stopped)} none{_names(self.stopped)}"] if self.stopped else []
        words += [f"{len(self.new)} new", f"{len(self.removed)} removed"]
        return ", ".join(words)


_MOST_NAMES = 12
"""Names that are said at most."""


def _names(queries: tuple[str, ...]) -> str:
    if not queries:
        return ""
    more = f" and {len(queries) - _MOST_NAMES} more" if len(queries) > _MOST_NAMES else ""
    return f" ({', '.join(queries[:_MOST_NAMES])}{more})"
