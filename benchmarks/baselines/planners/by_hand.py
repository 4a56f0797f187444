"""Choices that people make by hand: the most accurate configuration in the cloud, or the cheapest on the device.

"Cheapest" is the configuration of least work among those that keep the query's accuracy objective, so that no query
gets one that is known to miss it. Both need every configuration measured on every item.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, fixed_plan
from benchmarks.baselines.first_come_plans import PlanOf, fixed
from benchmarks.baselines.planners.one_by_one import OneByOne
from benchmarks.evaluation.contest import Contest, Market
from circinus.profiling import PipelineProfile
from circinus.specification import Query, QueryPlan


def _complete(contest: Contest, market: Market) -> dict[str, PipelineProfile]:
    return {name: market.complete(name) for name in contest.specification.pipelines}


def _best(contest: Contest, market: Market, _: int) -> tuple[Mapping[str, PipelineProfile], PlanOf]:
    profiles = _complete(contest, market)
    return profiles, fixed(contest.specification, profiles, BEST_IN_THE_CLOUD)


def _cheapest(contest: Contest, market: Market, _: int) -> tuple[Mapping[str, PipelineProfile], PlanOf]:
    profiles = _complete(contest, market)

    def plan_of(query: Query) -> QueryPlan | None:
        slo, pipeline = query.slos.accuracy, contest.specification.pipelines[query.pipeline]
        accurate = [
            measured
            for measured in profiles[query.pipeline].configurations
            if slo is None or slo.is_met_by(measured.accuracy.value)
        ]
        if not accurate:
            return None
        least = min(accurate, key=lambda measured: measured.mean_service_s)
        return fixed_plan(query, pipeline, least, contest.network, nearest=True)

    return profiles, plan_of


BY_HAND = (
    OneByOne("everything best in the cloud", _best, ("cloud",)),
    OneByOne("cheapest on the device", _cheapest, ("device",)),
)
