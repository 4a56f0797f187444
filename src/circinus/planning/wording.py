"""Saying why an estimate does not promise an objective."""

from __future__ import annotations

from circinus.estimation import Estimate
from circinus.spec import Slos


def duration(seconds: float) -> str:
    """`1.21 s`, `83.4 ms`."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def violations_in_words(estimate: Estimate, slos: Slos) -> str:
    """What `estimate` promises beside each objective of `slos` that it does not promise to meet."""
    parts = []
    for name in estimate.violations(slos):
        if name == "latency" and slos.latency is not None:
            value, upper = duration(estimate.latency_s.value), duration(estimate.latency_s.upper)
            limit = duration(slos.latency.limit_s)
            parts.append(f"p{estimate.percentile:g} {value} (at most {upper}) > {limit}")
        if name == "accuracy" and slos.accuracy is not None:
            accuracy, threshold = estimate.accuracy, slos.accuracy.threshold
            if slos.accuracy.comparison == ">=":
                parts.append(f"accuracy {accuracy.value:.3g} (at least {accuracy.lower:.3g}) < {threshold:g}")
            else:
                parts.append(f"error {accuracy.value:.3g} (at most {accuracy.upper:.3g}) > {threshold:g}")
        if name == "cost" and slos.cost is not None:
            cost, limit = estimate.cost_usd_per_h, f"${slos.cost.limit_usd_per_h:.3g}/h"
            parts.append(f"cost ${cost.upper:.3g}/h alone (${cost.lower:.3g}/h fully shared) > {limit}")
    return "; ".join(parts)
