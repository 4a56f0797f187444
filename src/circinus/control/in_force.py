"""The plans that a controller goes by, and where queries stand on them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from circinus.control.adopted import from_document, to_document
from circinus.control.controlled import Controlled
from circinus.control.ladders.policy import LadderState
from circinus.control.ladders.steps import LadderControl
from circinus.control.records import ControlRecords
from circinus.serving import DesiredState
from circinus.serving.state_file import desired_fingerprint

_PLANS = "plans"
"""Name of the document with plans that no plan file says."""


class InForce:
    """What shall run."""

    def __init__(self, base: Controlled) -> None:
        """The plans of the plan file, every query on the plan that it got."""
        self._base = base.fingerprint
        self.controlled = base
        self.ladders: dict[str, LadderState] = base.at_first()
        self.control = LadderControl(base)
        self._states: dict[tuple[int, ...], tuple[DesiredState, str]] = {}
        """Rungs -> the desired state and its fingerprint."""

    def take_up(self, records: ControlRecords) -> bool:
        """Go on where an earlier controller ended; whether there was one with the same plan file.

        Times are by a clock that began anew: what was calm must prove so again.

        Raises:
            ServingError: what it kept cannot be read.
        """
        text = records.state()
        kept = {} if text is None else json.loads(text)
        if kept.get("base", kept.get("plan")) != self._base:
            return False
        document = records.document(_PLANS)
        if document is not None:
            self._take(from_document(document, self.controlled))
        if kept.get("plan") == self.controlled.fingerprint:
            self.ladders = {name: LadderState(rung, chosen) for name, (rung, chosen) in kept["ladders"].items()}
        return True

    def adopt(self, controlled: Controlled, base: Controlled | None = None) -> None:
        """Other plans from now on; queries stay on the plans that they are on where they can.

        Args:
            controlled: the plans.
            base: what the plan file says now, if that is something else than before.
        """
        if base is not None:
            self._base = base.fingerprint
        ladders = controlled.taken_over(self.ladders, self.controlled)
        self._take(controlled)
        self.ladders = ladders

    def desired(self) -> tuple[DesiredState, str]:
        """The state that an engine shall run, and its fingerprint."""
        key = tuple(state.rung for state in self.ladders.values())
        if key not in self._states:
            desired = self.controlled.desired(self.ladders)
            self._states[key] = desired, desired_fingerprint(desired)
        return self._states[key]

    def content(self) -> str:
        """What must be kept at every step."""
        return json.dumps(
            {
                "base": self._base,
                "plan": self.controlled.fingerprint,
                "ladders": {name: [state.rung, state.chosen] for name, state in self.ladders.items()},
            }
        )

    def documents(self) -> Mapping[str, str | None]:
        """What must be kept when plans are adopted."""
        own = self.controlled.fingerprint == self._base
        return {_PLANS: None if own else to_document(self.controlled)}

    def _take(self, controlled: Controlled) -> None:
        self.control = LadderControl(controlled, self.control)
        self.controlled = controlled
        self.ladders = controlled.at_first()
        self._states = {}
