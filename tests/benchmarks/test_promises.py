"""Benchmark of promises: shapes of scores, random applications, followed advice, and busy processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.harness.busy_processes import busy_processes
from benchmarks.harness.results import Figure
from benchmarks.promises import main
from benchmarks.promises.accuracy import SHAPES, accuracy_part, populations
from benchmarks.promises.advice import followed_advice
from benchmarks.promises.applications import Application, with_pool, with_query
from benchmarks.promises.caution import caution
from benchmarks.promises.incumbent import CHANGES, replanned
from benchmarks.promises.kept import on_this_machine
from benchmarks.promises.rejections import simulated_rejections
from rich.console import Console

import circinus as c
from circinus.serving.local.capacity import MachineCapacity


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application.random(0, tmp_path_factory.mktemp("promises"), queries=5)


@pytest.fixture(scope="module")
def plan(application: Application) -> c.Plan:
    plan = application.workspace().plan()
    assert plan
    assert plan.rejected
    return plan


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_draw_scores_of_their_mean(name: str) -> None:
    rng, shape = np.random.default_rng(0), SHAPES[name]
    mean = np.mean([shape.draw(rng)[0].mean() for _ in range(40)])
    assert abs(mean - shape.mean) <= 4 * shape.standard_error / 40**0.5


def test_runs_of_all_shapes_and_populations_are_counted() -> None:
    figures, rows = accuracy_part(1, 1, Console(quiet=True))
    assert len(rows) == len(SHAPES) * len(populations())
    assert all(0 <= figure.value <= 1 for figure in figures)


def test_advice_is_followed_for_each_rejected_query(application: Application, plan: c.Plan) -> None:
    followed = list(followed_advice(application, plan))
    relaxed = {name for name, rejection in plan.rejected.items() if rejection.relaxation is not None}
    assert relaxed <= {advice.query for advice in followed} <= set(plan.rejected)


def test_rejected_queries_are_simulated_unless_no_deployment_takes_them(application: Application, plan: c.Plan) -> None:
    results = list(simulated_rejections(application, plan))
    assert [rejected.query for rejected in results] == list(plan.rejected)
    assert all(rejected.composed for rejected in results if rejected.keeps)


def test_a_copy_of_a_served_query_has_plans_on_running_deployments(application: Application, plan: c.Plan) -> None:
    served = next(query for query in application.specification.queries if query.name in plan)
    copy = served.model_copy(update={"name": "copy", "rate_per_s": served.rate_per_s / 2})
    changed = replace(application, specification=with_query(application.specification, copy))
    matching = replace(plan.matching, rejections=(replace(next(iter(plan.rejected.values())), query="copy"),))
    answer = replace(plan, file=replace(plan.file, matching=matching))
    (rejected,) = simulated_rejections(changed, answer)
    assert rejected.query == "copy"
    assert rejected.composed > 0


def test_caution_compares_plans_for_the_queries_that_both_serve(application: Application, plan: c.Plan) -> None:
    compared = caution(application)
    assert compared.weight_for_requests == plan.matching.satisfied_weight
    assert compared.weight_for_items >= compared.weight_for_requests
    assert compared.queries_of_both == len(plan)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_differ_from_the_specification(change: str, application: Application, plan: c.Plan) -> None:
    changed = CHANGES[change](np.random.default_rng(1), application, plan)
    assert changed != application.specification


def test_planning_from_what_runs_serves_what_planning_afresh_does(tmp_path: Path) -> None:
    """Without a plan afresh as a candidate, a lost node costs a query that a second look adds to other plans."""
    result = replanned(126, tmp_path)
    assert result.incumbent_weight >= result.fresh_weight > 0


def test_pools_of_the_real_mode_fit_on_this_machine(application: Application) -> None:
    larger = with_pool(application.specification, "pool1", cpus=10_000.0)
    (pool,) = on_this_machine(larger).required_infrastructure.pools
    assert (pool.nodes, pool.cpus) == (1, MachineCapacity.of_this_machine().cpus)


def test_busy_processes_end_with_the_block() -> None:
    before = set(psutil.Process().children())
    with busy_processes(2):
        assert len(set(psutil.Process().children()) - before) == 2
    assert set(psutil.Process().children()) <= before


def test_figures_before_are_named_in_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "before.json"
    file.write_text('{"commit": "abc", "figures": [{"name": "share", "value": 0.25}]}', encoding="utf-8")
    monkeypatch.setattr(main, "BEFORE", file)
    part = main.with_figures_before(lambda _, __: ([Figure("share", 1.0, 1.0, "higher", ""),
                                                    Figure("new", 1.0, None, "higher", "", "note")], []))  # fmt: skip
    options = main.Options(out=None)
    figures, _ = part(options, Console(quiet=True))
    assert [figure.note for figure in figures] == ["0.25 at abc", "note"]
