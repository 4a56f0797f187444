"""Plans over real links: three sites in network namespaces, a Ray cluster across them, and traffic.

Links have the bandwidth and delay of the specification, and all traffic of the cluster crosses them. The models run
while profiling and recording. Serving replays the recordings on held-out items and sends the recorded numbers of bytes,
in slow motion, so that two cores stand in for three tiers.

Plans are judged as in the evaluation (`benchmarks.evaluation.judging`), with measured latencies. Accuracy is the mean
score of all recorded items under what ran, held-out ones and profiled ones, so that no sample decides it. Latency is a
percentile of at least 200 requests of each query; it is missed if it is beyond the limit by more than chance (5 %). Two
cores answer some fifteen requests a second, so that many requests a query mean few queries: six of the examples', at
equal rates, as the seconds of traffic are those that the query with the lowest rate takes. No query's traffic ends
early, as that would lighten the load of the others.

Load 1 is the highest rate at which all of these queries can be served, planned together; load 2 has two of each query.
Every strategy is deployed on the same cluster and receives the same requests. Plans that are deployed for two loads
alike are measured once: a strategy that admits queries in order of arrival often has no room for more at load 2.

Costs are compared for the same served set: an alternative's plans for just the queries that it kept at load 1, against
the product's plans for these queries, which are deployed and must keep all of them. The alternative's plans for them
alone are not deployed again: that they keep them, too, is assumed in its favour. An alternative that keeps no query has
no cost to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.baselines.links_strategies import ALTERNATIVES, OURS, Profiles, planned, saturation
from benchmarks.evaluation.contest import Contest
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult, UnavailableError
from benchmarks.harness.results import Figure
from benchmarks.links.page import write_page
from benchmarks.links.runs import (
    MIN_REQUESTS,
    cost_figures,
    goodput_figures,
    requests_figure,
    rows_of,
    summary_of,
    truth_figures,
)
from benchmarks.links.trial import Planned, Trial, seconds_for
from benchmarks.testbeds.link_speeds import LinkSpeed, link_speeds
from benchmarks.testbeds.shaped_network import ended_by_signals, why_not
from benchmarks.testbeds.three_sites import sites
from benchmarks.workloads.links import Tempo, infrastructure, pace_of, specification, with_nothing_held_out
from circinus.profiling import profile_pipeline, record_for_replay
from circinus.reporting.progress import profile_bar
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.specification import Specification

_SHARES = {"meeting": 0.25, "documents": 0.75}
"""Shares of the profiling budget: pages take longer."""
_STRATEGIES = (OURS, *ALTERNATIVES)


def links(options: Options, console: Console) -> PartResult:
    """Profile, plan, record, deploy and load, if this machine can shape links.

    Raises:
        UnavailableError: the machine lacks root, tools or kernel features.
    """
    missing = why_not()
    if missing:
        raise UnavailableError(missing)
    with ended_by_signals():
        return _measured(options, console)


def _measured(options: Options, console: Console) -> PartResult:
    store = options.state / "profiles.sqlite"
    console.rule("1. Profile: the models really run")
    profiles = _profiles(specification(), store, options, console)
    truth = _profiles(with_nothing_held_out(specification()), store, options, console)
    for name, profile in profiles.items():
        chosen = [measured.configuration for measured in profile.configurations]
        with profile_bar(console, name) as bar:
            record_for_replay(
                specification(), name, store, configurations=chosen, items_count=options.items, observer=bar
            )
    console.rule("2. Plan: together, and in other ways")
    tempo = Tempo(pace_of(profiles), options.slower)
    rate_per_s = saturation(profiles, options.queries, tempo)
    loads = sorted(options.loads)
    contests = [
        Contest("links", specification(rate_per_s, load, options.queries, tempo=tempo), truth, {}) for load in loads
    ]
    plans = [
        Planned(strategy, load, contest, planned(contest.specification, profiles, strategy))
        for strategy in _STRATEGIES  # in turn, because the loads of a strategy share many deployments
        for load, contest in zip(loads, contests, strict=True)
    ]
    traffic = LoadSpec(
        seconds_for(contests[-1].specification, options.requests, options.warm_up, options.seed),
        options.warm_up,
        seed=options.seed,
        drain_timeout_s=10.0 * options.slower,
    )
    scale = (
        f"{len(contests[0].specification.queries)} queries with {rate_per_s:.2f} requests a second each at load 1, for "
        f"{traffic.duration_s:.0f} s, where everything takes {options.slower:g} times as long as specified"
    )
    console.print(scale, highlight=False)
    console.rule("3. Three sites, their links, and a Ray cluster across them")
    with sites(infrastructure(tempo), store, options.items) as opened:
        speeds = link_speeds(opened.network)
        console.print(_links_table(speeds))
        trial = Trial(opened, profiles, traffic, console)
        idle_bytes_per_s = trial.run_unshaped(plans[0])
        for plan in plans:
            trial.run(plan)
        same_sets = [trial.same_set(plan) for plan in plans if plan.load == loads[0] and plan.strategy != OURS]
    free, ours = trial.runs[0], trial.runs[1]
    figures = [
        requests_figure(trial.runs, scale),
        *_link_figures(speeds, idle_bytes_per_s),
        *truth_figures(ours, free),
        *goodput_figures(trial.runs),
        *cost_figures(same_sets),
    ]
    rows = [{"part": "links", **asdict(speed)} for speed in speeds]
    rows += [summary_of(run) for run in trial.runs] + [row for run in trial.runs for row in rows_of(run)]
    return figures, rows


def _profiles(specified: Specification, store: Path, options: Options, console: Console) -> Profiles:
    profiles = {}
    for name, share in _SHARES.items():
        with profile_bar(console, name) as bar:
            profiles[name] = profile_pipeline(
                specified, name, store, budget_s=share * options.profile_seconds, exhaustive=True, observer=bar
            )
        if profiles[name].interrupted:
            raise KeyboardInterrupt
    return profiles


def _links_table(speeds: list[LinkSpeed]) -> Table:
    table = Table("link", "Mbit/s", "measured", "round trip", "measured", title="Links", title_justify="left")
    for speed in speeds:
        table.add_row(
            speed.link, f"{speed.bytes_per_s * 8e-6:.1f}", f"{speed.measured_bytes_per_s * 8e-6:.1f}",
            f"{speed.round_trip_s * 1e3:.1f} ms", f"{speed.measured_round_trip_s * 1e3:.1f} ms",
        )  # fmt: skip
    return table


def _link_figures(speeds: list[LinkSpeed], idle_bytes_per_s: Mapping[str, float]) -> list[Figure]:
    def furthest(ratio: Callable[[LinkSpeed], float]) -> float:
        return max(map(ratio, speeds), key=lambda value: abs(value - 1.0))

    busiest = max(idle_bytes_per_s, key=lambda link: idle_bytes_per_s[link])
    return [
        Figure("measured over specified bandwidth", furthest(lambda s: s.measured_bytes_per_s / s.bytes_per_s), None,
               "higher", "times", "the link that is furthest off; payload of one TCP connection"),
        Figure("measured over specified round trip",
               furthest(lambda s: s.measured_round_trip_s / s.round_trip_s if s.round_trip_s else 1.0), None, "lower",
               "times", "the link that is furthest off"),
        Figure("what the cluster says over an idle link", idle_bytes_per_s[busiest] * 8e-3, None, "lower", "kbit/s",
               f"on {busiest}, which has most, with everything deployed and no request"),
    ]  # fmt: skip


_OPTIONS = (
    Option("loads", (1.0, 2.0), "loads, as multiples of the load that can be served", quick=(1.0,)),
    Option("slower", 1.5, "factor by which operators, links and latency limits are slower than specified"),
    Option("requests", MIN_REQUESTS, "measured requests of the query with the fewest", quick=20),
    Option("warm_up", 8.0, "seconds of traffic before measuring", quick=2.0),
    Option("queries", None, "number of queries at load 1 (default all 6, quick 2)", quick=2, kind=int),
    Option("items", None, "held-out items of each pipeline to send (default all, quick 4)", quick=4, kind=int),
    Option("profile_seconds", 900.0, "budget of profiling for both pipelines", quick=60.0),
    Option("seed", 0, "seed of the traffic"),
)

BENCHMARK = Benchmark(
    options=_OPTIONS,
    parts=(Part("links", links, tuple(option.name for option in _OPTIONS)),),
    page=write_page,
)
