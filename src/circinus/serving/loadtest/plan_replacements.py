"""Replacements of the plan that an engine runs, by a controller or another command, during a load test."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from circinus.errors import ServingError
from circinus.serving.engine import Engine

_POLLING_S = 0.5


@dataclass(frozen=True)
class PlanReplacement:
    """Replacement of the plan, at the first status of the engine that shows it."""

    after_s: float
    """Seconds after the start of the test."""
    time_s: float
    """Unix time."""
    previous_state: str
    """`state_fingerprint` of the plan before."""
    state: str


async def watch_replacements(engine: Engine, state: str, end: asyncio.Event) -> tuple[PlanReplacement, ...]:
    """Return the replacements until an event; an engine without an answer, or amid a change, shows none."""
    start_s, replacements, is_last = asyncio.get_running_loop().time(), list[PlanReplacement](), False
    while not is_last:
        with suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), _POLLING_S)
        is_last = end.is_set()
        with suppress(ServingError):
            current = (await engine.status()).state
            if current and current != state:
                after_s = asyncio.get_running_loop().time() - start_s
                replacements.append(PlanReplacement(after_s, time.time(), state, current))
                state = current
    return tuple(replacements)
