"""State of the controller: plans and ladder states that it currently deploys, and their persistence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans, ladders_fingerprint
from circinus.control.replanning.canary import CanaryAnalysis
from circinus.control.state_store import ControlStateStore
from circinus.errors import ServingError
from circinus.estimation import Corrections
from circinus.matching import Matching, SizedDeployment
from circinus.serving import DesiredState
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Infrastructure, Pipeline, Query, Specification
from circinus.specification.json_dump import json_text, parse_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class PlanSnapshot:
    """State of the controller that its plan file and options do not contain."""

    matching: Matching
    deployments: tuple[SizedDeployment, ...]
    fewer_nodes: Mapping[str, int]
    code_versions: Mapping[str, str]
    corrections: Corrections
    pipelines: tuple[Pipeline, ...]
    infrastructure: Infrastructure
    queries: tuple[Query, ...]


def snapshot_to_json(controlled: ManagedPlans) -> str:
    """Return plans as JSON text that `snapshot_from_json` decodes."""
    specification = controlled.specification
    snapshot = PlanSnapshot(
        matching=controlled.matching,
        deployments=controlled.deployments,
        fewer_nodes=controlled.node_overrides,
        code_versions=controlled.code_versions,
        corrections=controlled.corrections,
        pipelines=tuple(specification.pipelines.values()),
        infrastructure=specification.required_infrastructure,
        queries=specification.queries,
    )
    return json_text(vars(snapshot), indent=1, by_alias=False)


def snapshot_from_json(text: str, base: ManagedPlans) -> ManagedPlans:
    """Return the plans of a JSON document.

    Args:
        text: output of `snapshot_to_json`.
        base: plans of the plan file, with the options that the controller was started with.

    Raises:
        ServingError: the document is damaged, or another version of Circinus wrote it.
    """
    from pydantic import ValidationError

    try:
        snapshot = _adapter().validate_python(parse_json(text), by_name=True)
    except (ValidationError, ValueError) as error:
        raise ServingError(f"cannot read the stored plans: {error}", code="control.unreadable_plans") from error
    specification = Specification(
        {pipeline.name: pipeline for pipeline in snapshot.pipelines},
        snapshot.infrastructure,
        snapshot.queries,
        base.specification.module_paths,
    )
    return replace(
        base,
        matching=snapshot.matching,
        specification=specification,
        deployments=snapshot.deployments,
        node_overrides=snapshot.fewer_nodes,
        code_versions=snapshot.code_versions,
        corrections=snapshot.corrections,
    )


@cache
def _adapter() -> TypeAdapter[PlanSnapshot]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlanSnapshot)


_PLANS, _LAST_GOOD = "plans", "proven"
"""Names of the documents with replanned plans and with the plans to roll back to."""


@dataclass(frozen=True, eq=False)
class ControlState:
    """Target plans, the ladder states of their queries, and the plans to roll back to."""

    plan_file_fingerprint: str
    """Fingerprint of the plans in the plan file."""
    controlled: ManagedPlans
    ladders: Mapping[str, LadderState]
    last_good: ManagedPlans | None = None
    """Plans that last passed canary analysis, while the current plans are a canary."""
    canary: CanaryAnalysis | None = None
    """Canary analysis of the current plans; None before they are deployed."""
    is_deploying: bool = True
    """True if the current plans were not deployed yet."""

    @classmethod
    def of(cls, base: ManagedPlans) -> ControlState:
        """Return the state with the plans of the plan file, with every query on its selected configuration."""
        return cls(base.fingerprint, base, base.initial_ladder_states())

    def restored(self, records: ControlStateStore) -> ControlState | None:
        """Return the state of the previous controller of this plan file, or None if there is none.

        Times are not restored, because the clock restarts: low load must last for the dwell time again.

        Raises:
            ServingError: the stored state cannot be read.
        """
        text = records.state()
        try:
            stored = {} if text is None else parse_json(text)
            if stored.get("base", stored.get("plan")) != self.plan_file_fingerprint:
                return None
            plans, last_good = (
                None if document is None else snapshot_from_json(document, self.controlled)
                for document in (records.document(_PLANS), records.document(_LAST_GOOD))
            )
            plans = plans or self.controlled
            ladders = plans.initial_ladder_states()
            if stored.get("plan") == plans.fingerprint:
                ladders = {name: LadderState(rung, chosen) for name, (rung, chosen) in stored["ladders"].items()}
            return ControlState(self.plan_file_fingerprint, plans, ladders, last_good)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServingError(
                f"cannot read the stored decisions: {type(error).__name__}: {error}",
                code="control.unreadable_decisions",
            ) from error

    def with_plans(
        self, controlled: ManagedPlans, base: ManagedPlans | None = None, last_good: ManagedPlans | None = None
    ) -> ControlState:
        """Return the state with other plans; queries keep their current configuration where possible.

        `base` are the plans of the plan file, if the file changed; `last_good` are those to roll back to.
        """
        ladders = controlled.migrate_ladder_states(self.ladders, self.controlled)
        fingerprint = self.plan_file_fingerprint if base is None else base.fingerprint
        return ControlState(fingerprint, controlled, ladders, last_good)

    def desired(self) -> tuple[DesiredState, str]:
        """Return the desired state of the engine and its fingerprint."""
        return _desired(self.controlled, tuple((name, state.rung) for name, state in self.ladders.items()))

    def checkpoint(self) -> str:
        """Return the state to store after every step, as JSON text."""
        return json.dumps(
            {
                "base": self.plan_file_fingerprint,
                "plan": self.controlled.fingerprint,
                "ladders": {name: [state.rung, state.chosen] for name, state in self.ladders.items()},
            }
        )

    @staticmethod
    def is_of_plan(checkpoint: str | None, matching: Matching) -> bool:
        """Return whether a stored state is that of a controller that was given the plans of this matching."""
        try:
            return str(parse_json(checkpoint or "{}")["base"]).startswith(ladders_fingerprint(matching))
        except (ValueError, LookupError, TypeError):
            return False

    def plan_documents(self) -> Mapping[str, str | None]:
        """Return the documents to store when plans are adopted or have passed canary analysis."""
        unchanged = self.controlled.fingerprint == self.plan_file_fingerprint
        return {
            _PLANS: None if unchanged else snapshot_to_json(self.controlled),
            _LAST_GOOD: None if self.last_good is None else snapshot_to_json(self.last_good),
        }


@lru_cache(maxsize=4)
def _desired(controlled: ManagedPlans, rungs: tuple[tuple[str, int], ...]) -> tuple[DesiredState, str]:
    desired = controlled.desired_state({name: LadderState(rung, rung) for name, rung in rungs})
    return desired, state_fingerprint(desired)
