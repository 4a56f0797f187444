"""Plans of all queries as deployed: the result of `plan` and the input of `apply`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import is_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from circinus.estimation import NO_CORRECTIONS, Corrections, Estimate, PlanCandidate, ReplicaDemand
from circinus.matching.inline_specification import InlineSpecification, PathText
from circinus.matching.tolerances import MIN_COST_BOUND_SHARE, SHARE_TOLERANCE, WEIGHT_TOLERANCE
from circinus.planning import BestEffortPlan, Ladder
from circinus.planning.violations import as_sized
from circinus.specification import Deployment, Query, QueryPlan, Slos, Tenant

if TYPE_CHECKING:
    from circinus.profiling import PipelineProfile

SCHEMA_VERSION = 4


@dataclass(frozen=True)
class SizedDeployment:
    """A deployment with its number of replicas, packed on nodes."""

    deployment: Deployment
    demand: ReplicaDemand
    nodes: tuple[int, ...]
    """Index of each replica's node in the pool, ascending."""
    utilization: float
    """Utilization of a replica under the merged load."""
    startup_s: float | None = None
    """Seconds from requesting a further replica until it accepts work, or None if not profiled."""
    relative_speed: float | None = None
    """Measured speed of the operator on the pool's hardware, or None to use the pool's declared speed."""
    batch_ratio: tuple[tuple[int, float], ...] = ()
    """Batch sizes on the pool's hardware with `OperatorProfile.batch_ratio`, from an imported table; empty to use the
    ratios of the profile."""
    paid_usd_per_h: float | None = None
    """Price of a replica on nodes that are paid whole: its part of them, by what each replica reserves; else None."""
    max_batch_s: Annotated[float | None, Field(exclude_if=partial(is_, None))] = None
    """Time of a full batch of the slowest profiled item; None if not profiled."""

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return len(self.nodes)

    @property
    def cost_usd_per_h(self) -> float:
        """Price of all replicas."""
        paid = self.demand.cost_usd_per_h if self.paid_usd_per_h is None else self.paid_usd_per_h
        return paid * self.replicas


Obstacle = Literal["cost", "capacity", "slo", "search"]
"""Kind of the reason against a plan: as much or more cost, churn included; too little capacity; an SLO of any query; or
a limit of the search, on its time or on changes of running plans."""


@dataclass(frozen=True)
class Alternative:
    """A plan that a query did not get, with the reason."""

    plan: QueryPlan
    estimate: Estimate
    reason: str
    obstacle: Obstacle | None = None
    """Kind of the reason; None in files without it."""
    added_usd_per_h: float | None = None
    """Change of the cost of all queries together if the query had this plan instead, without churn; None if the query
    is rejected or the plan was not compared by cost."""
    is_sized: bool = False
    """True if the estimate is at the final sizes, for a plan that misses an SLO there or at utilization targets; else
    it is in isolation at utilization targets."""
    misses_as_sized: bool = False
    """True if `reason` is about SLOs that the plan misses at the final sizes; False in files without it, of which
    `reason` says so itself."""

    @property
    def full_reason(self) -> str:
        """Reason with the sizes at which it holds."""
        return as_sized(self.reason) if self.misses_as_sized else self.reason


@dataclass(frozen=True)
class AssignedShare:
    """A share of a query's requests, with the plan of these requests and its estimate."""

    share: float
    plan: QueryPlan
    """Configuration, placement and allocation; not split."""
    estimate: Estimate


@dataclass(frozen=True)
class Assignment:
    """The plan of a query, estimated with the final sizes under the merged load."""

    query: str
    chosen: PlanCandidate
    reason: str
    alternatives: tuple[Alternative, ...] = field(default=(), repr=False)
    """Best plans that were not chosen, best first."""
    ladder: Ladder | None = field(default=None, repr=False)
    """Degradation ladder around the plan, or None if it was not planned from a frontier."""

    @property
    def parts(self) -> tuple[AssignedShare, ...]:
        """Shares of the requests with their plans, the largest first; one of 1 if the plan is not split."""
        parts = zip(self.chosen.plan.parts, self.chosen.unsplit, strict=True)
        return tuple(AssignedShare(part.share, part.plan, found.estimate) for part, found in parts)


@dataclass(frozen=True)
class Relaxation:
    """The smallest change of one SLO, else of several, that admits a query next to the plans of all other queries."""

    slos: Slos
    plan: QueryPlan = field(repr=False)
    estimate: Estimate = field(repr=False)
    change: str
    """Description of the change: `latency p95 <= 300ms -> 412ms`; changes of several SLOs are separated by commas."""


@dataclass(frozen=True)
class Advice:
    """A change under which a rejected query was planned and served; no change at all if all other fields are empty."""

    sentence: str
    risk: float | None = None
    """Risk at which the query was admitted."""
    pool: str | None = None
    nodes: int = 0
    """Nodes that were added to `pool` when all queries were planned again, and none that was served lost its plan."""
    slos: Slos | None = None
    """SLOs with which all queries were planned again, and all that were served still are."""


@dataclass(frozen=True)
class Rejection:
    """A query without a plan."""

    query: str
    reason: str
    binding: tuple[str, ...]
    """Violated SLOs (`latency`, ...) or exhausted resources (`pool edge: cpus`, ...); `pools` if no plan fits in them
    even alone, `measurements` if too little was measured for a guaranteed plan."""
    relaxation: Relaxation | None
    """None unless it was searched for, as for an explanation."""
    alternatives: tuple[Alternative, ...] = field(default=(), repr=False)
    best_so_far: BestEffortPlan | None = field(default=None, repr=False)
    """Plan that most likely meets the SLOs among those tried, for a query without a guaranteed plan in isolation."""
    unrelaxable: bool = False
    """True if the query was rejected under every single SLO change that was tried; False if none was tried, too."""
    undecided: bool = False
    """True if a limit ended the second look, so that `circinus admit` may admit the query."""
    advice: tuple[Advice, ...] = field(default=(), repr=False)
    """Other changes that would serve the query, if they were searched for."""
    isolated_limits: str = field(default="", repr=False)
    """End of a sentence of `reason`: the relaxed SLOs that suffice if the query has the infrastructure to itself."""

    def without_isolated_limits(self) -> Self:
        """Return the rejection without relaxed SLOs in its reason, for which a relaxation beside the others stands."""
        reason = self.reason.replace(self.isolated_limits, "") if self.isolated_limits else self.reason
        return replace(self, reason=reason, isolated_limits="")


@dataclass(frozen=True)
class TenantShare:
    """Satisfied weight of a tenant."""

    tenant: str
    satisfied_weight: float
    total_weight: float
    guaranteed_share: float
    """Guaranteed share of the total weight, as far as feasible."""

    @property
    def share(self) -> float:
        """Satisfied share of the total weight; 1 if the total is 0."""
        return self.satisfied_weight / self.total_weight if self.total_weight > 0 else 1.0

    @property
    def is_met(self) -> bool:
        """True if the guaranteed share is met, within rounding."""
        return self.share >= self.guaranteed_share - SHARE_TOLERANCE


def tenant_shares(
    queries: Sequence[Query], serving: Collection[str], tenants: Sequence[Tenant]
) -> tuple[TenantShare, ...]:
    """Return the share of every tenant that has queries, if the queries named in `serving` are served."""
    shares = []
    for tenant in tenants:
        tenant_queries = [query for query in queries if query.tenant == tenant.name]
        if tenant_queries:
            satisfied = sum(query.weight for query in tenant_queries if query.name in serving)
            shares.append(
                TenantShare(tenant.name, satisfied, sum(query.weight for query in tenant_queries), tenant.at_least)
            )
    return tuple(shares)


def with_weights(
    matching: Matching, specified: Sequence[Query], tenants: Sequence[Tenant], *, unbounded_weight: float = 0.0
) -> Matching:
    """Return a matching with the weights and shares of tenants that its assignments and rejections give.

    Args:
        matching: decisions on some queries.
        specified: queries of the specification; the others are ignored.
        tenants: tenants of the infrastructure.
        unbounded_weight: weight of queries that the bound on the satisfied weight does not count yet.
    """
    served = matching.served
    decided = served | {rejection.query for rejection in matching.rejections}
    queries = [query for query in specified if query.name in decided]
    satisfied = sum(query.weight for query in queries if query.name in served)
    total = sum(query.weight for query in queries)
    return replace(
        matching,
        satisfied_weight=satisfied,
        total_weight=total,
        weight_bound=min(max(matching.weight_bound + unbounded_weight, satisfied), total),
        optimal=matching.optimal and not unbounded_weight,
        weight_with_more_changes=larger_weight(matching.weight_with_more_changes, satisfied),
        tenants=tenant_shares(queries, served, tenants),
    )


def larger_weight(found: float | None, satisfied: float) -> float | None:
    """Return a weight if it is larger than the satisfied one, else None."""
    return None if found is None or found <= satisfied * (1.0 + WEIGHT_TOLERANCE) else found


@dataclass(frozen=True)
class ShadowPrice:
    """The value of one more unit of a pool's resource or a link.

    A marginal value, as if queries and replicas were divisible: whole replicas may need more than one unit, and then
    bring more at once.
    """

    resource: str
    """`pool edge: cpus` or `link home->edge`, as in `Rejection.binding`."""
    unit: str
    """CPU, GiB, GPU, or MB/s of the usable bandwidth of a link."""
    capacity: float
    """Number of units."""
    used: float
    """Share of the capacity in use by the sized deployments."""
    weight: float
    """Satisfied weight gained by one more unit, of the highest-priority queries that are not all served."""
    saving_usd_per_h: float
    """Cost saved by one more unit at the satisfied weight, in US dollars per hour."""


@dataclass(frozen=True)
class Matching:
    """The result of matching all queries."""

    assignments: tuple[Assignment, ...]
    rejections: tuple[Rejection, ...]
    deployments: tuple[SizedDeployment, ...]
    satisfied_weight: float
    total_weight: float
    cost_usd_per_h: float
    """Cost of all sized deployments plus all transfers, and of nodes that always run in pools that no plan uses."""
    weight_bound: float
    """Upper bound on the satisfied weight of any matching of all plans at utilization targets, see `plan_space_bounds`:
    a second look or an admission may serve more. Of plans that are all candidates, bounds are summed over priorities:
    each holds for matchings that serve as much of every higher one."""
    optimal: bool
    """True if it is proved that no matching of plans at utilization targets is better, listed as candidates or not."""
    cost_bound_usd_per_h: float
    """Lower bound on the cost of any matching of all plans at utilization targets with this weight, without churn."""
    covers_divided_requests: bool = False
    """Whether the bounds hold for matchings that divide requests of queries among several plans, too."""
    covers_all_utilizations: bool = False
    """Whether the bounds hold for matchings at any utilization, too, and `optimal` means that none is better."""
    cost_at_targets_usd_per_h: float | None = None
    """Lower bound on the cost of matchings of plans at utilization targets with this weight, if this one costs less, as
    its plans fit the load, or divide requests although `covers_divided_requests` is False; else None."""
    prices: tuple[ShadowPrice, ...] = ()
    """Shadow price of every resource."""
    tenants: tuple[TenantShare, ...] = ()
    """Shares of the infrastructure's tenants that have queries."""
    weight_with_more_changes: float | None = None
    """Weight found with more changes of running plans than are allowed, if it is larger than the satisfied one."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Pool -> nodes that run, of pools whose nodes are chosen or paid whole."""

    @property
    def served(self) -> set[str]:
        """Names of the queries with a plan."""
        return {assignment.query for assignment in self.assignments}

    @property
    def transfer_cost_usd_per_h(self) -> float:
        """Cost of all transfers."""
        return sum(assignment.chosen.transfer_cost_usd_per_h for assignment in self.assignments)

    @property
    def weight_gap(self) -> float:
        """Optimality gap of the weight, as a share of its bound."""
        return 1.0 - self.satisfied_weight / self.weight_bound if self.weight_bound > 0 else 0.0

    @property
    def cost_gap(self) -> float:
        """Optimality gap of the cost at the satisfied weight, as a share of the cost."""
        return 1.0 - self.cost_bound_usd_per_h / self.cost_usd_per_h if self.cost_usd_per_h > 0 else 0.0

    @property
    def has_cost_bound(self) -> bool:
        """True if the lower bound on the cost says something: it is at least a tenth of the cost."""
        return self.cost_gap <= 1.0 - MIN_COST_BOUND_SHARE


@dataclass(frozen=True)
class ProfileCoverage:
    """Numbers of configurations of a pipeline by what was measured of them."""

    measured: int
    failed: int
    unmeasured: int
    scores: int | None = None
    """Number of measured items, of all configurations together."""
    promising: int = 0
    """Number of unmeasured configurations if any may still give a query its first plan or a cheaper one, else 0."""

    @classmethod
    def of(cls, profile: PipelineProfile) -> Self:
        """Return the numbers of a profile."""
        scores = sum(len(measured.items) for measured in profile.configurations)
        return cls(len(profile.configurations), len(profile.failed), profile.unmeasured, scores, profile.promising)

    def __str__(self) -> str:
        total = self.measured + self.failed + self.unmeasured
        return f"{self.measured:,} of {total:,} configurations were measured"


@dataclass(frozen=True)
class PlanFile:
    """A plan file: the matching and its inputs."""

    parts: Mapping[str, str]
    """`pipeline NAME`, `infrastructure NAME`, `query NAME` -> fingerprint of the document."""
    files: tuple[PathText, ...]
    """Specification files and folders, relative to `folder`; none if the specification was made in Python."""
    code_versions: Mapping[str, str]
    """`uses` reference of operators, metrics and data sets -> code version when profiled."""
    seed: int
    """Random seed for the order of data set items; it determines the items that planning has not seen."""
    profile_store: PathText
    """Path of the profile store, relative to `folder`."""
    hardware_class: str
    """Hardware class that the profiles were measured on."""
    matching: Matching
    created_at: str
    """Time of creation (ISO 8601, UTC)."""
    planning_s: float
    corrections: Corrections = NO_CORRECTIONS
    """Correction factors on profiled service times in all estimates. Later observations do not make the plan stale."""
    slos: Mapping[str, Slos] = field(default_factory=dict)
    """SLOs of each query, served or rejected, for readers without the specification; empty in files without them."""
    coverage: Mapping[str, ProfileCoverage] = field(default_factory=dict)
    """Pipeline -> what was measured of it when its queries were planned; empty in files without it."""
    inline: InlineSpecification | None = None
    """The specification itself if it has no files; else it is not written."""
    code_files: Mapping[str, PathText] = field(default_factory=dict)
    """`uses` reference -> file whose hash is the version, relative to `folder`; code without one is not compared."""
    seal: str = ""
    """Seal of the user who made the plan, see `code_seal`; empty in files without it."""
    schema_version: int = field(default=SCHEMA_VERSION)
    folder: Path = field(default=Path(), compare=False)
    """Folder of the plan file; it is not written, so that a plan file can move together with what it names."""

    def moved_to(self, folder: Path) -> Self:
        """Return the plan file for another folder, with its paths relative to that."""
        source, target = self.folder.resolve(), folder.resolve()
        if source == target:
            return self

        def moved(path: str) -> str:
            return os.path.relpath((source / path).resolve(), target)

        files = tuple(moved(file) for file in self.files)
        code_files = {uses: moved(file) for uses, file in self.code_files.items()}
        inline = None if self.inline is None else self.inline.moved(source, target)
        store = moved(self.profile_store)
        return replace(self, files=files, code_files=code_files, inline=inline, profile_store=store, folder=target)

    @property
    def omitted(self) -> set[str]:
        """Fields that are not written."""
        return {"folder"} if self.inline else {"folder", "inline"}

    def document(self) -> dict[str, Any]:
        """Return the fields that are written."""
        return {name: value for name, value in vars(self).items() if name not in self.omitted}


def with_starts(matching: Matching, starts_s: Callable[[PlanCandidate], Mapping[str, float] | None]) -> Matching:
    """Return a matching with latest starts of the stages of all plans and rungs, where there are any.

    Args:
        matching: to be completed.
        starts_s: returns the latest start of each operator, if it is known.
    """

    def added(candidate: PlanCandidate) -> PlanCandidate:
        starts = starts_s(candidate)
        if starts is None:
            return candidate
        stages = tuple(replace(stage, latest_start_s=starts[stage.operator]) for stage in candidate.estimate.stages)
        parts = tuple(map(added, candidate.parts))
        return replace(candidate, estimate=replace(candidate.estimate, stages=stages), parts=parts)

    def completed(assignment: Assignment) -> Assignment:
        ladder = assignment.ladder
        if ladder is not None:
            rungs = tuple(replace(rung, candidate=added(rung.candidate)) for rung in ladder.rungs)
            ladder = replace(ladder, rungs=rungs)
        return replace(assignment, chosen=added(assignment.chosen), ladder=ladder)

    return replace(matching, assignments=tuple(map(completed, matching.assignments)))
