"""Runs of deployed plans over real links, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.baselines.links_strategies import ALTERNATIVES, OURS
from benchmarks.demo.report import row
from benchmarks.evaluation.goodput import RISK
from benchmarks.evaluation.judging import PRICES, Judgement, Verdict
from benchmarks.harness.results import Figure
from benchmarks.links.site_process import Loaded
from circinus.matching import Matching
from circinus.serving.loadtest.load_report import QueryMeasurement

_AIM_GOODPUT, _AIM_COST = 2.4, 3.2
MIN_REQUESTS = 200
"""Measured requests of the query with the fewest."""


@dataclass(frozen=True)
class Run:
    """Plans of one strategy under one load, with the measurements."""

    strategy: str
    load: float
    """Multiple of the load that can be served."""
    shaped: bool
    matching: Matching
    loaded: Loaded | None
    """Measurements; None if no query was admitted, so that nothing was deployed."""
    judgement: Judgement
    deploy_s: float = 0.0
    without_links_s: Mapping[str, float] = field(default_factory=dict)
    """Latency per query as predicted without links; empty where not computed."""
    sent_bytes: Mapping[str, float] = field(default_factory=dict)
    """Bytes over each link during the traffic, including those of the cluster."""

    @property
    def goodput(self) -> float:
        """Weight of the queries whose SLOs all held."""
        return self.judgement.goodput

    @property
    def offered(self) -> float:
        """Weight of all queries."""
        return self.matching.total_weight

    @property
    def served(self) -> int:
        """Number of admitted queries."""
        return len(self.matching.assignments)

    @property
    def measured(self) -> tuple[QueryMeasurement, ...]:
        """Admitted queries with requests."""
        queries = self.loaded.report.queries if self.loaded is not None else ()
        return tuple(query for query in queries if query.served and query.requests)

    @property
    def outcome(self) -> str:
        """Goodput and the reasons for what is missing."""
        verdicts = self.judgement.verdicts
        late, inaccurate = (sum(not getattr(v, held) for v in verdicts) for held in ("latency_held", "accuracy_held"))
        return (
            f"{self.goodput:g} of {self.offered:g} by weight; of {self.served} admitted queries "
            f"{len(self.judgement.kept)} kept ({self.judgement.too_close} too close to call), {inaccurate} inaccurate, "
            f"{late} late"
        )


@dataclass(frozen=True)
class SameSet:
    """Plans for just the queries that an alternative kept."""

    alternative: str
    load: float
    queries: Collection[str]
    theirs_usd_per_h: Mapping[str, float]
    """Cost under each of `PRICES` of the alternative's plans for these queries alone."""
    ours: Run | None
    """None: there are no such queries."""

    @property
    def is_kept(self) -> bool:
        """Whether the product kept all these queries."""
        return self.ours is not None and self.ours.judgement.kept >= set(self.queries)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return a row for every query of a run."""
    if run.loaded is None:
        return []
    sent = run.loaded.link_bytes
    chosen = {assignment.query: assignment.chosen for assignment in run.matching.assignments}
    verdicts = {verdict.query: verdict for verdict in run.judgement.verdicts}
    rows = []
    for query in run.loaded.report.queries:
        candidate = chosen.get(query.query)
        rate_per_s = _rates(run).get(query.query, 1.0)
        predicted = {} if candidate is None else {u.link.name: u.bytes_per_s / rate_per_s for u in candidate.links}
        rows.append(
            {
                "part": "traffic",
                "load": run.load,
                "shaped": run.shaped,
                **row(run.strategy, run.matching, query),
                **_judged(verdicts.get(query.query)),
                "weight": query.weight,
                "predicted_without_links_s": run.without_links_s.get(query.query),
                "predicted_link_bytes": predicted,
                "measured_link_bytes": dict(sent.get(query.query, {})),
            }
        )
    return rows


def _judged(verdict: Verdict | None) -> dict[str, Any]:
    """Return what replaces the load test's own judgement, which has the accuracy of the requests sent."""
    if verdict is None:
        return {"accuracy": None, "held": {}, "satisfied": False, "too_close": False}
    held = {"latency": verdict.latency_held, "accuracy": verdict.accuracy_held}
    return {"accuracy": verdict.accuracy, "held": held, "satisfied": verdict.kept, "too_close": verdict.too_close}


def summary_of(run: Run) -> dict[str, Any]:
    """Return a row for a run as a whole."""
    lateness = run.loaded.report.lateness if run.loaded is not None else None
    return {
        "part": "runs",
        "strategy": run.strategy,
        "load": run.load,
        "shaped": run.shaped,
        "goodput": run.goodput,
        "offered_weight": run.offered,
        "served": run.served,
        "kept": len(run.judgement.kept),
        "too_close": run.judgement.too_close,
        "replicas": sum(sized.replicas for sized in run.matching.deployments),
        "usd_per_h": dict(run.judgement.usd_per_h),
        "deploy_s": run.deploy_s,
        "sent_bytes": dict(run.sent_bytes),
        "generator_late_p99_s": lateness.p99_s if lateness is not None else None,
    }


def _rates(run: Run) -> dict[str, float]:
    """Return the planned request rate per query."""
    return {
        assignment.query: use.traffic.rate_per_s
        for assignment in run.matching.assignments
        for use in assignment.chosen.deployments[:1]
    }


def requests_figure(runs: Sequence[Run], note: str) -> Figure:
    """Return the measured requests of the query with the fewest, over all runs with shaped links."""
    fewest = min(query.requests for run in runs if run.shaped for query in run.measured)
    return Figure("measured requests of the query with the fewest", float(fewest), float(MIN_REQUESTS), "higher",
                  "requests", note)  # fmt: skip


def goodput_figures(runs: Sequence[Run]) -> list[Figure]:
    """Return goodput over that of the best alternative, the goodput of each strategy, and broken promises."""
    by_load = {name: _by_load(runs, name) for name in (OURS, *ALTERNATIVES)}
    ours = by_load[OURS]
    best = {load: max(by_load[name][load].goodput for name in ALTERNATIVES) for load in ours}
    # No ratio to less than one query of weight 1.
    ratios = {load: run.goodput / max(best[load], 1.0) for load, run in ours.items()}
    note = "; ".join(f"load {load:g}: {ratio:.2f}" for load, ratio in ratios.items())
    last = max(ratios)
    figures = [
        Figure(f"goodput over the best alternative at load {last:g}", ratios[last], _AIM_GOODPUT, "higher", "times",
               note),
        Figure("goodput over the best alternative, least", min(ratios.values()), 1.0, "higher", "times", note),
    ]  # fmt: skip
    figures += [
        Figure(f"goodput of {name} at load {load:g}", run.goodput / run.offered, None, "higher", "of the weight",
               run.outcome)
        for name, own in by_load.items()
        for load, run in own.items()
    ]  # fmt: skip
    served = sum(run.served for run in ours.values())
    broken, close = (sum(getattr(run.judgement, count) for run in ours.values()) for count in ("broken", "too_close"))
    note = f"{broken} of {served} at all loads; {close} more are too close to call"
    return [*figures, Figure("promises of Circinus broken", broken / max(served, 1), RISK, "lower", "of plans", note)]


def cost_figures(same_sets: Sequence[SameSet]) -> list[Figure]:
    """Return the costs of the same served queries, where an alternative keeps any and the product keeps them all."""
    figures = []
    for same in same_sets:
        compared = f"the {len(same.queries)} queries that it keeps at load {same.load:g}"
        if same.ours is None or not same.is_kept:
            reason = f"{compared} are not all kept by Circinus" if same.queries else "it keeps none"
            figures.append(Figure(f"queries whose cost is compared with {same.alternative}'s", 0.0, None, "higher",
                                  "queries", reason))  # fmt: skip
            continue
        ours = same.ours.judgement.usd_per_h
        ratios = {price: same.theirs_usd_per_h[price] / ours[price] for price in PRICES}
        both = f"{same.theirs_usd_per_h[PRICES[0]]:.3f} over {ours[PRICES[0]]:.3f} $/h for {compared}"
        others = ", ".join(f"{ratios[price]:.2f} by {price}" for price in PRICES[1:])
        figures.append(Figure(f"cost of the same queries: {same.alternative} over Circinus", ratios[PRICES[0]],
                              _AIM_COST, "higher", "times", f"{both}; {others}"))  # fmt: skip
    return figures


def truth_figures(shaped: Run, unshaped: Run) -> list[Figure]:
    """Return predicted and measured latencies and bytes, with links and without."""
    with_links = _observed_over(shaped, lambda query: query.predicted.latency_s.value if query.predicted else None)
    ignoring = _observed_over(shaped, lambda query: shaped.without_links_s.get(query.query))
    figures = [
        Figure("measured over predicted latency", _median(with_links), None, "lower", "times",
               f"median of {len(with_links)} queries, links shaped; {_range(with_links)}"),
        Figure("measured latency over that predicted without links", _median(ignoring), None, "lower", "times",
               f"the same plans and requests; {_range(ignoring)}"),
    ]  # fmt: skip
    medians = [
        {query.query: query.latency_s.p50_s for query in run.measured if query.latency_s and query.latency_s.p50_s}
        for run in (shaped, unshaped)
    ]
    slower = [seconds / medians[1][query] for query, seconds in medians[0].items() if query in medians[1]]
    added_s = [seconds - medians[1][query] for query, seconds in medians[0].items() if query in medians[1]]
    predicted_s = [
        query.predicted.latency_s.value - shaped.without_links_s[query.query]
        for query in shaped.measured
        if query.predicted is not None and query.query in shaped.without_links_s
    ]
    figures += [
        Figure("latency with shaped links over that without", _median(slower), None, "lower", "times",
               f"p50 of the same plans and requests; {_range(slower)}"),
        Figure("what links add to latency, measured", _median(added_s), None, "lower", "s",
               f"median over queries, of p50; {_range(added_s)} s"),
        Figure("what links add to latency, predicted", _median(predicted_s), None, "lower", "s",
               f"median over queries, at the percentile of the SLO; {_range(predicted_s)} s"),
    ]  # fmt: skip
    return figures + _byte_figures(shaped)


def _byte_figures(shaped: Run) -> list[Figure]:
    assert shaped.loaded is not None, "no query was admitted"
    ratios = []
    payload: dict[str, float] = {}
    rates, counts = _rates(shaped), {query.query: query.requests for query in shaped.measured}
    for assignment in shaped.matching.assignments:
        measured = shaped.loaded.link_bytes.get(assignment.query, {})
        for use in assignment.chosen.links:
            predicted = use.bytes_per_s / rates[assignment.query]
            if predicted > 0 and use.link.name in measured:
                ratios.append(measured[use.link.name] / predicted)
        for link, size_bytes in measured.items():
            payload[link] = payload.get(link, 0.0) + size_bytes * counts.get(assignment.query, 0)
    report = shaped.loaded.report
    share = report.duration_s / (report.duration_s + report.warm_up_s)
    wire = {link: sent * share / payload[link] for link, sent in shaped.sent_bytes.items() if payload.get(link)}
    busiest = max(payload, key=lambda link: payload[link], default=None)
    figures = [Figure("measured over predicted bytes of a request on a link", _median(ratios), None, "lower", "times",
                      f"median of {len(ratios)} queries and links; {_range(ratios)}")]  # fmt: skip
    if busiest is not None:
        figures.append(
            Figure("bytes on the wire over those of values", wire[busiest], None, "lower", "times",
                   f"on {busiest}, which carries most; the rest is headers and the cluster's own")
        )  # fmt: skip
    return figures


def _observed_over(run: Run, predicted: Callable[[QueryMeasurement], float | None]) -> list[float]:
    ratios = []
    for query in run.measured:
        expected_s, latency = predicted(query), query.latency_s
        if expected_s and latency is not None and latency.at_percentile_s is not None:
            ratios.append(latency.at_percentile_s / expected_s)
    return ratios


def _by_load(runs: Sequence[Run], strategy: str) -> dict[float, Run]:
    return {run.load: run for run in runs if run.strategy == strategy and run.shaped}


def _median(values: Sequence[float]) -> float:
    return float(median(values)) if values else float("nan")


def _range(values: Sequence[float]) -> str:
    return f"from {min(values):.2f} to {max(values):.2f}" if values else "none"
