"""Figures of runs over real links."""

from __future__ import annotations

import pytest
from benchmarks.links_inside import Loaded
from benchmarks.links_runs import EQUAL, Run, cost_figures, goodput_figures
from benchmarks.links_strategies import ALTERNATIVES, CLOUD, DEVICE, OURS, VULCAN

from circinus.matching import Matching
from circinus.serving.measurement import GeneratorLateness, LoadReport, QueryMeasurement
from circinus.spec import Slos

OFFERED = 40


def run(strategy: str, load: float, kept: int, cost: float = 1.0, *, shaped: bool = True) -> Run:
    """`OFFERED` queries of weight 1, of which so many kept their objectives; 0: nothing was deployed."""
    matching = Matching((), (), (), float(kept), float(OFFERED), cost, float(OFFERED), False, 0.0)
    queries = tuple(
        QueryMeasurement(f"q{number}", "p", 1.0, Slos(), True, requests=10, satisfied=number < kept)
        for number in range(OFFERED)
    )
    lateness = GeneratorLateness(0.0, 0.0, 0.0, late=False)
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


def test_equal_goodput_costs_what_plans_for_just_the_same_queries_cost() -> None:
    runs = [
        run(OURS, 1.0, 30, 0.6),
        *(run(name, 1.0, 20, 0.5) for name in ALTERNATIVES),
        *(run(f"{EQUAL} as {name}", 1.0, 19, 0.1) for name in (CLOUD, VULCAN)),
    ]
    figures = {figure.name: figure for figure in cost_figures(runs)}
    same = figures[f"cost for equal goodput, over {CLOUD}"]
    assert same.value == pytest.approx(0.2)
    assert "19 of 20" in same.note
    assert figures[f"$/h for each unit of weight kept, over {CLOUD}"].value == pytest.approx((0.6 / 30) / (0.5 / 20))
    assert f"cost for equal goodput, over {DEVICE}" not in figures
