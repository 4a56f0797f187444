"""Outcomes of faults of a Ray cluster: their requests, the time of recovery, and the figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.hardening.http_load import HttpOutcome
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure, records_table
from benchmarks.serving.node_loss_analysis import recovery_s

DEADLINE_S = 5.0
_LIMIT_S = 1.0
_GRACE_S = 3.0
"""Time beyond its deadline after which a request without an answer is silent."""
_AIM_S, _REST_AIM_S = 6.0, 8.0
"""Aims of the recovery, and of the rest, which serves all once Ray declares a node dead after 5 s."""
_MAX_REASONS = 5
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class RayFault:
    """Outcome of one fault."""

    fault: str
    lasted_s: float
    requests: int
    failed: int
    """Requests that failed with a reason."""
    cut_off: int
    """Requests whose connection was lost or refused; where they enter, nothing was struck."""
    silent: int
    failed_after: int
    """Requests without an answer that were sent after the recovery."""
    rest_s: float
    """Time from the strike until goodput is what the rest allows; the duration of the fault if it never is."""
    recovery_s: float
    """Time from the healing until goodput is what it was; the watched time if it never is."""
    statuses: Mapping[str, int]
    """Status -> number of requests, see `HttpOutcome.status`."""
    reasons: Sequence[str] = ()
    """First texts of failures, without repeats."""
    trouble: str = ""
    """Status of the engine where a replica was missing for a minute after the healing."""


def ray_fault(kind: str, outcomes: Sequence[HttpOutcome], struck_s: float, healed_s: float, until_s: float) -> RayFault:
    """Return the outcome of a fault; times count from the start of the load, which ends at `until_s`."""
    judged = [(o.scheduled_s, o.is_good(_LIMIT_S)) for o in outcomes]
    recovered_s = recovery_s(judged, healed_s, until_s)
    heard = Counter(o.status for o in outcomes if o.status >= 0 and o.answer_s <= DEADLINE_S + _GRACE_S)
    return RayFault(
        fault=kind,
        lasted_s=healed_s - struck_s,
        requests=len(outcomes),
        failed=heard.total() - heard[200] - heard[0],
        cut_off=heard[0],
        silent=len(outcomes) - heard.total(),
        failed_after=sum(o.status != 200 and o.scheduled_s >= healed_s + recovered_s for o in outcomes),
        rest_s=recovery_s(judged, struck_s, healed_s),
        recovery_s=recovered_s,
        statuses=dict(Counter(str(o.status) for o in outcomes)),
        reasons=list(dict.fromkeys(_DIGITS.sub("_", o.text)[:300] for o in outcomes if o.status != 200))[:_MAX_REASONS],
    )


def ray_result(faults: Sequence[RayFault], left: int, console: Console) -> PartResult:
    """Print a table by kind, and return figures with aims and a row for each fault.

    Args:
        faults: outcomes.
        left: number of processes left at the end.
        console: prints.
    """
    names = dict.fromkeys(fault.fault for fault in faults)
    summary = [_summary([fault for fault in faults if fault.fault == name]) for name in names]
    console.print(records_table(summary, "faults over Ray", ".3g"))
    requests = sum(fault.requests for fault in faults)
    of_requests = f"of {requests}, of which {sum(fault.failed for fault in faults)} failed with a reason"
    zeros = (
        ("silent requests", sum(fault.silent for fault in faults), "requests", of_requests),
        ("requests cut off", sum(fault.cut_off for fault in faults), "requests", of_requests),
        ("requests that failed after recovery", sum(fault.failed_after for fault in faults), "requests", of_requests),
        ("after which a replica was missing for a minute", sum(bool(fault.trouble) for fault in faults), "faults",
         f"of {len(faults)}"),
        ("processes left at the end", left, "processes", ""),
    )  # fmt: skip
    figures = [Figure("ray: struck", float(len(faults)), None, "higher", "faults")]
    figures += [Figure(f"ray: {name}", float(value), 0.0, "lower", unit, note) for name, value, unit, note in zeros]
    for line in summary:
        note = f"median of {line['faults']}; {line['failed']} of {line['requests']} requests failed with a reason"
        times = [("recovery", line["recovery_s"], _AIM_S)]
        if line["lasted_s"] > _REST_AIM_S:
            times.append(("until the rest serves", line["rest_s"], _REST_AIM_S))
        figures += [Figure(f"ray: {line['fault']}: {name}", s, aim_s, "lower", "s", note) for name, s, aim_s in times]
    return figures, [{"part": "ray", **asdict(fault)} for fault in faults]


def _summary(faults: Sequence[RayFault]) -> dict[str, Any]:
    """Return sums and medians of the faults of one kind."""
    sums = ("requests", "failed", "cut_off", "silent", "failed_after")
    medians = ("lasted_s", "rest_s", "recovery_s")
    return {
        "fault": faults[0].fault,
        "faults": len(faults),
        **{name: sum(getattr(fault, name) for fault in faults) for name in sums},
        **{name: float(median(getattr(fault, name) for fault in faults)) for name in medians},
    }
