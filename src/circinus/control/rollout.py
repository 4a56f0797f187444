"""Rollout of a desired state: one apply at a time, in steps if old and new replicas do not fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circinus.control.background_task import TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.replanning.plan_rollout import ClusterCapacity, next_intermediate_state, replicas_by_kind
from circinus.serving import DesiredState, EngineStatus
from circinus.serving.lease import LeaseLostError
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Deployment


@dataclass(frozen=True)
class AppliedState:
    """State that was applied."""

    state: DesiredState
    took_s: float
    is_final: bool
    """True if the state was the target, not an intermediate step."""


class Rollout:
    """State machine of applies: the running apply, the states that may be deployed, and the backoff."""

    def __init__(
        self,
        apply: Callable[[DesiredState], Coroutine[Any, Any, None]],
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._apply, self._backoff, self._clock = apply, backoff, clock
        self._task: asyncio.Task[AppliedState] | None = None
        self._is_cancelled = False
        """True if the running apply was cancelled; no other apply starts until it is rolled back."""
        self.paused: frozenset[str] = frozenset()
        """Queries that were paused in the running rollout, or in the last one."""
        self._has_converged = True
        self._possible_states: tuple[DesiredState, ...] = ()
        """States that the engine may be running, newest first; the last one ran with certainty."""

    @property
    def busy(self) -> bool:
        """True if an apply is running."""
        return self._task is not None

    @property
    def failures(self) -> int:
        """Number of consecutive failed attempts."""
        return self._backoff.failures

    @property
    def backoff_s(self) -> float:
        """Backoff after the last failed attempt."""
        return self._backoff.backoff_s

    @property
    def possible_states(self) -> tuple[DesiredState, ...]:
        """States that the engine may be running, to be stored for the next controller."""
        return self._possible_states

    def restore(self, states: Sequence[DesiredState]) -> None:
        """Restore the states that the engine may be running from the previous controller."""
        self._possible_states = tuple(states)
        self.paused = _paused_queries(states)
        self._has_converged = not self.paused

    def is_due(self, now_s: float) -> bool:
        """Return whether the next attempt may start."""
        return self._task is None and self._backoff.is_due(now_s)

    def next_state(
        self, desired: DesiredState, status: EngineStatus, nodes: Mapping[str, int], order: Sequence[str]
    ) -> DesiredState:
        """Return the next state to apply on the way to `desired`.

        If the running state is unknown, because another process applied it, `desired` itself is returned.

        `order` has the least important query first.
        """
        running = self._running_state(status)
        if running is None or running.mode is not desired.mode:
            return desired
        if replicas_by_kind(running) == replicas_by_kind(desired):
            return desired
        return next_intermediate_state(running, desired, ClusterCapacity(desired.infrastructure, nodes), order)

    def remember(self, state: DesiredState, status: EngineStatus) -> bool:
        """Record that a state is about to be applied; return whether the set of possible states changed.

        If the running state is none of the recorded ones, both the last confirmed and the last attempted state may
        return.
        """
        previous, running = self._possible_states, self._running_state(status)
        may_run = (*previous[:1], *previous[1:][-1:]) if running is None else (running,)
        self._possible_states = (state, *(other for other in may_run if other != state))
        return self._possible_states != previous

    def start(self, state: DesiredState, *, is_final: bool) -> None:
        """Start applying the target state, or an intermediate step."""
        before = frozenset[str]() if self._has_converged else self.paused
        self.paused, self._has_converged = before | _paused_queries([state]), False
        self._task = asyncio.create_task(self._run_apply(state, is_final))

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the running apply or rollback to finish, or for `timeout_s`."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)

    def poll(self, now_s: float) -> TaskSucceeded[AppliedState] | TaskFailed | None:
        """Return the result of a finished apply once, or None. An apply that was cancelled has none.

        After a failure the previous state keeps running.

        Raises:
            LeaseLostError: another controller took over.
        """
        if self._task is None or not self._task.done():
            return None
        task, self._task = self._task, None
        if self._is_cancelled:
            self._is_cancelled = False
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeaseLostError):
                raise error
            return None
        try:
            return TaskSucceeded(task.result())
        except LeaseLostError:
            raise
        # Engines raise ServingErrors; after any other failure the previous state keeps running, too.
        except (Exception, asyncio.CancelledError) as error:
            message = str(error) if str(error) else type(error).__name__
            self._backoff.record_failure(now_s)
            return TaskFailed(message)

    def mark_converged(self) -> None:
        """Reset the backoff after the target state was reached."""
        self._has_converged = True
        self._backoff.reset()

    async def _run_apply(self, state: DesiredState, is_final: bool) -> AppliedState:
        started_s = self._clock()
        await self._apply(state)
        return AppliedState(state, self._clock() - started_s, is_final)

    def _running_state(self, status: EngineStatus) -> DesiredState | None:
        """Return the recorded state that runs: the exact one, or one with equal replicas while routes are updated."""
        exact = (state for state in self._possible_states if status.state and state_fingerprint(state) == status.state)
        running = {entry.deployment: entry.target_replicas for entry in status.deployments}
        equivalent = (state for state in self._possible_states if replicas(state) == running)
        return next(exact, None) or next(equivalent, None)

    def cancel(self) -> None:
        """Cancel the running apply; the engine rolls it back, then new attempts start without backoff."""
        self._backoff.reset()
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()


def _paused_queries(states: Sequence[DesiredState]) -> frozenset[str]:
    return frozenset(route.query for state in states for route in state.routes if route.is_paused)


def replicas(state: DesiredState) -> dict[Deployment, int]:
    """Return the number of replicas by deployment."""
    return {entry.deployment: entry.replicas for entry in state.deployments}
