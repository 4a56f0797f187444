"""Five rare queries of one speech pipeline over three tiers, in the manner of the paper's prototype.

Each tier has one small node, which few of the models fit into together. Each query is possible with the infrastructure
to itself: its latency limit is a factor above the lowest latency of a plan that is accurate enough. What is possible
together is what a wide search at the final sizes finds: queries in random orders, each with the cheapest plan that
meets all SLOs, then again while that is cheaper; *apart*, no two queries share a deployment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.possible.enumeration import Enumeration
from benchmarks.possible.instances import Instance
from benchmarks.possible.promises import checked_promises
from benchmarks.workloads.published.profiles import profiled, without_dead_knob
from benchmarks.workloads.published.sites import infrastructure
from benchmarks.workloads.published.speech import traces_folder
from benchmarks.workloads.published.traces import read_arenas
from circinus.matching import MatchSettings, plan_all_queries
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, Pipeline, Query, Specification

_QUERIES, _RATE_PER_S = 5, 0.02
_QUANTILES = 0.5, 0.7, 0.9, 1.0
"""Quantiles of the configurations' word error rates, from high to low, that SLOs demand."""
_LATENCY_FACTORS = 1.02, 1.3
_PERCENTILE = 95.0
_CPUS = {"device": 2, "edge": 4, "cloud": 4}
"""CPUs of a tier's node; a replica of an operator takes one."""
_ORDERS = 4
_MODES = {"default": MatchSettings(), "at targets only": MatchSettings(fits_targets=False)}


def three_tiers(draws: int, console: Console) -> PartResult:
    """Plan five queries several times, and compare what is served with what is possible."""
    arena = read_arenas(traces_folder())[0]
    trace, profile = profiled(without_dead_knob(arena).drawn(np.random.default_rng(0)), "speech")
    pipeline = trace.pipeline
    rows = [_compared(_draw(seed, pipeline, profile), seed) for seed in range(draws)]
    for row in rows:
        console.print(row)
    possible, served, apart = (sum(row[key] for row in rows) for key in ("sharing", "default", "apart"))
    note = f"of {draws} draws of {_QUERIES} queries at {_RATE_PER_S}/s, of which {apart} are possible apart"
    ratios = [row["ratio"] for row in rows if row["default"] == row["sharing"]]
    at_targets = sum(row["at targets only"] for row in rows) / possible
    broken = sum(row["broken"] for row in rows)
    return [
        Figure("three tiers: served", served / possible, 1.0, "higher", "of possible", f"{note}, {possible} sharing"),
        Figure("three tiers: served at targets only", at_targets, None, "higher", "of possible", note),
        Figure("three tiers: cost over the best found", max(ratios, default=1.0), 1.05, "lower", "times", note),
        Figure("three tiers: promises broken when simulated", broken, 0.0, "lower", "promises", note),
    ], rows


def _draw(seed: int, pipeline: Pipeline, profile: PipelineProfile) -> Instance:
    """Draw queries that are possible with the infrastructure to themselves."""
    rng, places = np.random.default_rng(seed), _one_place()
    rates = np.array([configuration.accuracy.upper for configuration in profile.configurations])
    queries, fastest_s = list[Query](), dict[float, float]()
    for number in range(_QUERIES):
        threshold = float(np.quantile(rates, 1 - rng.choice(_QUANTILES), method="higher"))
        if threshold not in fastest_s:
            loose = _query(number, 60.0, threshold)
            alone = Instance(Specification({pipeline.name: pipeline}, places, (loose,)), {pipeline.name: profile})
            fastest_s[threshold] = min(Enumeration(alone).latencies_s(loose.name))
        factor = float(np.exp(rng.uniform(*np.log(_LATENCY_FACTORS))))
        queries.append(_query(number, factor * fastest_s[threshold], threshold))
    return Instance(Specification({pipeline.name: pipeline}, places, tuple(queries)), {pipeline.name: profile})


def _compared(instance: Instance, seed: int) -> dict[str, Any]:
    """Return the numbers of queries that are served and possible, and the cost over the best found."""
    rng, specification = np.random.default_rng(seed), instance.specification
    best = Enumeration(instance).wide_search(rng, _ORDERS)
    apart = Enumeration(instance, shares_deployments=False).wide_search(rng, _ORDERS)
    row: dict[str, Any] = {"part": "three tiers", "seed": seed, "apart": int(apart.weight)}
    for mode, settings in _MODES.items():
        matching, _ = plan_all_queries(specification, instance.profiles, settings=settings, explain_rejections=())
        row[mode] = len(matching.served)
        if mode == "default":
            row["broken"] = len(checked_promises(specification, instance.profiles, matching).broken)
            row["ratio"] = matching.cost_usd_per_h / best.cost_usd_per_h
    return row | {"sharing": max(int(best.weight), row["default"])}


def _one_place() -> Infrastructure:
    places = infrastructure(1)
    pools = tuple(pool.model_copy(update={"nodes": 1, "cpus": _CPUS[pool.tier]}) for pool in places.pools)
    return places.model_copy(update={"pools": pools})


def _query(number: int, limit_s: float, threshold: float) -> Query:
    slos = {
        "latency": {"percentile": _PERCENTILE, "limit": limit_s},
        "accuracy": {"threshold": threshold, "comparison": "<="},
    }
    return Query.model_validate(
        {"name": f"q{number}", "pipeline": "speech", "source": "place-0", "rate": _RATE_PER_S, "slos": slos}
    )
