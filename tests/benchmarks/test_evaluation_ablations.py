"""Each ablation leaves out the mechanism that it names, and nothing else."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from benchmarks.evaluation import counterparts as plain
from benchmarks.evaluation.ablations import ABLATIONS, AGAIN, NOTHING, figures, rows_of, section
from benchmarks.evaluation.contest import Contest
from benchmarks.evaluation.product import Product, Profiled

from circinus.matching import Matching, MatchSettings, admission, optimizer, plan_all
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import is_feasible, objective_key
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.mean_estimation import estimate_mean_scores
from circinus.planning.sampler.surrogate import Surrogate
from circinus.profiling.race import run_confidence
from circinus.specification import Deployment, MetricSpec
from random_matchings import random_instance
from small_arenas import tiny_contest

_SEED = 0
_QUICK = MatchSettings(considers_all_plans=False, divides_requests=False, fits_targets=False)


@cache
def _contest() -> Contest:
    return tiny_contest(4.0)


@cache
def _profiled() -> Profiled:
    return Product().profiled(_contest(), _SEED)


@contextmanager
def _without(mechanism: str) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, attribute, counterpart in ABLATIONS[mechanism].replacements:
            stack.enter_context(mock.patch.object(owner, attribute, counterpart))
        yield


def test_without_similarity_other_configurations_get_the_common_mean() -> None:
    space = ConfigurationSpace.of(_contest().specification.pipelines["tiny"])
    codes, rng = space.enumerate(), np.random.default_rng(0)
    measured, means = codes[:4], np.array([0.4, 0.5, 0.6, 0.9])

    def predicted() -> np.ndarray:
        return Surrogate.fit(space, measured, means, np.full(4, 1e-4)).predict(codes[rng.permutation(range(4, 9))]).mean

    assert np.ptp(predicted()) > 0.01
    with _without("plan similarity"):
        assert np.ptp(predicted()) < 1e-9
    assert np.ptp(predicted()) > 0.01


def test_unpaired_means_are_plain_and_less_certain() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.2, 30)
    scores = [np.clip(level + difficulty + rng.normal(0, 0.01, 30), 0, 1) for level in (0.4, 0.5, 0.6)]
    paired, unpaired = estimate_mean_scores(scores, 300, 1.0), plain.unpaired_means(scores, 300, 1.0)
    assert unpaired.means == pytest.approx([own.mean() for own in scores])
    assert (unpaired.variances > 4 * paired.variances).all()


def test_without_strata_items_are_all_of_one_kind() -> None:
    strata = [{"half": str(number % 2)} for number in range(40)]
    metric = MetricSpec(name="score", uses="t:score", direction="maximize")

    def kinds(population: str) -> int:
        confidence = run_confidence.RunConfidence.of_run(metric, strata, 0.05, 9, population=population)  # type: ignore[arg-type]
        return len(confidence.covariates.rows)

    assert kinds("items") == kinds("requests") == 2
    with _without("strata"):
        assert kinds("items") == kinds("requests") == 1


def test_without_early_stop_all_started_configurations_get_all_items() -> None:
    def shares(profiled: Profiled) -> list[float]:
        profile = profiled.profiles["tiny"]
        return [len(measured.items) / profile.population for measured in profile.configurations]

    assert min(shares(_profiled())) < 1
    with _without("early stop"):
        assert set(shares(Product().profiled(_contest(), _SEED))) == {1.0}


@cache
def _matching() -> Matching:
    return Product(settings=_QUICK).planned(_contest().specification, _profiled()).matching


def test_without_sharing_each_deployment_has_one_query() -> None:
    contest, profiles = plain.with_own_pipelines(_contest(), _profiled().profiles)
    separate = Product(settings=_QUICK).planned(contest.specification, Profiled(profiles, 0.0, 0)).matching

    def users(matching: Matching) -> Counter[Deployment]:
        return Counter(use.deployment for a in matching.assignments for use in a.chosen.deployments)

    assert max(users(_matching()).values()) > 1
    assert set(users(separate).values()) == {1}
    assert separate.cost_usd_per_h > _matching().cost_usd_per_h


def test_without_queueing_no_latency_has_waits_and_later_ones_do() -> None:
    def wait_s() -> float:
        plans = PlanEstimates(_contest().specification, _profiled().profiles)
        estimates = [plans.estimate_of(a.query, a.chosen.plan).estimate for a in _matching().assignments]
        return sum(stage.wait_s for estimate in estimates for stage in estimate.stages)

    before_s = wait_s()
    assert before_s > 0
    with _without("queueing"):
        assert wait_s() == 0
    assert wait_s() == before_s


def test_first_fit_is_at_most_as_good_as_the_optimum() -> None:
    worse = 0
    for seed in range(12):
        instance = random_instance(seed)
        candidates = {query.name: instance.candidates[query.name] for query in instance.queries}
        problem = build_problem(instance.queries, candidates, instance.infrastructure)
        with _without("prices"), ExitStack() as resources:
            solver = optimizer._solver(len(instance.queries), 0, time.monotonic, resources)
        first, exact = (one.solve(problem, (), 60.0).chosen for one in (solver, MilpSolver()))
        assert is_feasible(problem, first, ())
        assert objective_key(problem, first) <= objective_key(problem, exact)
        worse += objective_key(problem, first) < objective_key(problem, exact)
    assert worse


def test_without_verification_only_refused_plans_are_violated() -> None:
    matching = _matching()
    refused = matching.assignments[0].query
    with _without("verification"):
        trusted = plan_all.check_by_simulation(matching, (), None, seed=1)  # type: ignore[arg-type]
        doubted = admission.check_by_simulation(matching, (), None, unconfirmed=[refused])  # type: ignore[arg-type]
    assert not trusted.violated
    assert trusted.matching is matching
    assert set(doubted.violated) == {refused}


def test_rows_say_what_is_left_out_and_profiling_is_shared_by_planning_alone() -> None:
    planning = rows_of(_contest(), (NOTHING, "splitting"), _SEED)
    assert [row["without"] for row in planning] == [NOTHING, "splitting"]
    assert planning[0]["profiled_s"] == planning[1]["profiled_s"]
    (whole, _), (stopped,) = planning, rows_of(_contest(), ("early stop",), _SEED)
    assert stopped["profiled_s"] > whole["profiled_s"]
    assert 0 < whole["goodput"] <= whole["promised"] <= whole["bound"] <= whole["offered"]


def _row(without: str, goodput: float, **changed: float) -> dict[str, object]:
    reached = {"goodput": goodput, "promised": 10.0, "served": 5, "broken": 0, "usd_per_h": 2.0, "profiled_s": 50.0}
    described = {"part": "ablations", "contest": "one", "seed": 0, "queries": 6, "without": without}
    return {**described, **reached, "touched": 3, "planning_s": 1.0, **changed}


def test_figures_are_ratios_to_the_complete_product() -> None:
    rows = [_row(NOTHING, 8.0), _row("early stop", 8.0, profiled_s=150.0), _row("sharing", 5.0, usd_per_h=4.0)]
    values = {figure.name: figure.value for figure in figures([*rows, _row(AGAIN, 10.0)])}
    assert values["goodput of a second run over that of the first, median"] == 1.25
    assert values["goodput without early stop over that with it, median"] == 1.0
    assert values["profiled seconds without early stop over those with it, median"] == 3.0
    assert values["goodput without sharing over that with it, median"] == 0.625


def test_the_section_names_what_pays_nothing_and_takes_ladders_from_their_results(tmp_path: Path) -> None:
    rows = [_row(NOTHING, 8.0), _row("early stop", 8.0, profiled_s=150.0), _row("splitting", 8.0), _row(AGAIN, 8.0)]
    days = [
        {"part": "day", "way": way, "goodput_bursts": share, "goodput_whole_day": 0.9}
        for way, share in (("ladders alone", 0.75), ("plans as they are", 0.25))
    ]
    serving = tmp_path / "serving.json"
    serving.write_text(json.dumps({"rows": days}), encoding="utf-8")
    text = section(rows, serving)
    assert "worse without it: splitting." in text
    assert "| early stop |" in text
    assert "75% of the goodput in half hours with bursts (25% without)" in text
    assert section([], serving) == ""
