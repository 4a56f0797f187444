"""Operators that take some time and show who answers."""

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
    """The process that answers, after some time."""
    time.sleep(seconds)
    return os.getpid()


def with_pauses(desired: DesiredState, steps: Sequence[StageSpec], cpus: float) -> DesiredState:
    """A state whose `steps` take their time, each replica with so many CPUs."""
    slow = {step.deployment for step in steps}
    return replace(
        desired,
        deployments=tuple(
            replace(found, uses="benchmarks.workloads.operators:pause", cpus=cpus)
            if found.deployment in slow
            else found
            for found in desired.deployments
        ),
        module_paths=(ROOT,),
    )
