"""Plans of the examples in mode real: predicted and measured p95 under three loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.estimates.computing import ComputingOptions
from benchmarks.estimates.local_engine import RealOptions, real_part, rows_table
from benchmarks.estimates.replay import ReplayOptions
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure

_WARM_UP_S = 10.0
_TOLERANCE = 0.15


def loads_part(plans: int, duration_s: float, state: Path, console: Console) -> PartResult:
    """Run plans whose replicas compute under three loads each; the profiles are measured first."""
    computing = ComputingOptions(duration_s, _WARM_UP_S, seed=0)
    options = RealOptions(ReplayOptions(0.0, 0.0, 1, seed=0), computing, plans=0, computed_plans=plans)
    _, rows = real_part(options, state, console)
    console.print(rows_table(rows))
    errors = np.abs([row["predicted_over_measured"] - 1.0 for row in rows])
    note = f"{len(rows)} pairs of a plan and a load"
    return [
        Figure("predicted p95 within 15 % of the measured one", float((errors <= _TOLERANCE).mean()), 0.8, "higher",
               "of plans", f"0.25 before; {note}"),
        Figure("median error of the predicted p95", float(np.median(errors)), None, "lower", "of measured", note),
    ], [row | {"part": "loads"} for row in rows]  # fmt: skip
