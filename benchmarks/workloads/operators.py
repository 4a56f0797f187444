"""Operators that sleep and return the id of their process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circinus.operators import operator
from circinus.serving import DesiredState
from circinus.testing.desired_states import StageSpec

ROOT = Path(__file__).parent.parent.parent


@operator
def pause(value: Any, *, seconds: float) -> int:
    """Sleep, and return the id of the process."""
    time.sleep(seconds)
    return os.getpid()


def with_pauses(desired: DesiredState, steps: Sequence[StageSpec], cpus: float) -> DesiredState:
    """Return a state whose `steps` sleep, each replica with `cpus` CPUs."""
    slow = {step.deployment for step in steps}
    return replace(
        desired,
        deployments=tuple(
            replace(deployment, uses="benchmarks.workloads.operators:pause", cpus=cpus)
            if deployment.deployment in slow
            else deployment
            for deployment in desired.deployments
        ),
        module_paths=(ROOT,),
    )
