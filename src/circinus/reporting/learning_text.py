"""What a run of traffic taught of service times."""

from __future__ import annotations

import math

from rich.console import Group
from rich.text import Text

from circinus.profiling import ServiceTimeObservation
from circinus.serving.measurement import ServiceTimeReport


def service_time_text(learning: ServiceTimeReport, why_not_kept: str = "") -> Group:
    """A line for each deployment: the ratio that it showed, or why nothing is learnt from it.

    Args:
        learning: of a run.
        why_not_kept: why the observations are not in the profile store; empty where they are.
    """
    lines = [Text(_line(observation)) for observation in learning.observations]
    if lines:
        lines.append(Text(_use(learning.observations[0].mode, why_not_kept), style="dim"))
    lines += [
        Text(f"not learnt from {refused.deployment.name}: {refused.reason}", style="yellow")
        for refused in learning.refused
    ]
    return Group(*lines)


def _line(observation: ServiceTimeObservation) -> str:
    operator = f"{observation.pipeline}/{observation.operator}"
    knobs = f"({observation.knobs})" if observation.knobs.values else ""
    return (
        f"{operator}{knobs} on {observation.hardware_class}: service took {math.exp(observation.log_ratio):.3g} times "
        f"what the profile predicts (standard error {observation.standard_error:.1%}, {observation.requests} requests, "
        f"{observation.items} items)"
    )


def _use(mode: str, why_not_kept: str) -> str:
    if why_not_kept:
        return f"not kept: {why_not_kept}"
    if mode == "real":
        return "kept: later plans are corrected by it"
    return f"kept, but no plan is corrected by it: mode {mode} shows nothing of the hardware"
