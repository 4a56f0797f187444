"""Plans over real links: three sites in network namespaces, a Ray cluster across them, and traffic.

Links have the bandwidth and delay of the specification, and all traffic of the cluster crosses them. The models run
while profiling and recording. Serving replays the recordings on held-out items and sends the recorded numbers of bytes,
in slow motion, so that two cores stand in for three tiers.

Load 1 is the highest rate of the examples' 24 queries at which all of them can be served, planned together; load 2 has
two of each query. Every strategy is deployed on the same cluster and receives the same requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep

from rich.console import Console
from rich.table import Table

from benchmarks.baselines.links_strategies import (
    ALTERNATIVES,
    OURS,
    Profiles,
    as_if_without_links,
    only,
    planned,
    saturation,
    with_rates,
)
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult, UnavailableError
from benchmarks.harness.results import Figure
from benchmarks.links.runs import (
    Run,
    cost_figures,
    equal_to,
    goodput_figures,
    rows_of,
    summary_of,
    truth_figures,
)
from benchmarks.testbeds.link_speeds import LinkSpeed, link_speeds
from benchmarks.testbeds.shaped_network import ended_by_signals, why_not
from benchmarks.testbeds.three_sites import Sites, sites
from benchmarks.workloads.links import Tempo, infrastructure, pace_of, specification
from circinus.matching import Matching
from circinus.profiling import profile_pipeline, record_for_replay
from circinus.reporting.progress import profile_bar
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.specification import Specification

_SHARES = {"meeting": 0.25, "documents": 0.75}
"""Shares of the profiling budget: pages take longer."""
_IDLE_S = 5.0
_STRATEGIES = (OURS, *ALTERNATIVES)
_EQUAL_RATES = 1.0, 1.25
"""Rate factors of plans that are to reach the goodput of an alternative, tried in turn."""


@dataclass(frozen=True)
class Planned:
    """Plans of one strategy for one load."""

    strategy: str
    load: float
    specification: Specification
    matching: Matching


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
    profiles = _profiles(store, options, console)
    console.rule("2. Plan: together, and in other ways")
    tempo = Tempo(pace_of(profiles), options.slower)
    factor = saturation(profiles, options.queries, tempo)
    specifications = {load: specification(factor, load, options.queries, tempo=tempo) for load in sorted(options.loads)}
    rate_per_s = factor * sum(query.rate_per_s for query in specification(count=options.queries).queries)
    console.print(
        f"load 1: the examples' rates times {factor:.3f}, {rate_per_s:.1f} requests a second, where everything takes "
        f"{options.slower:g} times as long as specified",
        highlight=False,
    )
    plans = [
        Planned(strategy, load, specifications[load], planned(specifications[load], profiles, strategy))
        for load in sorted(options.loads)
        for strategy in _STRATEGIES
    ]
    console.rule("3. Record the chosen configurations on held-out items")
    _record(plans, store, options, console)
    console.rule("4. Three sites, their links, and a Ray cluster across them")
    with sites(infrastructure(tempo), store, options.items) as opened:
        speeds = link_speeds(opened.network)
        console.print(_links_table(speeds))
        runs, idle_bytes_per_s = _runs(opened, plans, profiles, options, console)
    ours = next(run for run in runs if run.strategy == OURS and run.shaped)
    free = next(run for run in runs if not run.shaped)
    figures = [
        Figure("queries at load 1", float(len(plans[0].specification.queries)), 24.0, "higher", "queries",
               f"{rate_per_s:.1f} requests a second; everything takes {options.slower:g} times as long as specified"),
        *_link_figures(speeds, idle_bytes_per_s),
        *truth_figures(ours, free),
        *goodput_figures(runs),
        *cost_figures(runs),
    ]  # fmt: skip
    rows = [{"part": "links", **asdict(speed)} for speed in speeds]
    rows += [summary_of(run) for run in runs] + [row for run in runs for row in rows_of(run)]
    return figures, rows


def _profiles(store: Path, options: Options, console: Console) -> Profiles:
    examples, profiles = specification(), {}
    for name, share in _SHARES.items():
        with profile_bar(console, name) as bar:
            profiles[name] = profile_pipeline(
                examples, name, store, budget_s=share * options.profile_seconds, exhaustive=True, observer=bar
            )
        if profiles[name].interrupted:
            raise KeyboardInterrupt
    return profiles


def _record(plans: list[Planned], store: Path, options: Options, console: Console) -> None:
    chosen = [a.chosen.plan for planned in plans for a in planned.matching.assignments]
    for name in _SHARES:
        configurations = list(dict.fromkeys(plan.configuration for plan in chosen if plan.pipeline == name))
        if configurations:
            with profile_bar(console, name) as bar:
                record_for_replay(
                    plans[0].specification,
                    name,
                    store,
                    configurations=configurations,
                    items_count=options.items,
                    observer=bar,
                )
        console.print(f"{name}: {len(configurations)} configurations on {options.items} items each", highlight=False)


def _runs(
    opened: Sites, plans: list[Planned], profiles: Profiles, options: Options, console: Console
) -> tuple[list[Run], Mapping[str, float]]:
    """Return all runs, and bytes per second over links without requests."""
    runs: list[Run] = []

    def add(plan: Planned, *, shaped: bool = True) -> Run:
        runs.append(_run(opened, plan, profiles, options, shaped=shaped))
        _print(runs[-1], console)
        return runs[-1]

    # By strategy, because the loads of a strategy share many deployments.
    first, *remaining = sorted(plans, key=lambda plan: list(_STRATEGIES).index(plan.strategy))
    add(first)
    before = opened.sent_bytes()
    sleep(_IDLE_S)
    idle = {link: (sent - before[link]) / _IDLE_S for link, sent in opened.sent_bytes().items()}
    opened.network.shape(shaped=False)
    try:
        add(first, shaped=False)
    finally:
        opened.network.shape(shaped=True)
    for plan in remaining:
        add(plan)
    for alternative in [run for run in runs if run.strategy in ALTERNATIVES and run.load == first.load and run.kept]:
        retained = only(first.specification, alternative.kept)
        for times in _EQUAL_RATES:
            matching = planned(with_rates(retained, times), profiles, OURS)
            _record([Planned(OURS, first.load, retained, matching)], opened.store, options, console)
            planned_for = "" if times == 1 else f", planned for {times:g} times the rate"
            plan = Planned(equal_to(alternative.strategy) + planned_for, first.load, retained, matching)
            if add(plan).goodput >= alternative.goodput:
                break
    return runs, idle


def _run(opened: Sites, plan: Planned, profiles: Profiles, options: Options, *, shaped: bool) -> Run:
    matching = plan.matching
    if not matching.assignments:
        return Run(plan.strategy, plan.load, shaped, matching, None, 0.0, {}, {})
    deploy_s = opened.deploy(plan.specification, matching)
    before = opened.sent_bytes()
    traffic = LoadSpec(options.seconds, options.warm_up, seed=options.seed, drain_timeout_s=10.0 * options.slower)
    loaded = opened.load(plan.specification, matching, traffic)
    sent = {link: float(count - before[link]) for link, count in opened.sent_bytes().items()}
    ignoring = as_if_without_links(plan.specification, profiles, matching) if plan.strategy == OURS else {}
    return Run(plan.strategy, plan.load, shaped, matching, loaded, deploy_s, ignoring, sent)


def _print(run: Run, console: Console) -> None:
    links = "" if run.shaped else ", links not shaped"
    late = run.loaded is not None and run.loaded.report.lateness.late
    console.print(
        f"load {run.load:g}, {run.strategy}{links}: {run.served} queries admitted, {len(run.kept)} kept, goodput "
        f"{run.goodput:g} of {run.offered:g}, {sum(sized.replicas for sized in run.matching.deployments)} replicas, "
        f"{run.matching.cost_usd_per_h:.3f} $/h, deployed in {run.deploy_s:.1f} s"
        + (" (this machine was too busy to send on time)" if late else ""),
        highlight=False,
    )


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
    Option("loads", (1.0, 2.0, 3.0), "loads, as multiples of the load that can be served", quick=(1.0,)),
    Option("slower", 2.0, "factor by which operators, links and latency limits are slower than specified"),
    Option("seconds", 40.0, "measured seconds of traffic of each run", quick=5.0),
    Option("warm_up", 8.0, "seconds of traffic before measuring", quick=2.0),
    Option("queries", None, "number of queries at load 1 (default all 24, quick 2)", quick=2, kind=int),
    Option("items", 24, "held-out items of each pipeline to record and to send", quick=4),
    Option("profile_seconds", 900.0, "budget of profiling for both pipelines", quick=60.0),
    Option("seed", 0, "seed of the traffic"),
)

BENCHMARK = Benchmark(
    options=_OPTIONS,
    parts=(Part("links", links, tuple(option.name for option in _OPTIONS)),),
)
