"""Figures of runs over real links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import pytest
from benchmarks.baselines.links_strategies import CLOUD, DEVICE, OURS, VULCAN
from benchmarks.evaluation.judging import PRICES, Judgement, Verdict
from benchmarks.harness.results import Figure
from benchmarks.links.runs import Run, SameSet, cost_figures, goodput_figures, requests_figure, rows_of
from benchmarks.links.site_process import Loaded
from benchmarks.links.trial import seconds_for
from benchmarks.workloads.links import specification

from circinus.matching import Matching
from circinus.queueing.arrivals import arrival_process
from circinus.serving.loadtest.load_report import GeneratorLag, LoadReport, QueryMeasurement
from circinus.serving.loadtest.open_loop import sample_arrivals
from circinus.specification import Slos

OFFERED = 40


def run(
    strategy: str,
    load: float,
    kept: int,
    cost: float = 1.0,
    *,
    shaped: bool = True,
    late: int = 0,
    close: int = 0,
    requests: int = 200,
) -> Run:
    """Return a run of `OFFERED` queries of weight 1, of which the first were kept and the next ones late."""
    matching = Matching((), (), (), float(kept), float(OFFERED), cost, float(OFFERED), False, 0.0)
    queries = tuple(
        # The load test's own judgement is the opposite, and must not count.
        QueryMeasurement(f"q{number}", "p", 1.0, Slos(), True, requests=requests + number, satisfied=number >= kept)
        for number in range(OFFERED)
    )
    verdicts = tuple(
        Verdict(f"q{n}", 1.0, requests, 1.0, 0.9, n < kept, True, True, too_close=n < close) for n in range(kept + late)
    )
    lateness = GeneratorLag(0.0, 0.0, 0.0, late=False)
    report = LoadReport(
        "replay", "poisson", 0, 1.0, 0.0, 10.0, queries, lateness, cost, 0.0, float(OFFERED), 0, OFFERED
    )
    loaded = Loaded(report, {}, {}) if verdicts else None
    return Run(strategy, load, shaped, matching, loaded, Judgement(verdicts, dict.fromkeys(PRICES, cost)))


RUNS = [
    run(OURS, 1.0, 30), run(CLOUD, 1.0, 20), run(DEVICE, 1.0, 5), run(VULCAN, 1.0, 25),
    run(OURS, 2.0, 36), run(CLOUD, 2.0, 12, late=3, close=2), run(DEVICE, 2.0, 0), run(VULCAN, 2.0, 9),
]  # fmt: skip


def by_name(figures: list[Figure]) -> Mapping[str, Figure]:
    names = Counter(figure.name for figure in figures)
    assert set(names.values()) == {1}
    return {figure.name: figure for figure in figures}


def test_goodput_is_held_against_the_best_alternative_at_each_load() -> None:
    free = run(OURS, 1.0, 1, shaped=False)
    figures = by_name(goodput_figures([free, *RUNS]))
    best = figures["goodput over the best alternative at load 2"]
    assert best.value == pytest.approx(3.0)
    assert best.met
    assert figures["goodput over the best alternative, least"].value == pytest.approx(1.2)
    assert figures[f"goodput of {CLOUD} at load 2"].value == pytest.approx(12 / OFFERED)
    assert "12 kept (2 too close to call), 0 inaccurate, 3 late" in figures[f"goodput of {CLOUD} at load 2"].note
    assert figures[f"goodput of {DEVICE} at load 2"].value == 0


def test_an_alternative_that_keeps_nothing_gives_no_infinite_ratio() -> None:
    runs = [run(OURS, 1.0, 30), run(CLOUD, 1.0, 0), run(DEVICE, 1.0, 0), run(VULCAN, 1.0, 0)]
    assert by_name(goodput_figures(runs))["goodput over the best alternative at load 1"].value == pytest.approx(30.0)


def test_the_fewest_requests_are_of_runs_with_shaped_links() -> None:
    runs = [run(OURS, 1.0, 30, shaped=False, requests=50), run(OURS, 1.0, 30, requests=205), run(CLOUD, 1.0, 20)]
    figure = requests_figure(runs, "")
    assert figure.value == 200
    assert figure.met


def test_rows_have_the_judgement_on_all_recorded_items() -> None:
    rows = rows_of(run(OURS, 1.0, 2, late=1, close=1))
    assert [row["satisfied"] for row in rows[:4]] == [True, True, False, False]
    assert [row["too_close"] for row in rows[:2]] == [True, False]
    assert rows[2]["held"] == {"latency": False, "accuracy": True}
    assert rows[0]["accuracy"] == 0.9


def same_set(kept: Collection[str], ours: Run | None) -> Mapping[str, Figure]:
    return by_name(cost_figures([SameSet(CLOUD, 1.0, kept, dict(zip(PRICES, (0.5, 0.3, 0.4), strict=True)), ours)]))


COST, COMPARED = f"cost of the same queries: {CLOUD} over Circinus", f"queries whose cost is compared with {CLOUD}'s"


def test_costs_are_compared_for_queries_that_both_keep() -> None:
    figures = same_set({"q0", "q3"}, run(OURS, 1.0, 4, 0.1))
    assert figures[COST].value == pytest.approx(5.0)
    assert figures[COST].met
    assert "3.00 by node, 4.00 by busy seconds" in figures[COST].note
    assert COMPARED not in figures


def test_without_a_common_set_there_is_no_ratio() -> None:
    broken = same_set({"q0", "q4"}, run(OURS, 1.0, 4, 0.1))
    assert set(broken) == {COMPARED}
    assert "not all kept" in broken[COMPARED].note
    nothing = same_set((), None)
    assert set(nothing) == {COMPARED}
    assert nothing[COMPARED].value == 0
    assert "keeps none" in nothing[COMPARED].note


@pytest.mark.parametrize("seed", range(3))
def test_traffic_takes_as_long_as_the_slowest_query_needs_for_its_requests(seed: int) -> None:
    workload = specification(0.5, 2.0)
    seconds = seconds_for(workload, 50, 8.0, seed)
    processes = {query.name: arrival_process(query) for query in workload.queries}
    arrivals = sample_arrivals(processes, 8.0 + seconds, seed)
    counts = Counter(arrival.query for arrival in arrivals if arrival.time_s >= 8.0)
    assert min(counts[name] for name in processes) >= 50
    assert 100 <= seconds < 200
