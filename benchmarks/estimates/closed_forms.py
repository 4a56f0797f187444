"""Queues with waiting times in closed form, compared with the simulator and the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.queueing.waiting_time import erlang_c, gi_g_c_wait
from circinus.simulation.report import CONFIDENCE, percentile_interval
from circinus.statistics.student_t import student_t_quantile

_SECTIONS = 20
_DIGITS = 80
"""Precision of decimal numbers: the series of M/D/1 alternates."""
UTILIZATIONS = (0.3, 0.5, 0.7, 0.8)


@dataclass(frozen=True)
class Queue:
    """Queue with Poisson arrivals and service times of mean 1."""

    name: str
    servers: int
    scv: float
    skew: float
    """Third moment of the service time."""
    draw: Callable[[np.random.Generator, int], np.ndarray]
    """Draws (n,) service times."""
    beyond: Callable[[float, float], float]
    """P(wait > t) as a function of utilization and t."""


def queues() -> tuple[Queue, ...]:
    """Return the queues that are compared."""
    erlang = _waits_of_phases(np.array([1.0, 0.0]), np.array([[-2.0, 2.0], [0.0, -2.0]]))
    hyper = _hyperexponential(2.0)
    return (
        *(
            Queue(f"M/M/{c}", c, 1.0, 6.0, lambda rng, n: rng.exponential(1.0, n), _exponential_tail(c))
            for c in (1, 2, 4, 16)
        ),
        Queue("M/D/1", 1, 0.0, 1.0, lambda _, n: np.ones(n), _regular_tail),
        Queue("M/G/1, Erlang-2 service", 1, 0.5, 3.0, lambda rng, n: rng.gamma(2.0, 0.5, n), erlang),
        Queue("M/G/1, hyperexponential service", 1, 2.0, hyper.skew, hyper.draw, hyper.beyond),
    )


def _exponential_tail(servers: int) -> Callable[[float, float], float]:
    """Return the tail of waits in M/M/c (Cooper, Introduction to Queueing Theory, 1981)."""

    def beyond(utilization: float, t: float) -> float:
        waits = float(erlang_c(servers, servers * utilization))
        return waits * math.exp(-servers * (1 - utilization) * t)

    return beyond


def _regular_tail(utilization: float, t: float) -> float:
    """Return the tail of waits in M/D/1 (Erlang 1909, as in Cooper, Introduction to Queueing Theory, 1981)."""
    getcontext().prec = _DIGITS
    rate, time = Decimal(utilization), Decimal(t)
    total = Decimal(0)
    for k in range(math.floor(t) + 1):
        x = rate * (Decimal(k) - time)
        total += (-x).exp() * (x**k if k else Decimal(1)) / Decimal(math.factorial(k))
    return float(1 - (1 - rate) * total)


def _waits_of_phases(initial: np.ndarray, generator: np.ndarray) -> Callable[[float, float], float]:
    """Return the tail of waits in M/PH/1.

    They are phase-type: a geometric number of equilibrium services (Neuts, Matrix-Geometric Solutions in Stochastic
    Models, 1981, section 2.3).
    """
    leaving = -generator.sum(axis=1)
    equilibrium = initial @ np.linalg.inv(-generator)
    equilibrium /= equilibrium.sum()

    def beyond(utilization: float, t: float) -> float:
        waiting_generator = generator + utilization * np.outer(leaving, equilibrium)
        values, vectors = np.linalg.eig(waiting_generator * t)
        exponential = (vectors * np.exp(values)) @ np.linalg.inv(vectors)
        return float((utilization * equilibrium @ exponential).sum().real)

    return beyond


@dataclass(frozen=True)
class _Hyperexponential:
    skew: float
    draw: Callable[[np.random.Generator, int], np.ndarray]
    beyond: Callable[[float, float], float]


def _hyperexponential(scv: float) -> _Hyperexponential:
    """Return a mixture of two exponential service times with balanced means."""
    first = (1 + math.sqrt((scv - 1) / (scv + 1))) / 2
    rates = np.array([2 * first, 2 * (1 - first)])
    shares = np.array([first, 1 - first])

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.asarray(rng.exponential(1.0, n) / rates[rng.choice(2, n, p=shares)])

    return _Hyperexponential(float((6 * shares / rates**3).sum()), draw, _waits_of_phases(shares, np.diag(-rates)))


def _quantile(queue: Queue, utilization: float, share: float) -> float:
    if queue.beyond(utilization, 0.0) <= 1 - share:
        return 0.0
    low, high = 0.0, 1.0
    while queue.beyond(utilization, high) > 1 - share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if queue.beyond(utilization, middle) > 1 - share else (low, middle)
    return high


def _mean(queue: Queue, utilization: float) -> float:
    if queue.servers > 1:
        return float(erlang_c(queue.servers, queue.servers * utilization)) / (queue.servers * (1 - utilization))
    return utilization * (1 + queue.scv) / 2 / (1 - utilization)


def closed_forms(requests: int, console: Console) -> PartResult:
    """Compare all queues at all utilizations, with `requests` simulated requests each."""
    rows: list[dict[str, Any]] = []
    for number, queue in enumerate(queues()):
        for utilization in UTILIZATIONS:
            rng = np.random.default_rng([number, round(100 * utilization)])
            arrival_s = np.cumsum(rng.exponential(1 / (utilization * queue.servers), requests))
            served = serve_fcfs(Station("", queue.servers), [0.0] * queue.servers, arrival_s, queue.draw(rng, requests))
            wait_s = (served.start_s - arrival_s)[requests // 20 :]
            formula = gi_g_c_wait(queue.servers, utilization, 1.0, queue.scv, service_skew=queue.skew)
            rows += [_row(queue, utilization, what, wait_s, formula) for what in ("mean", "p95", "p99")]
    console.print(_table(rows))
    return _figures(rows, requests), rows


def _row(queue: Queue, utilization: float, what: str, wait_s: np.ndarray, formula: Any) -> dict[str, Any]:
    if what == "mean":
        exact, predicted = _mean(queue, utilization), float(formula.mean_s)
        sections = wait_s[: len(wait_s) // _SECTIONS * _SECTIONS].reshape(_SECTIONS, -1).mean(axis=1)
        value = float(sections.mean())
        quantile = student_t_quantile((1 - CONFIDENCE) / 2, _SECTIONS - 1)
        half = quantile * float(sections.std(ddof=1)) / math.sqrt(_SECTIONS)
        lower, upper = value - half, value + half
    else:
        share = int(what[1:]) / 100
        exact, predicted = _quantile(queue, utilization, share), float(formula.quantile([share])[0])
        interval = percentile_interval(wait_s, 100 * share)
        value, lower, upper = interval.value, interval.lower, interval.upper
    return {
        "part": "closed form",
        "queue": queue.name,
        "utilization": utilization,
        "what": what,
        "exact_s": exact,
        "simulated_s": value,
        "simulated_from_s": lower,
        "simulated_to_s": upper,
        "within_interval": lower <= exact <= upper,
        "formula_s": predicted,
        "formula_error": predicted / exact - 1 if exact > 0 else float(predicted > 0),
    }


def _figures(rows: list[dict[str, Any]], requests: int) -> list[Figure]:
    means = [abs(row["formula_error"]) for row in rows if row["what"] == "mean"]
    tails = [abs(row["formula_error"]) for row in rows if row["what"] != "mean"]
    within = float(np.mean([row["within_interval"] for row in rows]))
    note = f"{len(rows)} means and percentiles, {requests:,} requests each; 95 % intervals miss 5 % by themselves"
    worst = max((row for row in rows if row["what"] != "mean"), key=lambda row: abs(row["formula_error"]))
    worst_note = f"worst: {worst['queue']} at {worst['utilization']}, {worst['what']} {worst['formula_error']:+.1%}"
    return [
        Figure("closed forms within the simulator's intervals", within, 0.95, "higher", "of figures", note),
        Figure("largest error of a formula's mean", max(means), 0.02, "lower", "of the mean"),
        Figure("largest error of a formula's p95 or p99", max(tails), 0.05, "lower", "of the percentile", worst_note),
        Figure("formulas' p95 and p99 within 5 %", float(np.mean(np.array(tails) <= 0.05)), 1.0, "higher",
               "of percentiles"),
    ]  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("queue", "utilization", "", "exact", "simulated", "formula", title="Closed forms (mean service 1)")
    for row in rows:
        table.add_row(
            row["queue"], f"{row['utilization']:g}", row["what"], f"{row['exact_s']:.3f}",
            f"{row['simulated_s']:.3f} ({row['simulated_from_s']:.3f} to {row['simulated_to_s']:.3f})",
            f"{row['formula_s']:.3f} ({row['formula_error']:+.1%})",
        )  # fmt: skip
    return table
