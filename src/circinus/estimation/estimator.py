"""Estimator of the plans of a query under a configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.estimation.compiled_plan import CompiledOperator, CompiledPlan, CompiledTransfer
from circinus.estimation.cost import query_cost, transfer_usd_per_h
from circinus.estimation.estimate import (
    DeploymentUse,
    Estimate,
    LinkUse,
    PlanCandidate,
    SloProbabilities,
    StageEstimate,
)
from circinus.estimation.interruptions import late_scenarios
from circinus.estimation.merged_load import MergedLoad
from circinus.estimation.percentiles import UNBOUNDED, MeasuredSamples, PercentileEstimator
from circinus.estimation.slo_probability import accuracy_slo_probability, bounded_latency_probability
from circinus.estimation.stage_latency import StageLatencyModel
from circinus.estimation.transfer import INPUT, TransferModel, destinations, link_station_under_load
from circinus.profiling import ConfigurationProfile
from circinus.specification import (
    Deployment,
    LatePolicy,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    SloKind,
)

_MIN_BATCHED = 1.15
"""Mean batch size from which the departures of an operator count as batched."""

_NEGLIGIBLE = 0.01
"""Share of a latency up to which unmodelled waits cause no caveat."""


def latency_percentile(query: Query) -> PercentileEstimator:
    """Return the estimator of the query's latency percentile, with sections of scenarios according to its risk."""
    return PercentileEstimator.at(query.slos.percentile, query.risk)


@dataclass(frozen=True, eq=False)
class _Timeline:
    """Times of a plan from the input to the return of the result, in every scenario."""

    expected_and_pessimistic_s: FloatArray
    """(2, scenarios) latency; in the second row at the upper bounds of service times and loads, which allow for small
    samples."""
    sites: dict[str, str]
    uses: tuple[DeploymentUse, ...]
    stages: tuple[StageEstimate, ...]
    return_s: float
    caveats: tuple[str, ...]
    batched: frozenset[str]
    """Operators with batched departures."""

    @property
    def latency_s(self) -> FloatArray:
        return np.asarray(self.expected_and_pessimistic_s[0])


class Estimator:
    """Estimator of plans, with everything that depends on the query and configuration only prepared once.

    The model: requests arrive at the source by the query's arrival process (Poisson, periodic, bursty), and at every
    downstream operator and link by the same process, independently of the request's earlier waits. Under a merged load
    (`conditions`), batched departures of upstream operators and the jitter that earlier waits add to periodic requests
    are modelled, too. Not modelled: departures of a busy queue with regular service times are more regular than its
    arrivals, bursts are smoothed by the first queue that does not keep up, and copies of a request reach parallel
    operators simultaneously. All values of a request on a link have the same quantile level of the wait.
    """

    def __init__(
        self,
        query: Query,
        pipeline: Pipeline,
        profile: ConfigurationProfile,
        network: Network,
        *,
        template: Estimator | None = None,
        population: int | None = None,
        samples: MeasuredSamples | None = None,
    ) -> None:
        """Prepare the estimator.

        Args:
            template: estimator of the same query under another configuration, created with the same other arguments, to
                share cached results with.
            population: number of items whose mean score the SLO is about, for its probability; None if infinite.
            samples: shared with other queries of this percentile and risk.
        """
        self._query = query
        self._pipeline = pipeline
        self._profile = profile
        self._order: tuple[OperatorSpec, ...] = template._order if template else pipeline.topological_order()
        self._sinks: tuple[str, ...] = template._sinks if template else pipeline.sinks()
        self._pools: dict[str, Pool] = (
            template._pools if template else {pool.name: pool for pool in network.infrastructure.pools}
        )
        self._percentile: PercentileEstimator = template._percentile if template else latency_percentile(query)
        usual = query.model_copy(update={"risk": Query.model_fields["risk"].default})
        self._usual: Estimator | None = None
        """Estimator at the default risk, if that draws other scenarios: the expected latency depends on no risk."""
        if latency_percentile(usual).grid != self._percentile.grid:
            self._usual = Estimator(
                usual,
                pipeline,
                profile,
                network,
                template=template and template._usual,
                population=population,
            )
        if template is None:
            samples = samples or MeasuredSamples(self._percentile)
            self._stages = StageLatencyModel(query, samples)
            self._transfers = TransferModel(query, network, self._sinks, samples)
        else:
            self._stages, self._transfers = template._stages, template._transfers
        self._sizes = self._transfers.sizes(profile)
        accuracy = query.slos.accuracy
        self._accuracy_probability = (
            1.0
            if accuracy is None
            else accuracy_slo_probability(profile.scores, population, accuracy, pipeline.metric.range)
        )

    def candidate(
        self, plan: QueryPlan, conditions: MergedLoad | None = None, *, as_part: bool = False
    ) -> PlanCandidate:
        """Estimate `plan`.

        Args:
            plan: plan of this query's pipeline and this profile's configuration.
            conditions: merged load of all queries (`merge_loads`). Without it, the estimate is a guarantee: every
                deployment at its utilization target with the replicas that the query needs in isolation, and every
                link at its usable share with values of equal size (the wait of a small value behind the query's large
                ones is only part of estimates under a merged load).

        Raises:
            PlanningError: a pool, link or load is missing, or a deployment or link is overloaded (for a guarantee: the
                query in isolation exceeds the usable share of a link).
        """
        timeline = self._follow(plan, conditions)
        latency_s = self._percentile.guaranteed(timeline.expected_and_pessimistic_s)
        if self._usual is not None:
            value_s = min(self._usual._percentile.of(self._usual.latency_s(plan, conditions)).value, latency_s.upper)
            latency_s = replace(latency_s, value=value_s, lower=min(latency_s.lower, value_s))
        sent_to = destinations(self._order, self._sinks, timeline.sites)
        links = self._transfers.link_uses(
            self._sizes, timeline.sites, sent_to, guaranteed=conditions is None and not as_part
        )
        transfers_usd_per_h = transfer_usd_per_h(links)
        caveats, allowance = timeline.caveats, None
        if conditions is not None:
            expected_s = self._percentile.of(timeline.latency_s).upper
            allowance = latency_s.upper / expected_s if expected_s > 0 else 1.0
            caveats += self._link_caveats(links, conditions) + self._batched_transfer_caveats(timeline, sent_to)
            caveats += _multiple_value_caveats(links, float(timeline.latency_s.mean()))
            if self._query.late is LatePolicy.DROP:
                caveats += ("late requests are dropped",)
        estimate = Estimate(
            percentile=self._percentile.percentile,
            latency_s=latency_s,
            accuracy=self._profile.accuracy,
            cost_usd_per_h=query_cost(timeline.uses, transfers_usd_per_h, conditions, self._pools),
            stages=timeline.stages,
            return_s=timeline.return_s,
            caveats=caveats,
            times_allowance=allowance,
        )
        return PlanCandidate(
            query=self._query.name,
            plan=plan,
            estimate=replace(estimate, slo_probability=self._slo_probabilities(estimate, timeline.latency_s)),
            deployments=timeline.uses,
            links=links,
            transfer_cost_usd_per_h=transfers_usd_per_h,
        )

    def _link_caveats(self, links: tuple[LinkUse, ...], conditions: MergedLoad) -> tuple[str, ...]:
        caveats = ((use.link.name, link_station_under_load(use.link, conditions).caveats()) for use in links)
        return tuple(f"link {name}: {caveat}" for name, of_link in caveats for caveat in of_link)

    def _batched_transfer_caveats(self, timeline: _Timeline, sent_to: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(
            f"link {link.name}: values arrive in batches from operator {producer}"
            for producer, targets in sent_to.items()
            if producer in timeline.batched
            for link in self._transfers.first_links(producer, timeline.sites[producer], targets)
        )

    def _slo_probabilities(self, estimate: Estimate, latency_s: FloatArray) -> SloProbabilities:
        """Return the SLO probabilities: at least 1 - risk if guaranteed, at most 1 - risk for other latencies."""
        slos, risk = self._query.slos, self._query.risk
        violations, guaranteed = estimate.violations(slos), 1 - risk
        latency, latency_items = 1.0, None
        if slos.latency is not None:
            is_guaranteed, items = SloKind.LATENCY not in violations, len(self._profile.items)
            latency, latency_items = bounded_latency_probability(
                latency_s, items, slos.latency, risk, is_guaranteed=is_guaranteed
            )
        return SloProbabilities.of(
            latency=latency,
            accuracy=(
                self._accuracy_probability
                if SloKind.ACCURACY in violations
                else max(self._accuracy_probability, guaranteed)
            ),
            cost=float(SloKind.COST not in violations),
            latency_items=latency_items,
        )

    def latency_s(self, plan: QueryPlan, conditions: MergedLoad | None = None, *, cautious: bool = False) -> FloatArray:
        """Return (scenarios,) the latency of `plan` in every scenario.

        Args:
            cautious: whether service times and loads are at their upper bounds, which allow for small samples.

        Raises:
            PlanningError: see `candidate`.
        """
        timeline = self._follow(plan, conditions)
        return np.asarray(timeline.expected_and_pessimistic_s[1 if cautious else 0])

    def compiled(self, plan: QueryPlan) -> CompiledPlan:
        """Return a plan for estimates at many sizes; see `candidate` for what it raises."""
        self._check(plan)
        placement, allocations = dict(plan.placement), dict(plan.allocations)
        sites, position = {INPUT: self._query.source}, {INPUT: 0}
        uses, stages, late = list[DeploymentUse](), list[CompiledOperator](), list[IntArray]()
        for number, operator in enumerate(self._order, 1):
            pool, profile = self._pools[placement[operator.name]], self._profile.operators[operator.name]
            sites[operator.name], position[operator.name] = pool.site, number
            inputs = tuple(self._transfer(p, position, sites, pool.site) for p in operator.parents or (INPUT,))
            parts = operator, profile, pool, allocations[operator.name]
            uses.append(self._stages.use(*parts))
            stages.append(CompiledOperator(uses[-1].deployment, inputs, *self._stages.service(*parts[1:])))
            if share := uses[-1].demand.late_share:
                late.append(late_scenarios(self._percentile.grid, operator.name, share))
        results = tuple(self._transfer(sink, position, sites, self._query.source) for sink in self._sinks)
        if self._stages.arrivals.jitter_s is None and all(len(operator.parents) <= 1 for operator in self._order):
            deployments = {o.name: use.deployment for o, use in zip(self._order, uses, strict=True)}
            behind = [tuple((deployments[parent], 1.0) for parent in o.parents) for o in self._order]
            uses = [use.behind(after, use.traffic) for use, after in zip(uses, behind, strict=True)]
        else:  # depends on times
            uses = list(self._follow(plan, None).uses)
        links = self._transfers.link_uses(
            self._sizes, sites, destinations(self._order, self._sinks, sites), guaranteed=False
        )
        delayed = tuple(np.unique(np.concatenate(late)).tolist()) if late else None
        return CompiledPlan(
            plan, tuple(uses), links, transfer_usd_per_h(links), self._percentile, tuple(stages), results, delayed
        )

    def _transfer(
        self, producer: str, position: Mapping[str, int], sites: Mapping[str, str], target: str
    ) -> CompiledTransfer:
        parts = producer, self._sizes[producer], sites[producer], target
        path, sent_s = self._transfers.sent_s(*parts)
        guaranteed_s: FloatArray | float = 0.0 if not path else UNBOUNDED
        if path:
            with suppress(PlanningError):  # the query alone exceeds the usable share of a link
                guaranteed_s = self._transfers.transfer(*parts, None).expected_and_pessimistic_s[1]
        return CompiledTransfer(position[producer], path, sent_s, guaranteed_s)

    def _follow(self, plan: QueryPlan, conditions: MergedLoad | None) -> _Timeline:
        self._check(plan)
        placement, allocations = dict(plan.placement), dict(plan.allocations)
        sites = {INPUT: self._query.source}
        finish: dict[str, FloatArray] = {INPUT: np.zeros((2, self._percentile.grid.count))}
        uses, stages = [], []
        caveats: dict[str, None] = {}
        batched: set[str] = set()
        deployments: dict[str, Deployment] = {}
        late: list[IntArray] = []
        for operator in self._order:
            pool = self._pools[placement[operator.name]]
            sites[operator.name] = pool.site
            parents = operator.parents or (INPUT,)
            ready_s, transfer_s, last_shares = self._gather(parents, finish, sites, pool.site, conditions)
            profile = self._profile.operators[operator.name]
            stage = self._stages.stage(operator, profile, pool, allocations[operator.name], conditions)
            finish[operator.name] = ready_s + stage.times.expected_and_pessimistic_s
            after = tuple((deployments[parent], last_shares[parent]) for parent in operator.parents)
            traffic = self._stages.arrivals.after_queue(stage.use.traffic, ready_s[0])
            uses.append(stage.use.behind(after, traffic))
            deployments[operator.name] = stage.use.deployment
            if late_share := stage.use.demand.late_share:
                late.append(late_scenarios(self._percentile.grid, operator.name, late_share))
            if stage.times.mean_batch_size >= _MIN_BATCHED:
                batched.add(operator.name)
            if conditions is not None:
                caveats |= dict.fromkeys((*stage.caveats, *_batched_arrival_caveats(operator, batched)))
                if stage.use.traffic.jitter_s is None and self._stages.arrivals.jitter_s is not None:
                    caveats[f"operator {operator.name}: periodic requests arrive from other queues"] = None
            stages.append(
                StageEstimate(
                    operator=operator.name,
                    pool=pool.name,
                    transfer_s=transfer_s,
                    wait_s=stage.times.mean_wait_s,
                    service_s=stage.times.mean_service_s,
                    runs=float(profile.run_counts.mean()) if profile.runs is not None else 1.0,
                )
            )
        latency_s, return_s, _ = self._gather(self._sinks, finish, sites, self._query.source, conditions)
        if late:
            latency_s = latency_s.copy()
            latency_s[:, np.concatenate(late)] = UNBOUNDED
        return _Timeline(
            expected_and_pessimistic_s=latency_s,
            sites=sites,
            uses=tuple(uses),
            stages=tuple(stages),
            return_s=return_s,
            caveats=tuple(caveats),
            batched=frozenset(batched),
        )

    def _gather(
        self,
        producers: tuple[str, ...],
        finish: dict[str, FloatArray],
        sites: dict[str, str],
        target: str,
        conditions: MergedLoad | None,
    ) -> tuple[FloatArray, float, dict[str, float]]:
        """Return the arrival time of all producers' outputs at `target`, and statistics of the last output.

        Returns:
            (2, scenarios) arrival times, expected and pessimistic; the mean transfer time of the last output; and the
            share of scenarios in which each producer's output is the last.
        """
        transfers = [self._transfers.transfer(p, self._sizes[p], sites[p], target, conditions) for p in producers]
        arrivals = [finish[p] + t.expected_and_pessimistic_s for p, t in zip(producers, transfers, strict=True)]
        if len(producers) == 1:
            return arrivals[0], transfers[0].mean_s, {producers[0]: 1.0}
        last = np.argmax([arrival[0] for arrival in arrivals], axis=0)
        last_transfer_s = np.choose(
            last, [np.broadcast_to(transfer.expected_and_pessimistic_s[0], last.shape) for transfer in transfers]
        )
        shares = (np.bincount(last, minlength=len(producers)) / len(last)).tolist()
        return np.maximum.reduce(arrivals), float(last_transfer_s.mean()), dict(zip(producers, shares, strict=True))

    def _check(self, plan: QueryPlan) -> None:
        """Raise PlanningError if `plan` is not a plan of this query and configuration."""
        if plan.pipeline != self._pipeline.name or plan.configuration != self._profile.configuration:
            raise PlanningError(
                f"found a plan of pipeline {plan.pipeline} with {plan.configuration}, expected pipeline "
                f"{self._pipeline.name} with {self._profile.configuration}",
                code="plan.configuration_not_measured",
                location=f"query {self._query.name}",
            )
        names = {operator.name for operator in self._order}
        for field, entries in (("placement", plan.placement), ("allocations", plan.allocations)):
            if {operator for operator, _ in entries} != names:
                raise PlanningError(
                    f"{field} of the plan: found operators {', '.join(o for o, _ in entries) or 'none'}, expected "
                    f"{', '.join(sorted(names))}",
                    code="plan.wrong_operators",
                    location=f"query {self._query.name}",
                )
        for _, pool in plan.placement:
            if pool not in self._pools:
                raise PlanningError(
                    f"the plan uses an unknown pool {pool} (pools: {', '.join(self._pools)})",
                    code="plan.unknown_pool",
                    location=f"query {self._query.name}",
                )


def _multiple_value_caveats(links: tuple[LinkUse, ...], latency_s: float) -> tuple[str, ...]:
    return tuple(
        f"link {use.link.name}: values of the same request may wait for each other"
        for use in links
        if use.excluding_smallest_s > _NEGLIGIBLE * latency_s
    )


def _batched_arrival_caveats(operator: OperatorSpec, batched: Collection[str]) -> tuple[str, ...]:
    parents = [parent for parent in operator.parents if parent in batched]
    return tuple(f"operator {operator.name}: requests arrive in batches from operator {parent}" for parent in parents)
