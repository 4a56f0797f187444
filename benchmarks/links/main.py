"""Plans over real links: three sites in network namespaces, a Ray cluster across them, traffic, and what came of it.

Called by `make bench-links`. Links have the bandwidth and the delay that plans count with, and all that the cluster
says crosses them. The models run while profiling and recording; serving replays what was recorded, on held-out items,
and sends as many bytes as were recorded, all in slow motion: so two cores stand in for three tiers.

Load 1 is where the rates of the examples' 24 queries are just so high that all of them can be served, planned together;
at load 2 there are two of each. Every strategy is deployed on the same cluster and sent the same requests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

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
from benchmarks.harness.results import Figure, print_figures, write_results
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
from circinus.specification.formatting import format_duration

ROOT = Path(__file__).parent.parent.parent
_SHARES = {"meeting": 0.25, "documents": 0.75}
"""Of the seconds for profiling: pages take longer."""
_IDLE_S = 5.0
_STRATEGIES = (OURS, *ALTERNATIVES)
_EQUAL_RATES = 1.0, 1.25
"""Times their rate that plans are made for which shall keep as much as an alternative did, until they do."""


@dataclass(frozen=True)
class Options:
    """How much."""

    state: Path
    loads: tuple[float, ...]
    slower: float
    seconds: float
    warm_up_s: float
    queries: int | None
    items: int
    profile_s: float
    seed: int


@dataclass(frozen=True)
class Planned:
    """One strategy's answer to one load."""

    strategy: str
    load: float
    asked: Specification
    matching: Matching


def main() -> None:
    """Run all of it, or say why that cannot be here."""
    options, console = _options(), Console() if sys.stdout.isatty() else Console(width=160)
    missing = why_not()
    if missing:
        console.print(f"skipped: {missing}", highlight=False)
        return
    began_s = perf_counter()
    options.state.mkdir(parents=True, exist_ok=True)
    with ended_by_signals():
        figures, rows = _measured(options, console)
    print_figures(figures, console)
    wall_s = perf_counter() - began_s
    path = write_results("links", figures=figures, rows=rows, seeds=[options.seed], wall_s=wall_s)
    console.print(f"written to {path.relative_to(ROOT)} in {format_duration(wall_s)}", highlight=False)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links.main", description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / ".circinus" / "links", help="folder of the profile store")
    parser.add_argument("--loads", type=float, nargs="+", default=[1.0, 2.0, 3.0], help="times what can be served")
    parser.add_argument(
        "--slower", type=float, default=2.0, help="times as long as specified that operators and links take, and may"
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="measured traffic of each run")
    parser.add_argument("--warm-up", type=float, default=8.0, help="seconds of traffic before")
    parser.add_argument("--queries", type=int, default=None, help="how many at load 1, by default all 24")
    parser.add_argument("--items", type=int, default=24, help="held-out items of each pipeline to record and to send")
    parser.add_argument("--profile-seconds", type=float, default=900.0, help="for both pipelines, where not known yet")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    return Options(
        chosen.state, tuple(sorted(chosen.loads)), chosen.slower, chosen.seconds, chosen.warm_up, chosen.queries,
        chosen.items, chosen.profile_seconds, chosen.seed,
    )  # fmt: skip


def _measured(options: Options, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    store = options.state / "profiles.sqlite"
    console.rule("1. Profile: the models really run")
    profiles = _profiles(store, options, console)
    console.rule("2. Plan: together, and in other ways")
    tempo = Tempo(pace_of(profiles), options.slower)
    factor = saturation(profiles, options.queries, tempo)
    asked = {load: specification(factor, load, options.queries, tempo=tempo) for load in options.loads}
    rate_per_s = factor * sum(query.rate_per_s for query in specification(count=options.queries).queries)
    console.print(
        f"load 1: the examples' rates times {factor:.3f}, {rate_per_s:.1f} requests a second, where everything takes "
        f"{options.slower:g} times as long as specified",
        highlight=False,
    )
    plans = [
        Planned(strategy, load, asked[load], planned(asked[load], profiles, strategy))
        for load in options.loads
        for strategy in _STRATEGIES
    ]
    console.rule("3. Record what was chosen on held-out items")
    _record(plans, store, options, console)
    console.rule("4. Three sites, their links, and a Ray cluster across them")
    with sites(infrastructure(tempo), store, options.items) as opened:
        speeds = link_speeds(opened.network)
        console.print(_links_table(speeds))
        runs, idle_bytes_per_s = _runs(opened, plans, profiles, options, console)
    ours = next(run for run in runs if run.strategy == OURS and run.shaped)
    free = next(run for run in runs if not run.shaped)
    figures = [
        Figure("queries at load 1", float(len(plans[0].asked.queries)), 24.0, "higher", "queries",
               f"{rate_per_s:.1f} requests a second; everything takes {options.slower:g} times as long as specified"),
        *_link_figures(speeds, idle_bytes_per_s),
        *truth_figures(ours, free),
        *goodput_figures(runs),
        *cost_figures(runs),
    ]  # fmt: skip
    rows = [{"part": "links", **asdict(speed)} for speed in speeds]
    rows += [summary_of(run) for run in runs] + [found for run in runs for found in rows_of(run)]
    return figures, rows


def _profiles(store: Path, options: Options, console: Console) -> Profiles:
    asked, found = specification(), {}
    for name, share in _SHARES.items():
        with profile_bar(console, name) as bar:
            found[name] = profile_pipeline(
                asked, name, store, budget_s=share * options.profile_s, exhaustive=True, observer=bar
            )
        if found[name].interrupted:
            raise KeyboardInterrupt
    return found


def _record(plans: list[Planned], store: Path, options: Options, console: Console) -> None:
    chosen = [a.chosen.plan for one in plans for a in one.matching.assignments]
    for name in _SHARES:
        configurations = list(dict.fromkeys(plan.configuration for plan in chosen if plan.pipeline == name))
        if configurations:
            with profile_bar(console, name) as bar:
                record_for_replay(
                    plans[0].asked, name, store, configurations=configurations, items_count=options.items, observer=bar
                )
        console.print(f"{name}: {len(configurations)} configurations on {options.items} items each", highlight=False)


def _runs(
    opened: Sites, plans: list[Planned], profiles: Profiles, options: Options, console: Console
) -> tuple[list[Run], Mapping[str, float]]:
    """All runs, and bytes a second that cross links while no request comes."""
    runs: list[Run] = []

    def add(one: Planned, *, shaped: bool = True) -> Run:
        runs.append(_run(opened, one, profiles, options, shaped=shaped))
        _say(runs[-1], console)
        return runs[-1]

    first, *others = sorted(plans, key=lambda one: list(_STRATEGIES).index(one.strategy))  # much of one load's stays
    add(first)
    before = opened.sent_bytes()
    sleep(_IDLE_S)
    idle = {link: (sent - before[link]) / _IDLE_S for link, sent in opened.sent_bytes().items()}
    opened.network.shape(shaped=False)
    try:
        add(first, shaped=False)
    finally:
        opened.network.shape(shaped=True)
    for one in others:
        add(one)
    for found in [run for run in runs if run.strategy in ALTERNATIVES and run.load == first.load and run.kept]:
        asked = only(first.asked, found.kept)
        for times in _EQUAL_RATES:
            same = planned(with_rates(asked, times), profiles, OURS)
            _record([Planned(OURS, first.load, asked, same)], opened.store, options, console)
            planned_for = "" if times == 1 else f", planned for {times:g} times the rate"
            if add(Planned(equal_to(found.strategy) + planned_for, first.load, asked, same)).goodput >= found.goodput:
                break
    return runs, idle


def _run(opened: Sites, one: Planned, profiles: Profiles, options: Options, *, shaped: bool) -> Run:
    matching = one.matching
    if not matching.assignments:
        return Run(one.strategy, one.load, shaped, matching, None, 0.0, {}, {})
    deploy_s = opened.deploy(one.asked, matching)
    before = opened.sent_bytes()
    traffic = LoadSpec(options.seconds, options.warm_up_s, seed=options.seed, drain_timeout_s=10.0 * options.slower)
    loaded = opened.load(one.asked, matching, traffic)
    sent = {link: float(count - before[link]) for link, count in opened.sent_bytes().items()}
    ignoring = as_if_without_links(one.asked, profiles, matching) if one.strategy == OURS else {}
    return Run(one.strategy, one.load, shaped, matching, loaded, deploy_s, ignoring, sent)


def _say(run: Run, console: Console) -> None:
    links = "" if run.shaped else ", links not shaped"
    late = run.loaded is not None and run.loaded.report.lateness.late
    console.print(
        f"load {run.load:g}, {run.strategy}{links}: {run.served} queries let in, {len(run.kept)} kept, goodput "
        f"{run.goodput:g} of {run.offered:g}, {sum(sized.replicas for sized in run.matching.deployments)} replicas, "
        f"{run.matching.cost_usd_per_h:.3f} $/h, deployed in {run.deploy_s:.1f} s"
        + (" (this machine was too busy to send on time)" if late else ""),
        highlight=False,
    )


def _links_table(speeds: list[LinkSpeed]) -> Table:
    table = Table("link", "Mbit/s", "measured", "round trip", "measured", title="Links", title_justify="left")
    for one in speeds:
        table.add_row(
            one.link, f"{one.bytes_per_s * 8e-6:.1f}", f"{one.measured_bytes_per_s * 8e-6:.1f}",
            f"{one.round_trip_s * 1e3:.1f} ms", f"{one.measured_round_trip_s * 1e3:.1f} ms",
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


if __name__ == "__main__":
    main()
