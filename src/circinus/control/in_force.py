"""The plans that a controller goes by, and where queries stand on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.control.adopted import snapshot_from_json, snapshot_to_json
from circinus.control.controlled import ManagedPlans
from circinus.control.ladders.policy import LadderState
from circinus.control.ladders.steps import LadderController
from circinus.control.records import ControlStateStore
from circinus.errors import ServingError
from circinus.serving import DesiredState
from circinus.serving.state_file import state_fingerprint

_PLANS, _PROVEN = "plans", "proven"
"""Names of documents: plans that no plan file says, and those to go back to."""


@dataclass(eq=False)
class _Last:
    """The state that was last asked for."""

    rungs: tuple[int, ...] | None = None
    desired: DesiredState | None = None
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class ActivePlans:
    """What shall run."""

    plan_file_fingerprint: str
    """Fingerprint of what the plan file says."""
    controlled: ManagedPlans
    ladders: Mapping[str, LadderState]
    control: LadderController
    last_good: ManagedPlans | None = None
    """The last plans that passed their trial, where these are on trial."""
    _last: _Last = field(default_factory=_Last)

    @classmethod
    def of(cls, base: ManagedPlans) -> ActivePlans:
        """The plans of the plan file, every query on the plan that it got."""
        return cls(base.fingerprint, base, base.initial_ladder_states(), LadderController(base))

    def restored(self, records: ControlStateStore) -> ActivePlans | None:
        """Where an earlier controller ended; None: there was none with the same plan file.

        Times are by a clock that began anew: what was calm must prove so again.

        Raises:
            ServingError: what it kept cannot be read.
        """
        text = records.state()
        try:
            kept = {} if text is None else json.loads(text)
            if kept.get("base", kept.get("plan")) != self.plan_file_fingerprint:
                return None
            plans, proven = records.document(_PLANS), records.document(_PROVEN)
            found = self if plans is None else self._with(snapshot_from_json(plans, self.controlled))
            if kept.get("plan") == found.controlled.fingerprint:
                ladders = {name: LadderState(rung, chosen) for name, (rung, chosen) in kept["ladders"].items()}
                found = replace(found, ladders=ladders)
            return found if proven is None else replace(found, last_good=snapshot_from_json(proven, self.controlled))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServingError(f"what was decided cannot be read: {type(error).__name__}: {error}") from error

    def with_plans(
        self, controlled: ManagedPlans, base: ManagedPlans | None = None, proven: ManagedPlans | None = None
    ) -> ActivePlans:
        """Other plans; queries stay on the plans that they are on where they can.

        Args:
            controlled: the plans.
            base: what the plan file says now, if that is something else than before.
            proven: the plans to go back to.
        """
        ladders = controlled.migrate_ladder_states(self.ladders, self.controlled)
        told = self.plan_file_fingerprint if base is None else base.fingerprint
        return replace(self._with(controlled), plan_file_fingerprint=told, ladders=ladders, last_good=proven)

    def with_ladders(self, ladders: Mapping[str, LadderState]) -> ActivePlans:
        """The same plans, with queries on other rungs."""
        return replace(self, ladders=ladders)

    def desired(self) -> tuple[DesiredState, str]:
        """The state that an engine shall run, and its fingerprint."""
        rungs, last = tuple(state.rung for state in self.ladders.values()), self._last
        if last.rungs != rungs or last.desired is None:
            last.rungs, last.desired = rungs, self.controlled.desired_state(self.ladders)
            last.fingerprint = state_fingerprint(last.desired)
        return last.desired, last.fingerprint

    def checkpoint(self) -> str:
        """What must be kept at every step."""
        return json.dumps(
            {
                "base": self.plan_file_fingerprint,
                "plan": self.controlled.fingerprint,
                "ladders": {name: [state.rung, state.chosen] for name, state in self.ladders.items()},
            }
        )

    def plan_documents(self) -> Mapping[str, str | None]:
        """What must be kept when plans are adopted, or have passed their trial."""
        own = self.controlled.fingerprint == self.plan_file_fingerprint
        return {
            _PLANS: None if own else snapshot_to_json(self.controlled),
            _PROVEN: None if self.last_good is None else snapshot_to_json(self.last_good),
        }

    def _with(self, controlled: ManagedPlans) -> ActivePlans:
        control = LadderController(controlled, self.control)
        return ActivePlans(
            self.plan_file_fingerprint, controlled, controlled.initial_ladder_states(), control, self.last_good
        )
