"""Figures of runs over real links."""

from __future__ import annotations

import pytest
from benchmarks.baselines.links_strategies import CLOUD, DEVICE, OURS, VULCAN
from benchmarks.harness.results import Figure
from benchmarks.links.runs import Run, cost_figures, equal_to, goodput_figures
from benchmarks.links.site_process import Loaded

from circinus.matching import Matching
from circinus.serving.loadtest.load_report import GeneratorLag, LoadReport, QueryMeasurement
from circinus.specification import Slos

OFFERED = 40


def run(strategy: str, load: float, kept: int, cost: float = 1.0, *, shaped: bool = True) -> Run:
    """Return a run with `OFFERED` queries of weight 1, some of which met their SLOs; 0: nothing was deployed."""
    matching = Matching((), (), (), float(kept), float(OFFERED), cost, float(OFFERED), False, 0.0)
    queries = tuple(
        QueryMeasurement(f"q{number}", "p", 1.0, Slos(), True, requests=10, satisfied=number < kept)
        for number in range(OFFERED)
    )
    lateness = GeneratorLag(0.0, 0.0, 0.0, late=False)
    report = LoadReport(
        "replay", "poisson", 0, 1.0, 0.0, 10.0, queries, lateness, cost, float(kept), float(OFFERED), kept, OFFERED
    )
    loaded = Loaded(report, {}) if kept else None
    return Run(strategy, load, shaped, matching, loaded, 0.0, {}, {})


RUNS = [
    run(OURS, 1.0, 30), run(CLOUD, 1.0, 20), run(DEVICE, 1.0, 5), run(VULCAN, 1.0, 25),
    run(OURS, 2.0, 36), run(CLOUD, 2.0, 12), run(DEVICE, 2.0, 0), run(VULCAN, 2.0, 9),
    run(OURS, 3.0, 40), run(CLOUD, 3.0, 5), run(DEVICE, 3.0, 0), run(VULCAN, 3.0, 10),
]  # fmt: skip


def test_goodput_is_held_against_the_best_alternative_at_each_load() -> None:
    free = run(OURS, 1.0, 1, shaped=False)
    figures = {figure.name: figure for figure in goodput_figures([*RUNS, free])}
    best = figures["goodput over the best alternative beyond saturation"]
    assert best.value == pytest.approx(3.0)  # 36 to 12 at load 2; 40 to 10 at load 3
    assert best.met
    assert "load 1: 1.20; load 2: 3.00; load 3: 4.00" in best.note
    assert figures[f"goodput over {VULCAN} beyond saturation"].value == pytest.approx(4.0)
    # An alternative that keeps nothing counts as if it kept one unit of weight.
    assert figures[f"goodput over {DEVICE} beyond saturation"].value == pytest.approx(36.0)


def test_where_only_load_1_was_run_it_is_what_counts() -> None:
    figures = {figure.name: figure for figure in goodput_figures(RUNS[:4])}
    assert figures["goodput over the best alternative beyond saturation"].value == pytest.approx(1.2)


def figures_beside(cloud: float, *same: Run) -> dict[str, Figure]:
    runs = [run(OURS, 1.0, 30, 0.6), run(CLOUD, 1.0, 20, cloud), run(DEVICE, 1.0, 20), run(VULCAN, 1.0, 20)]
    return {figure.name: figure for figure in cost_figures([*runs, *same])}


def test_equal_goodput_costs_what_plans_for_just_the_same_queries_cost() -> None:
    figures = figures_beside(0.5, run(equal_to(CLOUD), 1.0, 20, 0.1), run(equal_to(VULCAN), 1.0, 20, 0.4))
    same = figures[f"cost for equal goodput, over {CLOUD}"]
    assert same.value == pytest.approx(0.2)
    assert "kept the same 20 by weight" in same.note
    assert figures[f"$/h for each unit of weight kept, over {CLOUD}"].value == pytest.approx((0.6 / 30) / (0.5 / 20))
    assert f"cost for equal goodput, over {DEVICE}" not in figures


def test_plans_that_kept_less_do_not_pass_for_equal() -> None:
    less, more = run(equal_to(CLOUD), 1.0, 16, 0.1), run(f"{equal_to(CLOUD)}, planned for more", 1.0, 20, 0.2)
    same = figures_beside(0.5, less, more)[f"cost for equal goodput, over {CLOUD}"]
    assert same.value == pytest.approx(0.4)
    assert "load 1, planned for more, which kept the same 20 by weight" in same.note
    alone = figures_beside(0.5, less)[f"cost for equal goodput, over {CLOUD}"]
    assert alone.value == pytest.approx((0.1 / 16) / (0.5 / 20))
    assert "each over the weight kept" in alone.note
    assert "16 of 20" in alone.note
    nothing = run(equal_to(CLOUD), 1.0, 0, 0.0)
    assert f"cost for equal goodput, over {CLOUD}" not in figures_beside(0.5, nothing)
