"""Bringing a state about: one apply at a time, step by step where there is no room for old and new at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circinus.control.backoff import Backoff
from circinus.control.replanning.plan_rollout import ClusterCapacity, next_intermediate_state, replicas_by_kind
from circinus.serving import DesiredState, EngineStatus
from circinus.serving.lease import LeaseLostError
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Deployment


@dataclass(frozen=True)
class RolloutSucceeded:
    """A state was brought about."""

    state: DesiredState
    took_s: float
    is_final: bool
    """Whether it was all that was wanted when it was begun, not a step on the way."""


@dataclass(frozen=True)
class RolloutFailed:
    """It was not; what ran before goes on."""

    reason: str
    failures: int
    """In a row."""
    pause_s: float
    """Before the next attempt."""


@dataclass(frozen=True)
class RolloutCancelled:
    """It was given up, and is undone."""


class Rollout:
    """What is being applied, what was, and when the next attempt may be made."""

    def __init__(
        self,
        apply: Callable[[DesiredState], Coroutine[Any, Any, None]],
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        """Nothing is applied.

        Args:
            apply: brings a state about or raises.
            backoff: between attempts.
            clock: seconds that never go back.
        """
        self._apply, self._backoff, self._clock = apply, backoff, clock
        self._task: asyncio.Task[RolloutSucceeded] | None = None
        self._given_up = False
        """Whether what is being applied is not wanted any more: nothing else is before that is undone."""
        self._known: tuple[DesiredState, ...] = ()
        """States of which the engine may run one, the last one first, the one that surely ran last."""

    @property
    def busy(self) -> bool:
        """Whether something is being applied."""
        return self._task is not None

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._backoff.failures

    @property
    def possible_states(self) -> tuple[DesiredState, ...]:
        """States of which the engine may run one, for the controller after this one."""
        return self._known

    def restore(self, known: Sequence[DesiredState]) -> None:
        """States of which the engine may run one, as an earlier controller knew them."""
        self._known = tuple(known)

    def is_due(self, now_s: float) -> bool:
        """Whether it is time for an attempt."""
        return self._task is None and self._backoff.is_due(now_s)

    def next_state(
        self, desired: DesiredState, status: EngineStatus, nodes: Mapping[str, int], order: Sequence[str]
    ) -> DesiredState:
        """What to apply on the way from what runs; all at once where that is not known, as somebody else applied it.

        Args:
            desired: what shall run in the end.
            status: what runs.
            nodes: pool -> nodes that live.
            order: queries, the least important first.
        """
        before = self._running(status)
        if before is None or before.mode is not desired.mode:
            return desired
        if replicas_by_kind(before) == replicas_by_kind(desired):
            return desired
        return next_intermediate_state(before, desired, ClusterCapacity(desired.infrastructure, nodes), order)

    def remember(self, state: DesiredState, status: EngineStatus) -> bool:
        """A state is about to be applied while something runs; whether others are known now than before.

        Where that is none of those known, the last that ran may come back, as may the last that was attempted.
        """
        before, runs = self._known, self._running(status)
        may_run = (*before[:1], *before[1:][-1:]) if runs is None else (runs,)
        self._known = (state, *(one for one in may_run if one != state))
        return self._known != before

    def start(self, state: DesiredState, *, whole: bool) -> None:
        """Apply a state: all that is wanted, or a step on the way."""
        self._task = asyncio.create_task(self._applied(state, whole))

    async def wait(self, patience_s: float | None = None) -> None:
        """For what is being applied or undone, at most for so long."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)

    def poll(self, now_s: float) -> RolloutSucceeded | RolloutFailed | RolloutCancelled | None:
        """What became of what was being applied, once; None: it is not known yet.

        Raises:
            LeaseLostError: another controller took over.
        """
        if self._task is None or not self._task.done():
            return None
        task, self._task = self._task, None
        if self._given_up:
            self._given_up = False
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeaseLostError):
                raise error
            return RolloutCancelled()
        try:
            return task.result()
        except LeaseLostError:
            raise
        # Engines raise ServingErrors; whatever else it is, what ran before goes on. Nobody else cancels the task.
        except (Exception, asyncio.CancelledError) as error:
            words = str(error) if str(error) else type(error).__name__
            pause_s = self._backoff.record_failure(now_s)
            return RolloutFailed(words, self._backoff.failures, pause_s)

    def mark_converged(self) -> None:
        """What shall run runs."""
        self._backoff.reset()

    async def _applied(self, state: DesiredState, whole: bool) -> RolloutSucceeded:
        began_s = self._clock()
        await self._apply(state)
        return RolloutSucceeded(state, self._clock() - began_s, whole)

    def _running(self, status: EngineStatus) -> DesiredState | None:
        """Which of those known runs: the very state, or one with these replicas where routes are being told."""
        exactly = (state for state in self._known if status.state and state_fingerprint(state) == status.state)
        runs = {found.deployment: found.replicas_wanted for found in status.deployments}
        alike = (state for state in self._known if replicas(state) == runs)
        return next(exactly, None) or next(alike, None)

    def cancel(self) -> None:
        """What is being applied is undone by the engine, however long that takes; then attempts begin anew."""
        self._backoff.reset()
        if self._task is not None and not self._given_up:
            self._given_up = True
            self._task.cancel()


def replicas(state: DesiredState) -> dict[Deployment, int]:
    """How many of each deployment."""
    return {wanted.deployment: wanted.replicas for wanted in state.deployments}
