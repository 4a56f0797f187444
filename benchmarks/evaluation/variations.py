"""Variations of a contest: other risks, noisy measurements, fewer or more tiers, other true speeds, harder items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.evaluation.contest import Contest, on_items
from benchmarks.workloads import trace_items
from benchmarks.workloads.published.sites import CPUS
from circinus.arrays import IntArray
from circinus.profiling import MeasurementTrace
from circinus.specification import HardwareClass, Infrastructure, Pool, Site

TIERS = {1: ("cloud",), 2: ("edge", "cloud"), 3: ("device", "edge", "cloud"), 4: ("device", "edge", "region", "cloud")}
"""Tiers by their number; the fourth is a site between all edge sites and the cloud."""
_REGION = "region"
_REGION_SPEED, _REGION_NODES, _REGION_USD_PER_BUSY_H = 0.5, 6, 0.7
"""Speed and price between those of edge sites and of the cloud; the capacity is that of the cloud."""
_REGION_MEMORY_MIB = 2_500.0
_MIB = 2**20


def with_risk(contest: Contest, risk: float) -> Contest:
    """Return the contest with another risk of all queries."""
    queries = tuple(query.model_copy(update={"risk": risk}) for query in contest.specification.queries)
    return replace(contest, specification=replace(contest.specification, queries=queries))


def with_noise(contest: Contest, deviation: float, seed: int) -> Contest:
    """Return the contest with noise on all seconds that profiling sees; the truth has none.

    Args:
        contest: to change.
        deviation: of the logarithm of the factors, which are lognormal with a mean of 1, independent for each run.
        seed: of the factors.
    """
    rng = np.random.default_rng(seed)

    def noisy(trace: MeasurementTrace) -> MeasurementTrace:
        factors = rng.lognormal(-(deviation**2) / 2, deviation, trace.service_s.shape)
        return replace(trace, service_s=trace.service_s * factors)

    return replace(contest, traces={name: noisy(trace) for name, trace in contest.traces.items()})


def with_true_speed(contest: Contest, factor: float) -> Contest:
    """Return the contest with pools of another speed than they declare, to judge plans by."""
    infrastructure = contest.specification.required_infrastructure

    def true(pool: Pool) -> Pool:
        declared = pool.hardware.relative_speed or 1.0
        hardware = pool.hardware.model_copy(update={"relative_speed": declared * factor})
        return pool.model_copy(update={"hardware": hardware})

    return _on(contest, infrastructure.model_copy(update={"pools": tuple(map(true, infrastructure.pools))}))


def with_tiers(contest: Contest, count: int) -> Contest:
    """Return the contest with as many tiers (`TIERS`)."""
    tiers = TIERS[count]
    return (_with_region(contest) if _REGION in tiers else contest).within(tiers)


def _with_region(contest: Contest) -> Contest:
    """Return the contest with a site that halves the way of all edge sites to the cloud."""
    whole = contest.specification.required_infrastructure
    region = Pool(
        name=_REGION, site=_REGION, tier=_REGION, nodes=_REGION_NODES, cpus=CPUS,
        memory_bytes=_REGION_MEMORY_MIB * _MIB, price_usd_per_h=CPUS * _REGION_USD_PER_BUSY_H,
        hardware=HardwareClass.model_validate({"class": _REGION, "relative_speed": _REGION_SPEED}),
    )  # fmt: skip
    uplinks = [link for link in whole.links if link.target == "cloud"]
    halves = [link.model_copy(update={"target": _REGION, "round_trip_s": link.round_trip_s / 2}) for link in uplinks]
    bandwidth = sum(link.bandwidth_bytes_per_s for link in uplinks)
    both_ways = {"bandwidth_bytes_per_s": bandwidth, "reverse_bandwidth_bytes_per_s": bandwidth}
    backbone = {"source": _REGION, "target": "cloud", **both_ways}
    links = (*(link for link in whole.links if link not in uplinks), *halves, halves[0].model_copy(update=backbone))
    sites, pools = (*whole.sites, Site(name=_REGION)), (*whole.pools, region)
    update = {"tiers": TIERS[4], "sites": sites, "pools": pools, "links": links}
    return _on(contest, whole.model_copy(update=update))


def _on(contest: Contest, infrastructure: Infrastructure) -> Contest:
    return replace(contest, specification=replace(contest.specification, infrastructure=infrastructure))


def hard_items(contest: Contest, pipeline: str, share: float) -> IntArray:
    """Return the items of a population in which the harder half of all recorded items has a greater share, ascending.

    Args:
        contest: of the pipeline.
        pipeline: name.
        share: share of the harder half, in [0.5, 1]; at 1 there is no other item.
    """
    truth = contest.truth[pipeline]
    everything = np.arange(truth.population)
    scores = np.mean([on_items(measured, everything).scores for measured in truth.configurations], axis=0)
    sign = 1.0 if contest.specification.pipelines[pipeline].metric.direction == "maximize" else -1.0
    by_ease = np.argsort(sign * scores, kind="stable")
    hard, easy = np.split(by_ease, [len(by_ease) // 2])
    kept = round(len(hard) * (1 - share) / share)
    others = np.random.default_rng(0).choice(easy, min(kept, len(easy)), replace=False)
    return np.sort(np.concatenate([hard, others]))


def with_hard_items(contest: Contest, share: float) -> Contest:
    """Return the contest with a population of harder items (`hard_items`), to measure and to be judged on."""
    truth, traces = {}, {}
    for name, profile in contest.truth.items():
        chosen = hard_items(contest, name, share)
        measured = tuple(on_items(configuration, chosen) for configuration in profile.configurations)
        renumbered = tuple(replace(configuration, items=np.arange(len(chosen))) for configuration in measured)
        truth[name] = replace(profile, configurations=renumbered, dataset_items=len(chosen), held_out_items=0)
        traces[name] = trace_items.on_items(contest.traces[name], chosen)
    return replace(contest, truth=truth, traces=traces)
