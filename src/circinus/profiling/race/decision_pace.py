"""Pace of a sampler's decisions, so that deciding costs less than measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from circinus.profiling.observer import TimeBudget
from circinus.profiling.race.sampler import DecisionTimeoutError
from circinus.profiling.settings import PROFILING

_GROWTH = 2.0
"""Expected ratio of a decision's duration to that of the one before, and minimum ratio after one that was given up."""


class DecisionPace:
    """Time that decisions took by the budget's clock, and may take.

    A decision is used until measurements have taken so long that deciding is at most a share of the time. Where
    everything left fits into the budget, the first one must leave time for a second one, which takes longer: alone it
    saves nothing. On a simulated clock decisions take no time, and each increment has its own.
    """

    def __init__(self, budget: TimeBudget) -> None:
        self._budget = budget
        self._end_s = 0.0
        self.total_s = 0.0
        self.last_s = 0.0
        """Duration of the last decision, or of the attempt."""
        self.selection_s = 0.0
        """Time of selecting steps, without decisions."""
        self._is_complete = False
        """Whether there was a decision, and the last attempt was not given up."""

    @property
    def is_paid(self) -> bool:
        """Whether measurements took long enough since the last decision."""
        share = PROFILING.decision_share
        return (self._budget.elapsed_s - self._end_s) * share >= self.last_s * (1 - share)

    @property
    def is_due(self) -> bool:
        """Whether measurements took long enough since the last decision, and the budget leaves time for another."""
        return self.is_paid and self.fits(self.limit_s(math.inf))

    @property
    def deciding_s(self) -> float:
        """Time of decisions and of selecting steps, which together may take the share."""
        return self.total_s + self.selection_s

    @property
    def reserve_s(self) -> float:
        """Seconds of the budget to leave for a last decision: none if it would take too much of the share."""
        share_s, required_s = PROFILING.decision_share * (self._budget.limit_s or 0.0), _GROWTH * self.last_s
        return required_s if required_s <= share_s - self.deciding_s else 0.0

    def fits(self, limit_s: float) -> bool:
        """Return whether another decision is expected to fit."""
        return _GROWTH * self.last_s <= limit_s

    def limit_s(self, rest_s: float, *, is_last: bool = False) -> float:
        """Return the seconds that a decision may take where measuring all that is left takes `rest_s`.

        Args:
            is_last: whether no second decision is to follow.
        """
        remaining_s = self._budget.remaining_s
        total_s = self._budget.elapsed_s + min(rest_s, remaining_s)
        limit_s = PROFILING.decision_share * total_s - self.deciding_s
        if not (is_last or self._is_complete) and rest_s < remaining_s:
            limit_s /= 1.0 + _GROWTH
        return min(remaining_s, limit_s)

    @contextmanager
    def selecting(self, sign: int = 1) -> Iterator[None]:
        """Add the time of the context, without decisions, to `selection_s`; with `sign` -1 take it out."""
        begin_s = self._budget.elapsed_s - self.total_s
        try:
            yield
        finally:
            self.selection_s += sign * (self._budget.elapsed_s - self.total_s - begin_s)

    @contextmanager
    def timed(self, limit_s: float) -> Iterator[Callable[[], None]]:
        """Time a decision; the callback raises `DecisionTimeoutError` where another part would exceed `limit_s`."""
        start_s = checked_s = self._budget.elapsed_s
        longest_s, self._is_complete = 0.0, False

        def check_time() -> None:
            nonlocal checked_s, longest_s
            longest_s, checked_s = max(longest_s, self._budget.elapsed_s - checked_s), self._budget.elapsed_s
            if checked_s + longest_s - start_s > limit_s:
                raise DecisionTimeoutError

        try:
            with suppress(DecisionTimeoutError):
                yield check_time
                self._is_complete = True
        finally:
            self._end_s = self._budget.elapsed_s
            self.last_s = self._end_s - start_s
            self.total_s += self.last_s
