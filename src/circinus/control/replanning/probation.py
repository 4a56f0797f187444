"""Which plans have proved themselves, so that there is something to go back to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from circinus.control.controlled import Controlled
from circinus.control.replanning.trial import Trial, TrialSettings
from circinus.serving import EngineStatus


class Probation:
    """New plans are on trial once they are in force; the last that passed one are kept meanwhile."""

    def __init__(self, settings: TrialSettings) -> None:
        """Nothing is on trial."""
        self._settings = settings
        self._proven: Controlled | None = None
        self._trial: Trial | None = None

    def adopted(self, before: Controlled) -> None:
        """Other plans than `before` shall be brought about."""
        self._proven = self._proven or before
        self._trial = None

    def back_to(self, nodes: Mapping[str, int]) -> Controlled | None:
        """The plans to go back to, if there are any that run on so many nodes."""
        return self._proven if self._proven is not None and self._proven.runs_on(nodes) else None

    def end(self) -> None:
        """Nothing is on trial any more."""
        self._proven = self._trial = None

    def look(self, now_s: float, status: EngineStatus, now: Controlled, busier: Collection[str]) -> str:
        """Why to go back; empty: there is no reason to.

        Args:
            now_s: by a clock that never goes back.
            status: of the engine, which runs the plans.
            now: the plans.
            busier: queries whose requests come more often than was planned for.
        """
        if self._proven is None:
            return ""
        if self._trial is None:
            self._trial = Trial.begin(now_s, status, now.queries)
            return ""
        reason = self._trial.against(status, now.queries, busier, self._settings)
        if not reason and self._trial.over(now_s, self._settings):
            self.end()
        return reason
