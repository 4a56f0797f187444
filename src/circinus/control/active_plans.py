"""The plans that a controller goes by, and where queries stand on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.control.ladders.ladder_controller import LadderController
from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import ControlStateStore
from circinus.errors import ServingError
from circinus.estimation import Corrections
from circinus.matching import Matching, SizedDeployment
from circinus.serving import DesiredState
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Infrastructure, Pipeline, Query, Specification
from circinus.specification.json_dump import json_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class PlanSnapshot:
    """All that a controller cannot know from its plan file and its options."""

    matching: Matching
    deployments: tuple[SizedDeployment, ...]
    fewer_nodes: Mapping[str, int]
    code_versions: Mapping[str, str]
    corrections: Corrections
    pipelines: tuple[Pipeline, ...]
    infrastructure: Infrastructure
    queries: tuple[Query, ...]
    module_paths: tuple[Path, ...]


def snapshot_to_json(controlled: ManagedPlans) -> str:
    """JSON text from which `from_document` makes equal plans."""
    specification = controlled.specification
    assert specification.infrastructure is not None, "plans are made for one"
    adopted = PlanSnapshot(
        matching=controlled.matching,
        deployments=controlled.deployments,
        fewer_nodes=controlled.node_overrides,
        code_versions=controlled.code_versions,
        corrections=controlled.corrections,
        pipelines=tuple(specification.pipelines.values()),
        infrastructure=specification.infrastructure,
        queries=specification.queries,
        module_paths=specification.module_paths,
    )
    return json_text(vars(adopted), indent=1, by_alias=False)


def snapshot_from_json(text: str, base: ManagedPlans) -> ManagedPlans:
    """The plans of a document.

    Args:
        text: as `to_document` wrote it.
        base: from the plan file, with the options that the controller was started with.

    Raises:
        ServingError: it is damaged, or another version of Circinus wrote it.
    """
    from pydantic import ValidationError

    try:
        adopted = _adapter().validate_python(json.loads(text), by_name=True)
    except (ValidationError, ValueError) as error:
        raise ServingError(f"the plans in force cannot be read: {error}", code="control.unreadable_plans") from error
    specification = Specification(
        {pipeline.name: pipeline for pipeline in adopted.pipelines},
        adopted.infrastructure,
        adopted.queries,
        adopted.module_paths,
    )
    return replace(
        base,
        matching=adopted.matching,
        specification=specification,
        deployments=adopted.deployments,
        node_overrides=adopted.fewer_nodes,
        code_versions=adopted.code_versions,
        corrections=adopted.corrections,
    )


@cache
def _adapter() -> TypeAdapter[PlanSnapshot]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlanSnapshot)


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
            raise ServingError(
                f"the controller's decisions cannot be read: {type(error).__name__}: {error}",
                code="control.unreadable_decisions",
            ) from error

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
