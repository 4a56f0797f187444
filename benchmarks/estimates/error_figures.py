"""Errors of predicted latencies, and correctness of the SLO verdicts that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.results import Figure
from circinus.serving.loadtest.load_report import LoadReport

NEAR = 0.15
"""Relative error up to which a prediction counts as accurate."""
LIMITS: Sequence[float] = (0.6, 0.8, 1.1, 1.3, 1.6, 2.0, 2.5)
"""Latency SLOs of the verdicts, as multiples of the latency without queueing; fixed before any run."""

Row = Mapping[str, Any]


def beside_measured(
    predicted_s: float | None, without_queueing_s: float, service_s: float, report: LoadReport
) -> dict[str, Any]:
    """Compare the prediction with the measurement of the only query of a run.

    Args:
        predicted_s: predicted p95; None: a deployment or link would be overloaded.
        without_queueing_s: prediction of a planner without queueing model.
        service_s: mean sum of the profiled service times of all operators.
        report: report of the run.
    """
    query, = (query for query in report.queries if query.served)  # fmt: skip
    measured_s = query.latency_s.p95_s if query.latency_s is not None else None
    return {
        "requests": query.requests,
        "lost": query.failures + query.unanswered,
        "predicted_p95_s": predicted_s,
        "without_queueing_p95_s": without_queueing_s,
        "measured_p50_s": query.latency_s.p50_s if query.latency_s is not None else None,
        "measured_p95_s": measured_s,
        "predicted_over_measured": ratio(predicted_s, measured_s),
        "without_queueing_over_measured": ratio(without_queueing_s, measured_s),
        "verdicts_right": right_verdicts(predicted_s, measured_s, without_queueing_s),
        "verdicts_right_without_queueing": right_verdicts(without_queueing_s, measured_s, without_queueing_s),
        "verdicts": len(LIMITS),
        "service_over_profiled": sum(query.stage_s.values()) / service_s if query.stage_s else None,
        "late_p99_s": report.lateness.p99_s,
    }


def ratio(predicted_s: float | None, measured_s: float | None) -> float | None:
    """Return predicted over measured; None if one of them is infinite."""
    return None if predicted_s is None or measured_s is None else predicted_s / measured_s


def right_verdicts(predicted_s: float | None, measured_s: float | None, unit_s: float) -> int:
    """Return the number of limits for which it is predicted correctly whether they are kept.

    Args:
        predicted_s: predicted latency; None: infinite.
        measured_s: measured latency at that percentile; None: infinite.
        unit_s: unit of `LIMITS`.
    """
    limits_s = np.array(LIMITS) * unit_s
    predicted, measured = (math.inf if value is None else value for value in (predicted_s, measured_s))
    return int(np.sum((predicted <= limits_s) == (measured <= limits_s)))


def share_near(rows: Sequence[Row], ratio_of: str) -> float:
    """Return the share of rows with a ratio within `NEAR` of 1."""
    return float(np.mean([row[ratio_of] is not None and abs(row[ratio_of] - 1) <= NEAR for row in rows]))


def replay_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the figures of replayed plans."""
    plans = len({row["plan"] for row in rows})
    levels = sorted({row["level"] for row in rows})
    note = f"{plans} plans, busiest at {', '.join(f'{level:.0%}' for level in levels)}; replay"
    limits = f"whether p95 keeps {len(LIMITS)} limits, {LIMITS[0]:g} to {LIMITS[-1]:g} times that without queueing"
    is_within = [row["measured_p95_s"] is not None and row["measured_p95_s"] <= row["promised_p95_s"] for row in rows]
    figures = [
        Figure(f"engine, held-out items: p95 predicted to {NEAR:.0%}", share_near(rows, "predicted_over_measured"), 0.9,
               "higher", "of runs", note),
        Figure("engine, held-out items: right verdicts", _verdicts(rows, "verdicts_right"), 0.95, "higher",
               "of verdicts", limits),
        Figure(f"engine, profiled items: p95 predicted to {NEAR:.0%}", share_near(rows, "same_items_over_measured"),
               0.9, "higher", "of runs", "the same runs, had the items sent been profiled"),
        Figure("engine, profiled items: right verdicts", _verdicts(rows, "verdicts_right_same_items"), 0.95, "higher",
               "of verdicts", limits),
        Figure(f"engine, without queueing: p95 predicted to {NEAR:.0%}",
               share_near(rows, "without_queueing_over_measured"), None, "higher", "of runs", "service and transfers"),
        Figure("engine, without queueing: right verdicts", _verdicts(rows, "verdicts_right_without_queueing"), None,
               "higher", "of verdicts", limits),
        Figure("engine, held-out items: p95 within its promised bound", float(np.mean(is_within)), None, "higher",
               "of runs", "the bound allows for few items"),
    ]  # fmt: skip
    for level in levels:
        at = [row for row in rows if row["level"] == level]
        figures += [
            Figure(f"engine at {level:.0%}, held-out items: p95 predicted to {NEAR:.0%}",
                   share_near(at, "predicted_over_measured"), None, "higher", "of runs",
                   f"median ratio {_median(at, 'predicted_over_measured'):.2f}"),
            Figure(f"engine at {level:.0%}, profiled items: p95 predicted to {NEAR:.0%}",
                   share_near(at, "same_items_over_measured"), None, "higher", "of runs",
                   f"median ratio {_median(at, 'same_items_over_measured'):.2f}"),
            Figure(f"engine at {level:.0%}, without queueing: p95 predicted to {NEAR:.0%}",
                   share_near(at, "without_queueing_over_measured"), None, "higher", "of runs",
                   f"median ratio {_median(at, 'without_queueing_over_measured'):.2f}"),
        ]  # fmt: skip
    return [*figures, *_parts_of_the_error(rows)]


def _parts_of_the_error(rows: Sequence[Row]) -> list[Figure]:
    """Return the contributions of model, choice of items, finite runs and engine to the error."""
    parts = (
        ("formulas over simulated requests, same items", "same_items_p95_s", "same_requests_p95_s",
         "the model, and the chance of a finite run"),
        ("engine over simulated requests", "measured_p95_s", "same_requests_p95_s", "the engine, and the clocks"),
        ("formulas on planned over sent items", "predicted_p95_s", "same_items_p95_s", "the choice of items"),
    )  # fmt: skip
    figures = []
    for name, top, bottom, note in parts:
        ratios = [r for row in rows if (r := ratio(row[top], row[bottom])) is not None]
        if ratios:
            off = float(np.median(np.abs(np.array(ratios) - 1)))
            figures.append(Figure(f"median error, {name}", off, None, "lower", "of p95", note))
    return figures


def real_figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the figures of plans with computing replicas, before and after corrections from the lowest load."""
    learnt = [row for row in rows if row["level"] > min(r["level"] for r in rows)]
    note = f"{len({row['plan'] for row in rows})} plans on this machine, with whatever else it did"
    before, after = "above the lowest load, without corrections", "above the lowest load, by which they were corrected"
    slower = f"service took {_median(rows, 'service_over_profiled'):.2f} times what was profiled, in the median"
    return [
        Figure(f"computing: p95 predicted to {NEAR:.0%}", share_near(rows, "predicted_over_measured"), None, "higher",
               "of runs", f"{note}; {slower}"),
        Figure("computing: right verdicts", _verdicts(rows, "verdicts_right"), None, "higher", "of verdicts", note),
        Figure(f"computing, without queueing: p95 predicted to {NEAR:.0%}",
               share_near(rows, "without_queueing_over_measured"), None, "higher", "of runs", "service and transfers"),
        Figure("computing, without queueing: right verdicts", _verdicts(rows, "verdicts_right_without_queueing"), None,
               "higher", "of verdicts", note),
        Figure(f"computing, not corrected: p95 predicted to {NEAR:.0%}", share_near(learnt, "predicted_over_measured"),
               None, "higher", "of runs", f"{before}; median ratio {_median(learnt, 'predicted_over_measured'):.2f}"),
        Figure("computing, not corrected: right verdicts", _verdicts(learnt, "verdicts_right"), None, "higher",
               "of verdicts", before),
        Figure(f"computing, corrected: p95 predicted to {NEAR:.0%}", share_near(learnt, "corrected_over_measured"),
               None, "higher", "of runs", f"{after}; median ratio {_median(learnt, 'corrected_over_measured'):.2f}"),
        Figure("computing, corrected: right verdicts", _verdicts(learnt, "verdicts_right_corrected"), None, "higher",
               "of verdicts", after),
    ]  # fmt: skip


def _verdicts(rows: Sequence[Row], right: str) -> float:
    return sum(int(row[right]) for row in rows) / sum(int(row["verdicts"]) for row in rows)


def _median(rows: Sequence[Row], ratio_of: str) -> float:
    """Return the median ratio of all rows; a missing ratio counts as infinite."""
    return float(np.median([math.inf if row[ratio_of] is None else row[ratio_of] for row in rows]))
