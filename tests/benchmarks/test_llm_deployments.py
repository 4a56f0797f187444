"""LLM deployments: cells as published, the product's terms for them, and fair searches."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from benchmarks.baselines.deployment_search import Task, tpe_order
from benchmarks.evaluation.llm_deployments import (
    LEVELS,
    MODEL,
    OURS,
    RANDOM,
    TPE,
    UNMEASURED,
    UNTIL_HELD,
    drawn,
    figures,
    product_choice,
    rows_of,
    table,
)
from benchmarks.workloads.published.deployment_pipeline import QUERY, configurations, specification, trace
from benchmarks.workloads.published.deployments import Cell, read_cells
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder

from circinus.planning import plan_queries
from circinus.profiling import SimulatedClock, TraceBackend, profile_pipeline


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    try:
        return {cell.name: cell for cell in read_cells(traces_folder())}
    except TracesAbsentError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def cell() -> Cell:
    """Deployments of two engines, all but the widest batch of the slower one."""
    values = [v for v in product(("fast", "slow"), (1, 2, 4), (8, 16, 32)) if v != ("slow", 4, 32)]
    slower = np.array([1.0 if engine == "fast" else 1.3 for engine, _, _ in values])
    tp, batch = np.array([v[1:] for v in values], dtype=float).T
    return Cell(
        name="two engines",
        knobs={"engine": ("fast", "slow"), "tp": (1, 2, 4), "batch": (8, 16, 32)},
        values=tuple({"engine": engine, "tp": t, "batch": b} for engine, t, b in values),
        ttft_s=0.1 * slower * batch**0.5 / tp,
        tpot_s=0.02 * slower * (1 + batch / 32) / tp**0.7,
        gpus_per_stream=tp / batch,
    )


def test_an_absent_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(TracesAbsentError, match="set CIRCINUS_TRACES to the folder"):
        read_cells(tmp_path)


def test_cells_have_the_published_deployments_once(cells: dict[str, Cell]) -> None:
    assert len(cells) == 65
    assert sum(len(cell.values) for cell in cells.values()) == 2595
    for cell in cells.values():
        assert len({tuple(values.items()) for values in cell.values}) == len(cell.values) >= 10
        assert min(cell.ttft_s.min(), cell.tpot_s.min(), cell.gpu_seconds.min()) > 0
    dense = cells["Llama-3.1-8B-Instruct h100_sxm 1024/128"]
    assert dense.knobs.keys() == {"tp", "batch"}
    row = dense.values.index({"tp": 4, "batch": 8})
    assert dense.gpus_per_stream[row] == 4 / 8


def test_a_complete_measurement_finds_the_cheapest_deployment_that_holds(cell: Cell, tmp_path: Path) -> None:
    for level in LEVELS.values():
        task = drawn(cell, level, np.random.default_rng(1))
        specified = specification(cell, task.ttft_s, task.tpot_s)
        (pipeline,) = specified.pipelines.values()
        profile = profile_pipeline(
            specified,
            pipeline.name,
            tmp_path / f"{level}.sqlite",
            source=TraceBackend(trace(cell, pipeline), SimulatedClock()),
            exhaustive=True,
        )
        assert len(profile.configurations) == len(cell.values)
        plans = plan_queries(specified, {pipeline.name: profile})[QUERY].candidates
        by_cost = sorted(plans, key=lambda plan: plan.estimate.cost_usd_per_h.lower)
        best = task.cheapest(range(len(cell.values)))
        assert best is not None
        assert by_cost[0].plan.configuration == configurations(cell)[best]
        assert by_cost[0].estimate.latency_s.upper == pytest.approx(cell.tpot_s[best])


def test_the_product_measures_only_deployments_that_exist(cell: Cell) -> None:
    choice = product_choice(drawn(cell, 0.5, np.random.default_rng(1)), 0)
    assert choice.certain
    assert choice.deployment is not None
    assert choice.measured < len(cell.values)


def test_limits_hold_for_some_but_not_all_and_are_reproducible(cell: Cell) -> None:
    for level in LEVELS.values():
        first, second = (drawn(cell, level, np.random.default_rng(3)) for _ in range(2))
        assert 0 < first.feasible.sum() < len(cell.values)
        assert (first.ttft_s, first.tpot_s) == (second.ttft_s, second.tpot_s)


def test_optuna_measures_each_deployment_at_most_once(cell: Cell) -> None:
    pytest.importorskip("optuna")
    task = Task(cell, ttft_s=0.4, tpot_s=0.03)
    assert sorted(tpe_order(task, 100, 0)) == list(range(len(cell.values)))
    assert len(set(tpe_order(task, 7, 0))) == 7


def test_rows_compare_all_methods_at_equal_measurements(cell: Cell) -> None:
    pytest.importorskip("optuna")
    rows = rows_of(cell, 0)
    assert [row["method"] for row in rows[:6]] == [OURS, RANDOM, TPE, UNMEASURED, UNTIL_HELD, MODEL]
    for ours, *others in (rows[first : first + 6] for first in range(0, len(rows), 6)):
        measured = {row["method"]: row["measured"] for row in others}
        assert measured[RANDOM] == measured[TPE] == measured[MODEL] == ours["measured"]
        assert measured[UNMEASURED] == 0
    for row in rows:
        assert row["feasible"] or row["method"] in (RANDOM, TPE, UNMEASURED, MODEL)
        assert (row["cost_over_optimum"] is not None) == row["feasible"]
        assert row["right"] == (row["cost_over_optimum"] == 1.0)


def test_figures_compare_with_the_best_other_that_has_no_model() -> None:
    row = {"cell": "c", "n": 10, "measured": 4, "certain": True, "feasible": True}
    rows = [
        row | {"method": method, "right": right, "cost_over_optimum": cost}
        for method, right, cost in (
            (OURS, True, 1.0),
            (OURS, False, 1.04),
            (RANDOM, True, 1.0),
            (RANDOM, False, None),
            (TPE, False, 1.3),
            (TPE, False, 1.2),
            (MODEL, True, 1.0),
            (MODEL, True, 1.0),
        )
    ]
    by_name = {figure.name.removeprefix("LLM deployments: "): figure for figure in figures(rows)}
    assert by_name["measured until certain, median"].value == 0.4
    minus = "cheapest chosen, minus the best other's without a model at equal measurements"
    assert by_name[minus].value == 0.0
    assert by_name["cost over optimum, p90"].value == 1.04
    assert "random inf" in by_name["cost over optimum, p90"].note
    assert table(rows).row_count == 4
