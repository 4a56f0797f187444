"""Accuracy promises of whole profiling runs, compared with the true mean of what the items are drawn from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure, records_table
from circinus.arrays import FloatArray
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.specification import AccuracySlo, Configuration, KnobValues, MetricSpec, Slos

RISK = 0.05
ITEMS = 200
MISSING = (0.02, 0.5, 1.0, 2.0)
"""Thresholds above the true mean, in standard errors of the mean of all items."""
MEETING = (1.0, 2.0, 4.0, 8.0)
"""Thresholds below the true mean, in standard errors."""
_METRIC = MetricSpec(name="score", uses="benchmarks.promises.operators:score")
_CONFIGURATION = Configuration.of({"only": KnobValues()})


@dataclass(frozen=True)
class Shape:
    """Distribution of scores, a mixture of strata with equal shares."""

    values: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...]
    """Stratum -> probability of each value."""

    @property
    def mean(self) -> float:
        return float(np.mean([np.dot(self.values, row) for row in self.probabilities]))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean of all items."""
        squares = float(np.mean([np.dot(np.square(self.values), row) for row in self.probabilities]))
        return float(np.sqrt((squares - self.mean**2) / ITEMS))

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, list[dict[str, str]]]:
        """Draw the scores and strata of all items, in the order of measuring."""
        strata = rng.permutation(np.arange(ITEMS) % len(self.probabilities))
        scores = np.zeros(ITEMS)
        for stratum, probabilities in enumerate(self.probabilities):
            own = strata == stratum
            scores[own] = rng.choice(self.values, size=int(own.sum()), p=probabilities)
        named = [{"stratum": str(stratum)} if len(self.probabilities) > 1 else {} for stratum in strata]
        return scores, named


def _beta() -> Shape:
    values = np.random.default_rng(7).beta(8, 0.6, 1000)
    return Shape(tuple(values.tolist()), ((0.001,) * 1000,))


SHAPES: Mapping[str, Shape] = {
    "Bernoulli near 1": Shape((0.0, 1.0), ((0.04, 0.96),)),
    "coin": Shape((0.0, 1.0), ((0.5, 0.5),)),
    "beta": _beta(),
    "two points by stratum": Shape((0.1, 0.95), ((0.02, 0.98), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))),
    "ties at the threshold": Shape((0.3, 0.8, 1.0), ((0.05, 0.85, 0.1),)),
    "three values": Shape((0.0, 0.5, 1.0), ((0.1, 0.3, 0.6),)),
}


@dataclass(frozen=True)
class _Run:
    broken: bool
    """True if a threshold above the true mean was certainly met at any look."""
    broken_of_items: bool
    """True if a threshold above the mean of the items was."""
    decided_at: tuple[float, ...]
    """Items until it was certain that each of `MEETING` is met; infinite if it never was."""


def populations() -> Mapping[str, Mapping[str, Any]]:
    """Return the populations that the code has, with the arguments of a run's confidence."""
    if "population" in inspect.signature(RunConfidence.of_run).parameters:
        return {name: {"population": name} for name in ("items", "requests")}
    return {"items": {}}


def accuracy_part(runs: int, jobs: int, console: Console) -> PartResult:
    """Count broken promises in whole runs, and the items until promises are made."""
    cases = list(product(populations(), SHAPES))
    with ProcessPoolExecutor(jobs) as pool:
        rows = list(pool.map(partial(_row, runs), cases))
    console.print(records_table(rows, f"runs near thresholds; a promise is broken with probability {RISK:g} at most"))
    return [figure for population in populations() for figure in _figures(population, runs, rows)], rows


def _figures(population: str, runs: int, rows: Rows) -> list[Figure]:
    own = [row for row in rows if row["population"] == population]
    worst = max(own, key=lambda row: row["broken"])
    note = f"worst of {len(own)} shapes ({worst['shape']}), {runs} runs each, fresh items"
    is_for_requests = population == list(populations())[-1]  # code without a choice promises for all requests
    return [
        Figure(f"runs with a broken accuracy promise, population {population}", worst["broken"],
               RISK if is_for_requests else None, "lower", "of runs", note),
        Figure(f"runs wrong about their own items, population {population}",
               max(row["broken of items"] for row in own), RISK if population == "items" else None, "lower", "of runs"),
        *(
            Figure(f"promises made {k:g} standard errors from the threshold, population {population}",
                   float(np.mean([row[f"decided at {k:g}"] for row in own])), None, "higher", "of runs",
                   f"after {np.mean([row[f'items at {k:g}'] for row in own]):.0f} of {ITEMS} items, or all")
            for k in MEETING
        ),
    ]  # fmt: skip


def _row(runs: int, case: tuple[str, str]) -> dict[str, Any]:
    population, name = case
    results = [_run(SHAPES[name], population, np.random.default_rng([index, 26])) for index in range(runs)]
    decided = np.array([run.decided_at for run in results])
    return {
        "part": "accuracy",
        "population": population,
        "shape": name,
        "runs": runs,
        "broken": float(np.mean([run.broken for run in results])),
        "broken of items": float(np.mean([run.broken_of_items for run in results])),
        **{f"decided at {k:g}": float(np.isfinite(at).mean()) for k, at in zip(MEETING, decided.T, strict=True)},
        **{f"items at {k:g}": float(np.minimum(at, ITEMS).mean()) for k, at in zip(MEETING, decided.T, strict=True)},
    }


def _run(shape: Shape, population: str, rng: np.random.Generator) -> _Run:
    """Let one configuration race against thresholds until all are decided or all items are measured."""
    scores, strata = shape.draw(rng)
    limits = shape.mean + shape.standard_error * np.array([*MISSING, *(-k for k in MEETING)])
    race = _race(limits.tolist(), strata, population)
    items, broken, broken_of_items = race.checkpoints[0], False, False
    decided_at = np.full(len(MEETING), np.inf)
    while True:
        race.update_scores(_CONFIGURATION, scores[:items])
        meets = race.state.meets[0]
        broken |= bool(meets[: len(MISSING)].any())
        broken_of_items |= bool((meets & (limits > scores.mean() + 1e-9)).any())
        decided_at = np.where(meets[len(MISSING) :], np.minimum(decided_at, items), decided_at)
        step = race.next_step(_no_seconds, np.inf)
        if step is None:
            return _Run(broken, broken_of_items, tuple(decided_at.tolist()))
        items = step.target


def _race(thresholds: Sequence[float], strata: Sequence[Mapping[str, str]], population: str) -> ConfigurationRace:
    of_run: Callable[..., RunConfidence] = RunConfidence.of_run
    confidence = of_run(_METRIC, strata, RISK, 1, with_references=False, **populations()[population])
    requirements = tuple(Slos(accuracy=AccuracySlo(threshold=threshold)) for threshold in thresholds)
    slos = PipelineSlos(requirements, (1.0,) * len(requirements), RISK, latency_items=8, distribution_free_items=8)
    return ConfigurationRace([_CONFIGURATION], confidence, slos, with_references=False)


def _no_seconds(configuration: object, items: int) -> float:
    return float(items)
