"""The plans that a controller goes by, and where queries stand on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.control.adopted import from_document, to_document
from circinus.control.controlled import Controlled
from circinus.control.ladders.policy import LadderState
from circinus.control.ladders.steps import LadderControl
from circinus.control.records import ControlRecords
from circinus.errors import ServingError
from circinus.serving import DesiredState
from circinus.serving.state_file import desired_fingerprint

_PLANS, _PROVEN = "plans", "proven"
"""Names of documents: plans that no plan file says, and those to go back to."""


@dataclass(eq=False)
class _Last:
    """The state that was last asked for."""

    rungs: tuple[int, ...] | None = None
    desired: DesiredState | None = None
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class InForce:
    """What shall run."""

    base: str
    """Fingerprint of what the plan file says."""
    controlled: Controlled
    ladders: Mapping[str, LadderState]
    control: LadderControl
    proven: Controlled | None = None
    """The last plans that passed their trial, where these are on trial."""
    _last: _Last = field(default_factory=_Last)

    @classmethod
    def of(cls, base: Controlled) -> InForce:
        """The plans of the plan file, every query on the plan that it got."""
        return cls(base.fingerprint, base, base.at_first(), LadderControl(base))

    def taken_up(self, records: ControlRecords) -> InForce | None:
        """Where an earlier controller ended; None: there was none with the same plan file.

        Times are by a clock that began anew: what was calm must prove so again.

        Raises:
            ServingError: what it kept cannot be read.
        """
        text = records.state()
        try:
            kept = {} if text is None else json.loads(text)
            if kept.get("base", kept.get("plan")) != self.base:
                return None
            plans, proven = records.document(_PLANS), records.document(_PROVEN)
            found = self if plans is None else self._with(from_document(plans, self.controlled))
            if kept.get("plan") == found.controlled.fingerprint:
                ladders = {name: LadderState(rung, chosen) for name, (rung, chosen) in kept["ladders"].items()}
                found = replace(found, ladders=ladders)
            return found if proven is None else replace(found, proven=from_document(proven, self.controlled))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServingError(f"what was decided cannot be read: {type(error).__name__}: {error}") from error

    def adopting(
        self, controlled: Controlled, base: Controlled | None = None, proven: Controlled | None = None
    ) -> InForce:
        """Other plans; queries stay on the plans that they are on where they can.

        Args:
            controlled: the plans.
            base: what the plan file says now, if that is something else than before.
            proven: the plans to go back to.
        """
        ladders = controlled.taken_over(self.ladders, self.controlled)
        told = self.base if base is None else base.fingerprint
        return replace(self._with(controlled), base=told, ladders=ladders, proven=proven)

    def stepped(self, ladders: Mapping[str, LadderState]) -> InForce:
        """The same plans, with queries on other rungs."""
        return replace(self, ladders=ladders)

    def desired(self) -> tuple[DesiredState, str]:
        """The state that an engine shall run, and its fingerprint."""
        rungs, last = tuple(state.rung for state in self.ladders.values()), self._last
        if last.rungs != rungs or last.desired is None:
            last.rungs, last.desired = rungs, self.controlled.desired(self.ladders)
            last.fingerprint = desired_fingerprint(last.desired)
        return last.desired, last.fingerprint

    def content(self) -> str:
        """What must be kept at every step."""
        return json.dumps(
            {
                "base": self.base,
                "plan": self.controlled.fingerprint,
                "ladders": {name: [state.rung, state.chosen] for name, state in self.ladders.items()},
            }
        )

    def documents(self) -> Mapping[str, str | None]:
        """What must be kept when plans are adopted, or have passed their trial."""
        own = self.controlled.fingerprint == self.base
        return {
            _PLANS: None if own else to_document(self.controlled),
            _PROVEN: None if self.proven is None else to_document(self.proven),
        }

    def _with(self, controlled: Controlled) -> InForce:
        control = LadderControl(controlled, self.control)
        return InForce(self.base, controlled, controlled.at_first(), control, self.proven)
