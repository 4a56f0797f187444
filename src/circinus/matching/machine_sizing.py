"""The cheapest machines on which all SLOs hold: plans on pools whose numbers of nodes are chosen (decision 30).

Every figure is the cost of a plan: of all queries, of all but one, of one with a looser SLO, and of enough queries for
a share of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_machines import (
    cheaper_machines,
    has_open_spares,
    paid_anyway_usd_per_h,
    with_chosen_spot_nodes,
)
from circinus.matching.explanation.slo_relaxation import smallest_change
from circinus.matching.plan_all import plan_all_queries
from circinus.matching.plan_set import Matching
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem_builder import build_problem
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MATCHING, MatchSettings
from circinus.matching.tolerances import COST_GAP_TOLERANCE, SHARE_TOLERANCE, WEIGHT_TOLERANCE
from circinus.planning import Frontier, SearchSettings, plan_queries
from circinus.planning.settings import DEFAULT_SETTINGS
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, Query, SloKind, Specification

_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the weight at which the cheapest machines are computed, besides the greatest share."""
_MAX_LOOSENED = 5
"""Maximum number of queries whose SLOs are loosened: those that add the most. Each takes up to ten plans for an SLO."""
_MAX_LOOSENED_LARGE = 1
_MAX_CHEAPER = 16
"""Maximum number of cheaper machines that are planned on."""
_MAX_SUMS = 4_096
"""Number of weights of sets of queries from which on shares are planned that the same queries may serve."""

Progress = Callable[[str], None]
"""Callback with each step that takes time."""


@dataclass(frozen=True)
class SloSaving:
    """The smallest loosening of an SLO that was found to make the machines of all queries cheaper."""

    query: str
    kind: SloKind
    change: str
    """Description of the change: `latency p95 <= 300ms -> 412ms`."""
    limit: float
    """Looser limit, in the unit of the SLO: seconds, mean score or US dollars per hour."""
    saving_usd_per_h: float


@dataclass(frozen=True)
class CurvePoint:
    """The cheapest machines that hold at least a share of the weight."""

    weight: float
    """Weight that they serve."""
    share: float
    """Share of the weight of all queries."""
    cost_usd_per_h: float
    nodes: Mapping[str, int]
    """Pool -> nodes that run, of pools whose nodes are chosen or paid whole."""
    unserved: tuple[str, ...]
    """Queries that they do not serve."""


@dataclass(frozen=True)
class MachineSizing:
    """The cheapest machines for all queries, and what they would cost for others."""

    specification: Specification
    """Specification with the candidate machines."""
    matching: Matching
    """Plans on the chosen nodes."""
    machines_bound_usd_per_h: float
    """Lower bound on the price of nodes that are paid whole: on all that cost less, less weight was proved to fit."""
    added_usd_per_h: Mapping[str, float]
    """Query -> cost of all machines minus that of the cheapest ones without the query; empty if not computed."""
    are_added_exact: bool
    """False if `added_usd_per_h` are lower bounds: other queries keep their plans."""
    savings: tuple[SloSaving, ...] = ()
    """Largest first."""
    curve: tuple[CurvePoint, ...] = ()
    """By falling cost and weight; the first one serves all that can be served."""

    @property
    def cost_usd_per_h(self) -> float:
        """Price of the chosen nodes, of the shares that plans take of other pools, and of transfers."""
        return self.matching.cost_usd_per_h

    @property
    def cost_bound_usd_per_h(self) -> float:
        """Lower bound on the cost of any machines that serve as much, with plans at utilization targets."""
        matching = self.matching
        if self.has_open_spares:
            return min(self.machines_bound_usd_per_h, self.cost_usd_per_h)
        bound = max(matching.cost_bound_usd_per_h, matching.cost_at_targets_usd_per_h or 0.0)
        return min(max(bound, self.machines_bound_usd_per_h), self.cost_usd_per_h)

    @property
    def has_open_spares(self) -> bool:
        """True if spare replicas depend on the number of nodes of a spot pool, so that plans prove nothing."""
        return has_open_spares(self.specification.required_infrastructure)

    @property
    def is_optimal(self) -> bool:
        """True if no machines are cheaper that serve as much, with plans at utilization targets."""
        if self.matching.cost_at_targets_usd_per_h is not None or self.has_open_spares:
            return False
        is_cheapest = self.cost_usd_per_h <= self.cost_bound_usd_per_h + COST_GAP_TOLERANCE * self.cost_usd_per_h
        return is_cheapest and self.matching.weight_gap <= WEIGHT_TOLERANCE


def size_machines(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    explains: bool = True,
    progress: Progress = lambda step: None,
) -> MachineSizing:
    """Return the cheapest machines on which all SLOs hold, as far as they can be served.

    Args:
        specification: with candidate machines, see `candidate_machines`.
        profiles: pipeline name -> profile.
        search: settings of the plan search.
        settings: settings of each matching.
        explains: whether to compute what each query adds, what looser SLOs save, and the curve.
        progress: called with each step.

    Raises:
        PlanningError: see `plan_all_queries`.
    """
    progress(f"sizing machines for {len(specification.queries)} queries")
    frontiers = plan_queries(specification, profiles, search)
    matching, _ = plan_all_queries(
        specification, profiles, search=search, settings=settings, explain_rejections=(), frontiers=frontiers
    )
    sizing = _Sizing(specification, profiles, search, settings, frontiers, matching, progress)
    bound_usd_per_h = sizing.improve()
    return sizing.explained(bound_usd_per_h, explains=explains and bool(matching.assignments))


class _Sizing:
    """Plans of other queries on the machines, each of which costs at most as much as that of all served queries."""

    def __init__(
        self,
        specification: Specification,
        profiles: Mapping[str, PipelineProfile],
        search: SearchSettings,
        settings: MatchSettings,
        frontiers: Mapping[str, Frontier],
        matching: Matching,
        progress: Progress,
    ) -> None:
        self._specification, self._profiles, self._search, self._settings = specification, profiles, search, settings
        self._matching, self._progress = matching, progress
        self._machines = specification.required_infrastructure
        """Candidates, of spot pools with the chosen nodes only once these are known."""
        self._frontiers: dict[tuple[Query, tuple[int, ...]], Frontier] = {
            (query, _spot_nodes(self._machines)): frontiers[query.name] for query in specification.queries
        }
        self._queries = self._served(matching)
        self._equal = {*specification.queries, *map(_without_priority, specification.queries)}
        """Queries with their own SLOs."""
        self._tried = [matching]
        """Plans of queries with their own SLOs."""
        self._total_weight = sum(query.weight for query in specification.queries)
        self._is_large = len(self._queries) > MATCHING.max_exact_queries

    def improve(self) -> float:
        """Plan on cheaper machines, as long as any serve as much; return a lower bound on the price of nodes.

        On given nodes weight comes first, so that plans are found that are fast enough as sized only.
        """
        candidates = self._specification.required_infrastructure
        while self._matching.assignments:
            price_usd_per_h = self._nodes_usd_per_h(self._matching)
            smaller = with_chosen_spot_nodes(candidates, self._matching.nodes)
            largest = None if self._is_large else cheaper_machines(candidates, price_usd_per_h, _MAX_CHEAPER)
            cheaper = [*([smaller] if smaller not in (candidates, self._machines) else []), *(largest or ())]
            is_proved, self._machines = largest is not None and not has_open_spares(candidates), smaller
            for number, machines in enumerate(cheaper, 1):
                self._progress(f"cheaper machines ({number} of {len(cheaper)})")
                trial = self._planned(self._specification.queries, machines=machines)
                if self._serves_as_much(trial) and self._is_cheaper(trial):
                    self._matching = self._improved(trial)
                    self._queries = self._served(trial)
                    break
                is_proved &= trial.weight_bound < self._matching.satisfied_weight * (1.0 - WEIGHT_TOLERANCE)
            else:
                return price_usd_per_h if is_proved else paid_anyway_usd_per_h(candidates)
        return paid_anyway_usd_per_h(candidates)

    def _improved(self, cheaper: Matching) -> Matching:
        """Return cheaper plans of no less weight, with the bounds of all machines."""
        before, cost_usd_per_h = self._matching, cheaper.cost_usd_per_h
        bound_usd_per_h = max(before.cost_bound_usd_per_h, before.cost_at_targets_usd_per_h or 0.0)
        if has_open_spares(self._specification.required_infrastructure):
            bound_usd_per_h = 0.0
        is_below = bound_usd_per_h > cost_usd_per_h
        return replace(
            cheaper,
            weight_bound=max(before.weight_bound, cheaper.satisfied_weight),
            optimal=False,
            covers_divided_requests=before.covers_divided_requests,
            cost_bound_usd_per_h=0.0 if is_below else bound_usd_per_h,
            cost_at_targets_usd_per_h=bound_usd_per_h if is_below else None,
        )

    def _nodes_usd_per_h(self, matching: Matching) -> float:
        pools = self._specification.required_infrastructure.pools
        return sum(matching.nodes.get(pool.name, 0) * pool.paid_usd_per_h for pool in pools if pool.bills_nodes)

    def explained(self, machines_bound_usd_per_h: float, *, explains: bool) -> MachineSizing:
        """Return the sizing, if it `explains` with what each query adds, what looser SLOs save, and the curve."""
        sizing = MachineSizing(
            self._specification, self._matching, machines_bound_usd_per_h, {}, are_added_exact=not self._is_large
        )
        if not explains:
            return sizing
        added = self._added_without_change() if self._is_large else self._added()
        return replace(
            sizing,
            added_usd_per_h=added,
            savings=tuple(sorted(self._savings(added), key=lambda saving: (-saving.saving_usd_per_h, saving.query))),
            curve=self._curve(),
        )

    def _planned(
        self,
        queries: Sequence[Query],
        settings: MatchSettings | None = None,
        machines: Infrastructure | None = None,
    ) -> Matching:
        """Return the plans of some queries, without tenants' shares, or of all queries on other machines, with them."""
        infrastructure = machines or self._machines.model_copy(update={"tenants": ()})
        spot_nodes = _spot_nodes(infrastructure)
        specification = replace(self._specification, infrastructure=infrastructure, queries=tuple(queries))
        for query in queries:
            if (query, spot_nodes) not in self._frontiers:
                of_query = replace(specification, queries=(query,))
                self._frontiers[query, spot_nodes] = plan_queries(of_query, self._profiles, self._search)[query.name]
        frontiers = {query.name: self._frontiers[query, spot_nodes] for query in queries}
        matching, _ = plan_all_queries(
            specification,
            self._profiles,
            search=self._search,
            settings=settings or self._settings,
            explain_rejections=(),
            frontiers=frontiers,
        )
        if set(queries) <= self._equal:
            self._tried.append(matching)
        return matching

    def _served(self, matching: Matching) -> tuple[Query, ...]:
        return tuple(query for query in self._specification.queries if query.name in matching.served)

    def _weights(self, matching: Matching) -> tuple[float, ...]:
        """Return the satisfied weight by priority, highest first."""
        queries = self._specification.queries
        chosen = np.array([0 if query.name in matching.served else -1 for query in queries], dtype=np.int64)
        return PriorityLevels.of(queries).weights_of(chosen)

    def _serves_as_much(self, matching: Matching) -> bool:
        """Return whether no less weight is satisfied, and no less of what tenants are guaranteed."""
        pairs = zip(matching.tenants, self._matching.tenants, strict=True)
        keeps_shares = all(new.share >= min(old.share, old.guaranteed_share) - SHARE_TOLERANCE for new, old in pairs)
        return keeps_shares and self._weights(matching) >= self._weights(self._matching)

    def _is_cheaper(self, matching: Matching) -> bool:
        limit_usd_per_h = self._matching.cost_usd_per_h * (1.0 - COST_GAP_TOLERANCE)
        return matching.cost_usd_per_h < limit_usd_per_h

    def _saving(self, matching: Matching, queries: Sequence[Query]) -> float:
        """Return how much less a matching costs than that of all, if it serves all of its queries; else 0."""
        is_whole = len(matching.assignments) == len(queries)
        if not is_whole or not self._is_cheaper(matching):
            return 0.0
        return self._matching.cost_usd_per_h - matching.cost_usd_per_h

    def _added(self) -> dict[str, float]:
        """Return the cost that each query adds; queries that differ in name only add the same."""
        by_kind: dict[Query, float] = {}
        added = {}
        for number, query in enumerate(self._queries, 1):
            kind = query.model_copy(update={"name": "query"})
            if kind not in by_kind:
                self._progress(f"without {query.name} ({number} of {len(self._queries)})")
                others = [other for other in self._queries if other != query]
                by_kind[kind] = self._saving(self._planned(others), others)
            added[query.name] = by_kind[kind]
        return added

    def _added_without_change(self) -> dict[str, float]:
        """Return the cost that falls with each query while the others keep their plans."""
        chosen = {assignment.query: (assignment.chosen,) for assignment in self._matching.assignments}
        problem = build_problem(self._queries, chosen, self._specification.required_infrastructure)
        choice = np.arange(len(self._queries), dtype=np.int64)
        cost_usd_per_h = problem.usage_of(choice).cost_usd_per_h
        added = {}
        for number, query in enumerate(self._queries):
            without = np.where(choice == number, -1, choice)
            added[query.name] = max(cost_usd_per_h - problem.usage_of(without).cost_usd_per_h, 0.0)
        return added

    def _savings(self, added: Mapping[str, float]) -> Iterator[SloSaving]:
        """Yield what the SLOs of queries save that add the most; no loosening saves more than a query adds."""
        adding = [query for query in self._queries if added[query.name] > 0]
        adding.sort(key=lambda query: -added[query.name])
        for query in adding[: _MAX_LOOSENED_LARGE if self._is_large else _MAX_LOOSENED]:
            for kind in query.slos.by_kind:
                self._progress(f"looser {kind} SLO of {query.name}")
                saving = self._loosened(query, kind)
                if saving is not None:
                    yield saving

    def _loosened(self, query: Query, kind: SloKind) -> SloSaving | None:
        savings: dict[Query, tuple[float, PlanCandidate | None]] = {}

        def cheaper(loosened: Query) -> PlanCandidate | None:
            """Return the plan of the query with looser SLOs if the machines of all are cheaper then."""
            if loosened not in savings:
                queries = [loosened if other == query else other for other in self._queries]
                matching = self._planned(queries)
                saving = self._saving(matching, queries)
                plans = {assignment.query: assignment.chosen for assignment in matching.assignments}
                savings[loosened] = saving, plans[query.name] if saving else None
            return savings[loosened][1]

        found = smallest_change(query, kind, cheaper)
        if found is None:
            return None
        saving, _ = savings[query.model_copy(update={"slos": found.slos})]
        return SloSaving(query.name, kind, found.change, found.slos.by_kind[kind].limit, saving)

    def _curve(self) -> tuple[CurvePoint, ...]:
        points, sums, planned = [self._point(self._matching)], self._weight_sums(), self._matching.satisfied_weight
        for share in reversed(_SHARES):
            required = share * self._total_weight * (1.0 - WEIGHT_TOLERANCE)
            reached = min(sums[sums >= required], default=required)
            if reached >= planned * (1.0 - WEIGHT_TOLERANCE):
                continue
            planned = reached
            self._progress(f"{share:.0%} of the weight")
            self._enough(required)
            enough = [matching for matching in self._tried if matching.satisfied_weight >= required]
            cheapest = min(enough, key=lambda matching: (matching.cost_usd_per_h, -matching.satisfied_weight))
            if cheapest.cost_usd_per_h < points[-1].cost_usd_per_h * (1.0 - COST_GAP_TOLERANCE):
                points.append(self._point(cheapest))
        return tuple(points)

    def _weight_sums(self) -> FloatArray:
        """Return all weights that some of the queries have together, or none if they are too many."""
        sums = np.zeros(1)
        for query in self._specification.queries:
            sums = np.unique(np.append(sums, sums + query.weight))[:_MAX_SUMS]
        return sums if len(sums) < _MAX_SUMS else sums[:0]

    def _enough(self, required_weight: float) -> Matching:
        """Return the cheapest plans of at least some weight, maybe of other queries than those of the sizing.

        Beyond the queries of the exact solver, those are left out first that cost the most for their weight.
        """
        if not self._is_large:
            queries, nodes = self._specification.queries, _spot_nodes(self._machines)
            equal = [_without_priority(query) for query in queries]
            planned = [(new, old) for new, old in zip(equal, queries, strict=True) if (old, nodes) in self._frontiers]
            self._frontiers |= {(new, nodes): self._frontiers[old, nodes] for new, old in planned}
            return self._planned(equal, replace(self._settings, required_weight=required_weight))
        costs = {a.query: a.chosen.estimate.cost_usd_per_h.value for a in self._matching.assignments}
        left, weight = list(self._queries), self._matching.satisfied_weight
        for query in sorted(self._queries, key=lambda query: -costs[query.name] / query.weight):
            if query.pin is None and weight - query.weight >= required_weight * (1.0 - WEIGHT_TOLERANCE):
                left.remove(query)
                weight -= query.weight
        return self._planned(left)

    def _point(self, matching: Matching) -> CurvePoint:
        return CurvePoint(
            matching.satisfied_weight,
            matching.satisfied_weight / self._total_weight,
            matching.cost_usd_per_h,
            matching.nodes,
            tuple(query.name for query in self._specification.queries if query.name not in matching.served),
        )


def _spot_nodes(machines: Infrastructure) -> tuple[int, ...]:
    """Return the nodes of each spot pool, which spare replicas and so plans depend on."""
    return tuple(pool.nodes for pool in machines.pools if pool.spot is not None)


def _without_priority(query: Query) -> Query:
    return query.model_copy(update={"priority": 0})
