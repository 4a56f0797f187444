"""Runs of deployed plans over real links, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.baselines.links_strategies import ALTERNATIVES, OURS
from benchmarks.demo.report import row
from benchmarks.harness.results import Figure
from benchmarks.links.site_process import Loaded
from circinus.matching import Matching
from circinus.serving.loadtest.load_report import QueryMeasurement

AIM_GOODPUT, AIM_COST = 3.0, 1 / 3
_EQUAL = "equal goodput as "


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
    deploy_s: float
    without_links_s: Mapping[str, float]
    """Latency per query as predicted without links; empty where not computed."""
    sent_bytes: Mapping[str, float]
    """Bytes over each link during the traffic, including those of the cluster."""

    @property
    def goodput(self) -> float:
        """Weight of the queries with measured latency and accuracy within their SLOs."""
        return self.loaded.report.goodput if self.loaded is not None else 0.0

    @property
    def offered(self) -> float:
        """Weight of all queries."""
        return self.matching.total_weight

    @property
    def kept(self) -> set[str]:
        """Queries that make up the goodput."""
        queries = self.loaded.report.queries if self.loaded is not None else ()
        return {query.query for query in queries if query.satisfied}

    @property
    def served(self) -> int:
        """Number of admitted queries."""
        return len(self.matching.assignments)

    @property
    def measured(self) -> tuple[QueryMeasurement, ...]:
        """Admitted queries with requests."""
        queries = self.loaded.report.queries if self.loaded is not None else ()
        return tuple(query for query in queries if query.served and query.requests)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Return a row for every query of a run."""
    if run.loaded is None:
        return []
    sent = run.loaded.link_bytes
    chosen = {assignment.query: assignment.chosen for assignment in run.matching.assignments}
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
                "weight": query.weight,
                "predicted_without_links_s": run.without_links_s.get(query.query),
                "predicted_link_bytes": predicted,
                "measured_link_bytes": dict(sent.get(query.query, {})),
            }
        )
    return rows


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
        "kept": len(run.kept),
        "replicas": sum(sized.replicas for sized in run.matching.deployments),
        "cost_usd_per_h": run.matching.cost_usd_per_h,
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


def goodput_figures(runs: Sequence[Run]) -> list[Figure]:
    """Return goodput over that of the alternatives at loads above 1, with the curves of all loads."""
    ours, theirs = _by_load(runs, OURS), {name: _by_load(runs, name) for name in ALTERNATIVES}
    beyond = [load for load in ours if load > 1] or list(ours)
    figures = []
    best = {load: max(theirs[name][load].goodput for name in ALTERNATIVES) for load in ours}
    by_load = "; ".join(f"load {load:g}: {_times(ours[load].goodput, best[load]):.2f}" for load in ours)
    figures.append(
        Figure("goodput over the best alternative beyond saturation",
               min(_times(ours[load].goodput, best[load]) for load in beyond), AIM_GOODPUT, "higher", "times",
               f"the least over loads beyond 1; {by_load}")
    )  # fmt: skip
    for name in ALTERNATIVES:
        curve = "; ".join(f"load {load:g}: {theirs[name][load].goodput:g} of {ours[load].offered:g}" for load in ours)
        times = [_times(ours[load].goodput, theirs[name][load].goodput) for load in beyond]
        figures.append(Figure(f"goodput over {name} beyond saturation", min(times), None, "higher", "times", curve))
    curve = "; ".join(f"load {load:g}: {run.goodput:g} of {run.offered:g}" for load, run in ours.items())
    kept, served = (sum(count(run) for run in ours.values()) for count in (lambda r: len(r.kept), lambda r: r.served))
    figures.append(
        Figure("promises of Circinus kept when measured", kept / max(served, 1), None, "higher", "of plans", curve)
    )
    return figures


def equal_to(strategy: str) -> str:
    """Return the prefix of names of the product's runs with just the queries that an alternative kept."""
    return f"{_EQUAL}{strategy}"


def cost_figures(runs: Sequence[Run]) -> list[Figure]:
    """Return the cost per unit of goodput at the lowest load, over that of each alternative.

    Compared are plans for just the queries that the alternative kept, and plans for all admitted queries.
    """
    figures = []
    load = min(run.load for run in runs)
    ours = _by_load(runs, OURS)[load]
    for name in ALTERNATIVES:
        other = _by_load(runs, name)[load]
        same = [run for run in runs if run.strategy.startswith(equal_to(name)) and run.load == load and run.goodput]
        if not same or not other.goodput or not other.matching.cost_usd_per_h:
            continue
        best = min(same, key=lambda run: (run.goodput < other.goodput, _unit_cost(run)))
        ratio = _unit_cost(best) / _unit_cost(other)
        figures.append(
            Figure(f"cost for equal goodput, over {name}", ratio, AIM_COST, "lower", "times", _compared(best, other))
        )
        if ours.goodput:
            figures.append(
                Figure(f"$/h for each unit of weight kept, over {name}", _unit_cost(ours) / _unit_cost(other), None,
                       "lower", "times", f"at load {load:g}, each with all that it let in")
            )  # fmt: skip
    return figures


def _unit_cost(run: Run) -> float:
    """Return $/h per unit of goodput."""
    return run.matching.cost_usd_per_h / run.goodput


def _compared(same: Run, other: Run) -> str:
    planned_for = same.strategy.removeprefix(equal_to(other.strategy))
    what = f"plans for just the queries that it kept at load {other.load:g}{planned_for}"
    both = f"{same.matching.cost_usd_per_h:.3f} for {other.matching.cost_usd_per_h:.3f} $/h"
    if same.goodput == other.goodput:
        return f"{both}: {what}, which kept the same {other.goodput:g} by weight"
    return f"{both}, each over the weight kept: {what}, of which these kept {same.goodput:g} of {other.goodput:g}"


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


def _times(ours: float, other: float) -> float:
    """Return the ratio of goodputs, where a goodput below one unit of weight counts as one."""
    return ours / max(other, 1.0)


def _median(values: Sequence[float]) -> float:
    return float(median(values)) if values else float("nan")


def _range(values: Sequence[float]) -> str:
    return f"from {min(values):.2f} to {max(values):.2f}" if values else "none"
