"""Plans that are in force but in no plan file, kept so that a controller that is started again has them exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.control.controlled import ManagedPlans
from circinus.errors import ServingError
from circinus.estimation import Corrections
from circinus.matching import Matching, SizedDeployment
from circinus.spec import Infrastructure, Pipeline, Query, Specification
from circinus.spec.json_text import json_text

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
        raise ServingError(f"the plans that were in force cannot be read: {error}") from error
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
