"""Trial of plans on a running cluster over real links: deployment, traffic and judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import sleep

from rich.console import Console

from benchmarks.baselines.links_strategies import OURS, Profiles, as_if_without_links, planned
from benchmarks.evaluation.contest import Contest
from benchmarks.evaluation.judging import judged_by
from benchmarks.links.runs import Run, SameSet
from benchmarks.testbeds.three_sites import Sites
from circinus.matching import Matching
from circinus.queueing.arrivals import arrival_process
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.serving.loadtest.open_loop import sample_arrivals
from circinus.specification import Specification

_IDLE_S = 5.0
_UNSHAPED_SHARE = 0.25
"""Share of the traffic for links that are not shaped, of which only medians are compared."""
_LONGER = 1.02


@dataclass(frozen=True)
class Planned:
    """Plans of one strategy for one load."""

    strategy: str
    load: float
    contest: Contest
    """Queries, and the truth that judges their plans."""
    matching: Matching


def seconds_for(workload: Specification, requests: int, warm_up_s: float, seed: int) -> float:
    """Return the seconds of traffic in which every query has a number of requests after the warm-up."""
    processes = {query.name: arrival_process(query) for query in workload.queries}
    seconds = requests / min(query.rate_per_s for query in workload.queries)
    while True:
        arrivals = sample_arrivals(processes, warm_up_s + seconds, seed)
        counts = Counter(arrival.query for arrival in arrivals if arrival.time_s >= warm_up_s)
        if all(counts[name] >= requests for name in processes):
            return seconds
        seconds *= _LONGER


@dataclass
class Trial:
    """Runs on a cluster; plans that are deployed alike run once."""

    sites: Sites
    profiles: Profiles
    traffic: LoadSpec
    console: Console
    runs: list[Run] = field(default_factory=list)
    _ran: dict[frozenset[object], Run] = field(default_factory=dict)

    def run_unshaped(self, plan: Planned) -> Mapping[str, float]:
        """Run plans without shaped links; return bytes per second over shaped links afterwards, without requests."""
        self.sites.network.shape(shaped=False)
        try:
            self._run(plan, replace(self.traffic, duration_s=_UNSHAPED_SHARE * self.traffic.duration_s), shaped=False)
        finally:
            self.sites.network.shape(shaped=True)
        before = self.sites.sent_bytes()
        sleep(_IDLE_S)
        return {link: (sent - before[link]) / _IDLE_S for link, sent in self.sites.sent_bytes().items()}

    def run(self, plan: Planned) -> Run:
        """Run plans, unless they have run for another load."""
        replicas = {(sized.deployment, sized.replicas) for sized in plan.matching.deployments}
        key = frozenset({(a.query, a.chosen.plan) for a in plan.matching.assignments} | replicas)
        if key not in self._ran:
            self._ran[key] = self._run(plan, self.traffic)
        else:
            self._add(replace(self._ran[key], strategy=plan.strategy, load=plan.load, matching=plan.matching))
        return self.runs[-1]

    def same_set(self, alternative: Planned) -> SameSet:
        """Plan just the queries that an alternative kept in its run, and run the product's plans for them."""
        name, load = alternative.strategy, alternative.load
        kept = next(run.judgement.kept for run in self.runs if (run.strategy, run.load) == (name, load))
        if not kept:
            return SameSet(name, load, kept, {}, None)
        contest = alternative.contest.of(kept)
        theirs, ours = (planned(contest.specification, self.profiles, strategy) for strategy in (name, OURS))
        usd_per_h = judged_by(contest, theirs, ()).usd_per_h
        run = self.run(Planned(f"{OURS}, only what {name} kept", load, contest, ours))
        return SameSet(name, load, kept, usd_per_h, run)

    def _run(self, plan: Planned, traffic: LoadSpec, *, shaped: bool = True) -> Run:
        matching, workload = plan.matching, plan.contest.specification
        if not matching.assignments:
            return self._add(
                Run(plan.strategy, plan.load, shaped, matching, None, judged_by(plan.contest, matching, ()))
            )
        deploy_s = self.sites.deploy(workload, matching)
        before = self.sites.sent_bytes()
        loaded = self.sites.load(workload, matching, traffic)
        sent = {link: float(count - before[link]) for link, count in self.sites.sent_bytes().items()}
        latencies = [loaded.latency_s[assignment.query] for assignment in matching.assignments] if shaped else []
        judgement = judged_by(plan.contest, matching, latencies)
        ignoring = as_if_without_links(workload, self.profiles, matching) if plan.strategy == OURS else {}
        return self._add(Run(plan.strategy, plan.load, shaped, matching, loaded, judgement, deploy_s, ignoring, sent))

    def _add(self, run: Run) -> Run:
        self.runs.append(run)
        _print(run, self.console)
        return run


def _print(run: Run, console: Console) -> None:
    outcome = run.outcome if run.shaped else "links are not shaped"
    late = run.loaded is not None and run.loaded.report.lateness.late
    console.print(
        f"load {run.load:g}, {run.strategy}: {outcome}; "
        f"{sum(sized.replicas for sized in run.matching.deployments)} replicas, {run.matching.cost_usd_per_h:.3f} $/h, "
        f"deployed in {run.deploy_s:.1f} s" + (" (this machine was too busy to send on time)" if late else ""),
        highlight=False,
    )
