"""Random plans with fan-outs, lists and branches: estimates compared with long simulations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.estimates.random_plans import PERCENTILES, is_near, plan_row
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.random.plans import RandomPlan, random_plan
from circinus.estimation import Estimator, merge_loads
from circinus.profiling import ConfigurationProfile
from circinus.specification import Pipeline, PoissonArrivals
from circinus.testing.random_fan_outs import random_fan_out, random_runs

_ITEMS = 400


def random_fan_out_plan(rng: np.random.Generator, utilization: float, rate_per_s: float) -> RandomPlan:
    """Return a random plan whose operators emit many, gather and take branches, at about a given utilization."""
    while True:
        plain = random_plan(rng, utilization, PoissonArrivals(), rate_per_s)
        if len(plain.planned.pipeline.operators) > 1:
            break
    pipeline = random_fan_out(rng, plain.planned.pipeline)
    measured = _first(plain.planned.profile, _ITEMS)
    profile = _with_means_of(random_runs(rng, pipeline, measured, most_elements=_heavy(rng)), measured)
    planned = replace(plain.planned, pipeline=pipeline, profile=profile)
    estimator = Estimator(planned.query, pipeline, profile, plain.network)
    conditions = merge_loads([estimator.candidate(planned.plan)], plain.replicas)
    return replace(plain, shape=_shape(pipeline), planned=planned, conditions=conditions)


def fan_out_plans(plans: int, requests: int, console: Console) -> PartResult:
    """Compare random plans with simulations of so many requests each."""
    rows: list[dict[str, Any]] = []
    for number in track(range(plans), "random plans", console=console, transient=True):
        rng = np.random.default_rng([27, number])
        rate_per_s = float(np.exp(rng.uniform(np.log(2.0), np.log(40.0))))
        plan = random_fan_out_plan(rng, float(rng.uniform(0.2, 0.8)), rate_per_s)
        rows.append({**plan_row(plan, "poisson", number, requests), "part": "plans"})
    figures = [
        Figure(
            f"estimate as planned with within 10 % of the simulator, p{p:g}",
            float(np.mean([is_near(row, "estimate", p) for row in rows])),
            0.9,
            "higher",
            "of plans",
            f"{len(rows)} random plans with fan-outs and branches, {requests:,} requests each",
        )
        for p in PERCENTILES
    ]
    figures += [
        Figure(
            f"formula within 10 % of the simulator, p{p:g}",
            float(np.mean([is_near(row, "formula", p) for row in rows])),
            None,
            "higher",
            "of plans",
            "all of them are doubted, and so simulated",
        )
        for p in PERCENTILES
    ]
    doubted = float(np.mean([bool(row["doubts"]) for row in rows]))
    return [*figures, Figure("plans with fan-outs whose estimate is doubted", doubted, 1.0, "higher", "of plans")], rows


def _first(profile: ConfigurationProfile, items: int) -> ConfigurationProfile:
    return replace(
        profile,
        items=profile.items[:items],
        scores=profile.scores[:items],
        input_bytes=profile.input_bytes[:items],
        operators={name: operator.of_items(slice(items)) for name, operator in profile.operators.items()},
    )


def _with_means_of(profile: ConfigurationProfile, measured: ConfigurationProfile) -> ConfigurationProfile:
    """Return the profile with the mean service times of another one, so that stations are as utilized."""
    operators = {}
    for name, operator in profile.operators.items():
        mean_s, wanted_s = float(operator.service_s.mean()), float(measured.operators[name].service_s.mean())
        operators[name] = operator.with_totals(operator.service_s * (wanted_s / mean_s if mean_s else 0.0))
    return replace(profile, operators=operators)


def _heavy(rng: np.random.Generator) -> int:
    return int(rng.choice([3, 8, 30]))


def _shape(pipeline: Pipeline) -> str:
    kinds = {
        "many": any(o.emits == "many" for o in pipeline.operators),
        "gather": any(o.gather for o in pipeline.operators),
        "branches": any(o.branches for o in pipeline.operators),
    }
    return ", ".join(kind for kind, has in kinds.items() if has)
