"""Estimating plans of one query under one configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.errors import PlanningError
from circinus.estimation.cost import query_cost, transfer_usd_per_h
from circinus.estimation.estimate import DeploymentUse, Estimate, LinkUse, PlanCandidate, StageEstimate
from circinus.estimation.merged_load import MergedLoad
from circinus.estimation.percentiles import PercentileEstimator
from circinus.estimation.slo_probability import SloProbabilities, accuracy_slo_probability, latency_slo_probability
from circinus.estimation.stage_latency import StageLatencyModel
from circinus.estimation.transfer import INPUT, TransferModel, destinations, link_station_under_load
from circinus.profiling import ConfigurationProfile
from circinus.specification import Deployment, Network, OperatorSpec, Pipeline, Query, QueryPlan

FloatArray = NDArray[np.floating]

USABLE_LINK_SHARE = 0.7
"""Share of a link's bandwidth that plans may take together; promises are made at this utilisation."""

_SEVERAL = 1.15
"""From so many on, requests that leave an operator in batches are not independent behind it."""

_NOTICEABLE = 0.01
"""Share of a latency below which nothing is said of what may be longer."""

DEFAULT_PERCENTILE = 95.0
"""The percentile that is estimated for a query without a latency objective."""


def latency_percentile(query: Query) -> PercentileEstimator:
    """The percentile that `query` is about, over as many sections of scenarios as its risk asks for."""
    latency = query.slos.latency
    percentile = DEFAULT_PERCENTILE if latency is None else latency.percentile
    return PercentileEstimator.at(percentile, query.risk)


@dataclass(frozen=True, eq=False)
class _Timeline:
    """One plan followed from the input to the return of the result, in every scenario."""

    latency_s: FloatArray
    cautious_s: FloatArray
    """With service times and loads as few items allow them to be, as upper bounds are."""
    sites: dict[str, str]
    uses: tuple[DeploymentUse, ...]
    stages: tuple[StageEstimate, ...]
    return_s: float
    doubts: tuple[str, ...]
    batched: frozenset[str]
    """The operators that end several requests at once."""


class Estimator:
    """Everything about one query and one configuration that does not depend on the plan, prepared once.

    The model: requests come as the query says (Poisson, regular, in bursts), and to every operator and link behind as
    they came, whatever queues they met before, independently of what the same request met. Two things are added where
    the load is known (`conditions`): requests that come in batches from the operator before, and how much regular ones
    are moved by what they met. In truth the outputs of a queue are also more regular than its arrivals when it is busy
    with regular work, bursts are smoothed by the first queue that does not keep up with them, and copies of one request
    reach parallel operators together; none of these is modelled. All values that one request sends over a link meet the
    same luck in its queue.
    """

    def __init__(
        self,
        query: Query,
        pipeline: Pipeline,
        profile: ConfigurationProfile,
        network: Network,
        *,
        usable_link_share: float = USABLE_LINK_SHARE,
        alike: Estimator | None = None,
        population: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            query: the query.
            pipeline: its pipeline.
            profile: one configuration, as measured.
            network: where it may run.
            usable_link_share: utilisation of the links that promises are made at.
            alike: an estimator of the same query under another configuration, made with the same other arguments;
                what the two have in common is then computed once.
            population: how many items may be profiled, for the odds; None: as if endless.
        """
        self._query = query
        self._pipeline = pipeline
        self._profile = profile
        self._order = pipeline.topological_order()
        self._sinks = pipeline.sinks()
        self._pools = {pool.name: pool for pool in network.infrastructure.pools}
        self._percentile = latency_percentile(query)
        self._stages: StageLatencyModel = alike._stages if alike else StageLatencyModel(query, self._percentile)
        self._transfers: TransferModel = (
            alike._transfers if alike else TransferModel(query, network, self._percentile, usable_link_share)
        )
        self._sizes = self._transfers.sizes(profile)
        accuracy = query.slos.accuracy
        self._accuracy_odds = (
            1.0
            if accuracy is None
            else accuracy_slo_probability(profile.scores, population, accuracy, pipeline.metric.range)
        )

    def candidate(self, plan: QueryPlan, conditions: MergedLoad | None = None) -> PlanCandidate:
        """Estimate `plan`.

        Args:
            plan: of this query's pipeline and this profile's configuration.
            conditions: the load of all queries together, as `merge` makes it. Without it the estimate is the promise:
                every deployment at its utilisation target with the replicas the query alone would need, every link at
                its usable share with values like the one that waits (a small value's wait behind the query's large
                ones shows only under conditions).

        Raises:
            PlanningError: a pool, link or load is missing, or a deployment or link would be busy all the time (in a
                promise: a link for more than its usable share by this query alone).
        """
        timeline = self._follow(plan, conditions)
        latency_s = self._percentile.of(timeline.latency_s)
        latency_s = replace(latency_s, upper=max(latency_s.value, self._percentile.of(timeline.cautious_s).upper))
        sent_to = destinations(self._order, self._sinks, timeline.sites)
        links = self._transfers.link_uses(self._sizes, timeline.sites, sent_to, promise=conditions is None)
        transfers_usd_per_h = transfer_usd_per_h(links)
        estimate = Estimate(
            percentile=self._percentile.percentile,
            latency_s=latency_s,
            accuracy=self._profile.accuracy,
            cost_usd_per_h=query_cost(timeline.uses, transfers_usd_per_h, conditions),
            stages=timeline.stages,
            return_s=timeline.return_s,
            caveats=(
                *timeline.doubts,
                *(() if conditions is None else self._link_doubts(links, conditions)),
                *(() if conditions is None else self._batches_on_links(timeline, sent_to)),
                *(() if conditions is None else _several_values(links, float(timeline.latency_s.mean()))),
            ),
        )
        return PlanCandidate(
            query=self._query.name,
            plan=plan,
            estimate=replace(estimate, slo_probability=self._odds(estimate, timeline.latency_s)),
            deployments=timeline.uses,
            links=links,
            transfer_cost_usd_per_h=transfers_usd_per_h,
        )

    def _link_doubts(self, links: tuple[LinkUse, ...], conditions: MergedLoad) -> tuple[str, ...]:
        doubts = ((use.link.name, link_station_under_load(use.link, conditions).caveats()) for use in links)
        return tuple(f"link {name}: {doubt}" for name, found in doubts for doubt in found)

    def _batches_on_links(self, timeline: _Timeline, sent_to: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """What to say of links that get the outputs of a batch all at once."""
        return tuple(
            f"link {link.name}: values come in batches from {producer}"
            for producer, targets in sent_to.items()
            if producer in timeline.batched
            for link in self._transfers.first_links(timeline.sites[producer], targets)
        )

    def _odds(self, estimate: Estimate, latency_s: FloatArray) -> SloProbabilities:
        """How likely a plan keeps the objectives: as likely as is promised at least where it is promised, and at most
        where it is not."""
        slos, risk = self._query.slos, self._query.risk
        missed, promised = estimate.violations(slos), 1 - risk
        latency = 1.0
        if slos.latency is not None:
            latency = latency_slo_probability(latency_s, len(self._profile.items), slos.latency, risk)
        return SloProbabilities.of(
            latency=min(latency, promised) if "latency" in missed else max(latency, promised),
            accuracy=self._accuracy_odds if "accuracy" in missed else max(self._accuracy_odds, promised),
            cost=float("cost" not in missed),
        )

    def latency_s(self, plan: QueryPlan, conditions: MergedLoad | None = None, *, cautious: bool = False) -> FloatArray:
        """(scenarios,) the latency of `plan` in every scenario.

        Args:
            plan: as of `candidate`; so are errors.
            conditions: as of `candidate`.
            cautious: with service times and loads as few items allow them to be, as upper bounds are.
        """
        timeline = self._follow(plan, conditions)
        return timeline.cautious_s if cautious else timeline.latency_s

    def _follow(self, plan: QueryPlan, conditions: MergedLoad | None) -> _Timeline:
        self._check(plan)
        placement, allocations = dict(plan.placement), dict(plan.allocations)
        sites = {INPUT: self._query.source}
        finish: dict[str, FloatArray] = {INPUT: np.zeros((2, self._percentile.grid.count))}
        uses, stages = [], []
        doubts: dict[str, None] = {}
        batched: set[str] = set()
        deployments: dict[str, Deployment] = {}
        for operator in self._order:
            pool = self._pools[placement[operator.name]]
            sites[operator.name] = pool.site
            parents = operator.after or (INPUT,)
            ready, transfer_s, last = self._gather(parents, finish, sites, pool.site, conditions)
            profile = self._profile.operators[operator.name]
            stage = self._stages.stage(operator, profile, pool, allocations[operator.name], conditions)
            finish[operator.name] = ready + stage.likely_and_pessimistic_s
            after = tuple((deployments[parent], last[parent]) for parent in operator.after)
            traffic = self._stages.coming.after_queue(stage.use.traffic, ready[0])
            uses.append(replace(stage.use, after=after, traffic=traffic))
            deployments[operator.name] = stage.use.deployment
            if stage.mean_fill >= _SEVERAL:
                batched.add(operator.name)
            if conditions is not None:
                doubts |= dict.fromkeys((*stage.doubts, *_in_batches(operator, batched)))
                if stage.use.traffic.jitter_s is None and self._stages.coming.jitter_s is not None:
                    doubts[f"operator {operator.name}: regular requests come behind other queues"] = None
            stages.append(
                StageEstimate(
                    operator=operator.name,
                    pool=pool.name,
                    transfer_s=transfer_s,
                    wait_s=stage.mean_wait_s,
                    service_s=stage.mean_service_s,
                )
            )
        both_s, return_s, _ = self._gather(self._sinks, finish, sites, self._query.source, conditions)
        return _Timeline(
            latency_s=both_s[0],
            cautious_s=both_s[1],
            sites=sites,
            uses=tuple(uses),
            stages=tuple(stages),
            return_s=return_s,
            doubts=tuple(doubts),
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
        """When the outputs of all `producers` are at `target`, the mean transfer of the one that comes last, and how
        often each one does. Times are (2, scenarios), as of `_Timeline`: the second row is the cautious one."""
        transfers = [self._transfers.transfer(self._sizes[p], sites[p], target, conditions) for p in producers]
        arrivals = [finish[p] + transfer.both_s for p, transfer in zip(producers, transfers, strict=True)]
        if len(producers) == 1:
            return arrivals[0], transfers[0].mean_s, {producers[0]: 1.0}
        last = np.argmax([arrival[0] for arrival in arrivals], axis=0)
        waited = np.choose(last, [np.broadcast_to(transfer.both_s[0], last.shape) for transfer in transfers])
        often = np.bincount(last, minlength=len(producers)) / len(last)
        shares = dict(zip(producers, often.tolist(), strict=True))
        return np.maximum.reduce(arrivals), float(waited.mean()), shares

    def _check(self, plan: QueryPlan) -> None:
        """Raise PlanningError where `plan` is not one of this query and configuration."""
        if plan.pipeline != self._pipeline.name or plan.configuration != self._profile.configuration:
            raise PlanningError(
                f"query {self._query.name}: found a plan of pipeline {plan.pipeline} with {plan.configuration}, "
                f"expected one of {self._pipeline.name} with {self._profile.configuration}",
                code="plan.configuration_not_measured",
            )
        names = {operator.name for operator in self._order}
        for what, given in (("placement", plan.placement), ("allocations", plan.allocations)):
            if {operator for operator, _ in given} != names:
                raise PlanningError(
                    f"query {self._query.name}: found a plan whose {what} name {', '.join(o for o, _ in given)}, "
                    f"expected {', '.join(sorted(names))}",
                    code="plan.wrong_operators",
                )
        for _, pool in plan.placement:
            if pool not in self._pools:
                raise PlanningError(
                    f"query {self._query.name}: found a plan that uses pool {pool}, expected one of "
                    f"{', '.join(self._pools)}",
                    code="plan.unknown_pool",
                )


def _several_values(links: tuple[LinkUse, ...], latency_s: float) -> tuple[str, ...]:
    """What to say of links that get several values of a request, which may wait for each other."""
    return tuple(
        f"link {use.link.name}: values of one request may wait for each other"
        for use in links
        if use.others_s > _NOTICEABLE * latency_s
    )


def _in_batches(operator: OperatorSpec, batched: Collection[str]) -> tuple[str, ...]:
    """What to say of an operator whose requests come several at once."""
    parents = [parent for parent in operator.after if parent in batched]
    return tuple(f"operator {operator.name}: requests come in batches from {parent}" for parent in parents)
