"""Miss rates of confidence bounds that are monitored after every item."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure, records_table
from benchmarks.profiling.empirical_bernstein import empirical_bernstein_bounds
from circinus.arrays import FloatArray
from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates, one_hot_strata
from circinus.statistics.interval import Interval

RISK = 0.05
"""Error probability of each side."""
_NORMAL_QUANTILE = 1.6449
ITEMS = 200


def coverage(runs: int, console: Console) -> PartResult:
    """Measure miss rates of confidence sequences and of an ordinary interval on populations of several shapes."""
    rows: list[dict[str, Any]] = []
    for name, (population, strata) in _populations().items():
        rng = np.random.default_rng(3)
        orders = rng.permuted(np.tile(np.arange(ITEMS), (runs, 1)), axis=1)
        scores, mean = population[orders], float(population.mean())
        seen = scores[:, : ITEMS - 1]  # bounds only tighten, so the last ones include all earlier misses
        rows.append(
            {
                "part": "coverage",
                "shape": name,
                "runs": runs,
                "betting": _misses(betting_bounds(seen, ITEMS, risk=RISK), mean),
                "betting, strata": _with_strata(seen, orders, strata, mean),
                "empirical Bernstein": _misses(empirical_bernstein_bounds(seen, ITEMS, risk=RISK), mean),
                "ordinary interval": _ordinary_misses(seen, mean),
            }
        )
    console.print(records_table(rows, f"miss rate of the worse side; promised at most {RISK:g}", digits=".3f"))
    worst = {key: max(float(row[key]) for row in rows) for key in list(rows[0])[3:]}
    note = f"worst of {len(rows)} shapes, {runs} runs each, checked after every item"
    return [
        Figure(f"greatest miss rate of a side, {name}", rate, RISK if name != "ordinary interval" else None, "lower",
               "share", note if name != "ordinary interval" else f"{note}; for comparison")
        for name, rate in worst.items()
    ], rows  # fmt: skip


def _populations() -> dict[str, tuple[FloatArray, list[dict[str, str]]]]:
    rng = np.random.default_rng(7)
    stratum = np.arange(ITEMS) % 4
    plain: list[dict[str, str]] = [{"half": str(index % 2)} for index in range(ITEMS)]
    return {
        "Bernoulli near 0": ((rng.random(ITEMS) < 0.04).astype(float), plain),
        "Bernoulli near 1": ((rng.random(ITEMS) < 0.96).astype(float), plain),
        "coin": ((rng.random(ITEMS) < 0.5).astype(float), plain),
        "bimodal": (np.where(rng.random(ITEMS) < 0.7, 0.98, 0.1), plain),
        "skewed": (rng.beta(8, 0.6, ITEMS), plain),
        "correlated strata": (
            np.clip(0.95 - 0.28 * stratum + rng.normal(0, 0.08, ITEMS), 0, 1),
            [{"noise": str(level)} for level in stratum],
        ),
    }


def _with_strata(seen: FloatArray, orders: NDArray[np.int64], strata: list[dict[str, str]], mean: float) -> float:
    columns = one_hot_strata(strata)
    bounds = [
        betting_bounds(row[None], ITEMS, risk=RISK, covariates=Covariates.of(columns[order]))[0]
        for row, order in zip(seen, orders, strict=True)
    ]
    return _misses(tuple(bounds), mean)


def _misses(bounds: tuple[Interval, ...], mean: float) -> float:
    below = np.mean([b.lower > mean + 1e-9 for b in bounds])
    above = np.mean([b.upper < mean - 1e-9 for b in bounds])
    return float(max(below, above))


def _ordinary_misses(scores: FloatArray, mean: float) -> float:
    """Return the miss rate of a normal interval with finite-population correction, from two items on."""
    items = np.arange(1, scores.shape[1] + 1)
    means = np.cumsum(scores, axis=1) / items
    variances = np.maximum(np.cumsum(scores**2, axis=1) / items - means**2, 0.0)
    radii = _NORMAL_QUANTILE * np.sqrt(variances * (1 - items / ITEMS) / np.maximum(items - 1, 1))
    low = (means - radii > mean + 1e-9)[:, 1:].any(axis=1).mean()
    high = (means + radii < mean - 1e-9)[:, 1:].any(axis=1).mean()
    return float(max(low, high))
