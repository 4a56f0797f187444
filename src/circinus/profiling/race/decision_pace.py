"""Pace of a sampler's decisions, so that deciding costs less than measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from circinus.profiling.observer import TimeBudget
from circinus.profiling.race.sampler import DecisionTimeoutError
from circinus.profiling.settings import PROFILING

_FIRST_S = 1.0
"""Seconds that the share must allow before the first decision, which imports compiled models."""
_GROWTH = 1.5
"""Expected ratio of the last decision's duration to that of the one before."""


class DecisionPace:
    """Time that decisions took by the budget's clock, and may take.

    Deciding is at most a share of the time so far, so that measurements come first where decisions are long. On
    a simulated clock decisions take no time, and each increment has its own.
    """

    def __init__(self, budget: TimeBudget) -> None:
        self._budget = budget
        self.total_s = 0.0
        self.last_s = 0.0
        """Duration of the last decision, or of the attempt."""

    @property
    def limit_s(self) -> float:
        """Seconds that a decision may take now."""
        share = PROFILING.decision_share
        limit_s = (share * self._budget.elapsed_s - self.total_s) / (1 - share)
        return min(limit_s, self._budget.remaining_s)

    @property
    def reserve_s(self) -> float:
        """Seconds of the budget to leave for a last decision: none if it would take too much of the share."""
        share_s, required_s = PROFILING.decision_share * (self._budget.limit_s or 0.0), _GROWTH * self.last_s
        return required_s if required_s <= share_s - self.total_s else 0.0

    def fits(self, limit_s: float) -> bool:
        """Return whether another decision is expected to fit."""
        is_late = self._budget.elapsed_s * PROFILING.decision_share >= _FIRST_S
        return is_late and _GROWTH * self.last_s <= limit_s

    @contextmanager
    def timed(self, limit_s: float) -> Iterator[Callable[[], None]]:
        """Time a decision; the callback raises `DecisionTimeoutError` where another part would exceed `limit_s`."""
        start_s = checked_s = self._budget.elapsed_s
        longest_s = 0.0

        def check_time() -> None:
            nonlocal checked_s, longest_s
            longest_s, checked_s = max(longest_s, self._budget.elapsed_s - checked_s), self._budget.elapsed_s
            if checked_s + longest_s - start_s > limit_s:
                raise DecisionTimeoutError

        try:
            with suppress(DecisionTimeoutError):
                yield check_time
        finally:
            self.last_s = self._budget.elapsed_s - start_s
            self.total_s += self.last_s
