"""Plan files: written atomically, read back exactly, rejected when stale."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circinus.errors import OperatorError, PlanningError, StalePlanError
from circinus.estimation import NO_CORRECTIONS, Corrections
from circinus.matching.plan_set import SCHEMA_VERSION, Matching, PlanFile, ProfileCoverage
from circinus.operators import resolve, version_of
from circinus.profiling import PipelineProfile
from circinus.specification import Slos, Specification
from circinus.specification.json_dump import json_text, refuse_not_finite

if TYPE_CHECKING:
    from pydantic import TypeAdapter

KIND = "PlanSet"


def make_plan_set(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    matching: Matching,
    *,
    plan_file: Path,
    profile_store: Path,
    seed: int,
    created_at: datetime,
    planning_s: float,
    corrections: Corrections = NO_CORRECTIONS,
) -> PlanFile:
    """Return the content of a plan file.

    Args:
        specification: of the plan; its source files are stored relative to the plan file.
        profiles: pipeline name -> profile used for planning.
        matching: the plans.
        plan_file: path of the file to be written.
        profile_store: source of the profiles.
        seed: random seed for the order of data set items.
        created_at: current time.
        planning_s: duration of planning.
        corrections: applied to the profiles for planning.
    """
    folder = plan_file.parent.resolve()
    versions = {uses: version for profile in profiles.values() for uses, version in profile.code_versions.items()}
    classes = sorted({profile.hardware_class for profile in profiles.values()})
    return PlanFile(
        specification_fingerprint=specification.fingerprint(),
        parts=_parts(specification),
        files=tuple(os.path.relpath(path.resolve(), folder) for path in specification.sources or specification.files),
        code_versions=versions,
        seed=seed,
        profile_store=os.path.relpath(profile_store.resolve(), folder),
        hardware_class=", ".join(classes),
        matching=matching,
        created_at=created_at.isoformat(timespec="seconds"),
        planning_s=planning_s,
        corrections=corrections,
        slos=_slos(specification),
        coverage={name: ProfileCoverage.of(profile) for name, profile in profiles.items()},
        folder=folder,
    )


def save_plan_set(plan_set: PlanFile, path: Path) -> None:
    """Write a plan file atomically: an existing file stays until the new one is complete.

    The file names its specification and profile store relative to its folder, whatever the plan set was made for.

    Raises:
        PlanningError: the file cannot be written.
    """
    document = plan_set.moved_to(path.parent).document()
    text = json_text({"kind": KIND, **document}, indent=1, by_alias=False)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        refuse_not_finite(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise PlanningError(
            f"cannot write plan file: {error}",
            code="plan.unwritable",
            location=str(path),
            hint="Name another file with --output.",
        ) from error
    except ValueError as error:
        raise PlanningError(
            f"the plan was not written, as it contains a number that is not finite ({error})",
            code="plan.not_finite",
            location=str(path),
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load_plan_set(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        PlanningError: the file is missing, or is no plan file of this version.
    """
    from pydantic import ValidationError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanningError(
            f"cannot read plan file: {error.strerror}",
            code="plan.unreadable",
            location=str(path),
            hint="Write one with `circinus plan`.",
        ) from error
    except ValueError as error:  # no JSON, or not even text
        raise PlanningError(
            f"the plan file is not valid JSON: {error}",
            code="plan.invalid_json",
            location=str(path),
            hint="Run `circinus plan` again.",
        ) from error
    _check_kind(path, document)
    try:
        plan_set = _adapter().validate_python({name: value for name, value in document.items() if name != "kind"})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise PlanningError(
            f"the plan file is damaged: {field}: {problem['msg']}",
            code="plan.damaged",
            location=str(path),
            hint="Run `circinus plan` again.",
        ) from error
    return replace(plan_set, folder=path.parent.resolve())


def add_query(
    plan_set: PlanFile,
    specification: Specification,
    profile: PipelineProfile,
    matching: Matching,
    query: str,
    *,
    created_at: datetime,
    planning_s: float,
) -> PlanFile:
    """Return the plan set with one more query of the specification, and with its pipeline.

    Other new parts of the specification are not added.

    Args:
        plan_set: the running plans.
        specification: the current one.
        profile: of the query's pipeline.
        matching: of the running queries and the new one.
        query: its name.
        created_at: current time.
        planning_s: duration of the admission.
    """
    included = {*plan_set.parts, f"query {query}", f"pipeline {profile.pipeline}"}
    specification_part = _specification_part(specification, included)
    return replace(
        plan_set,
        specification_fingerprint=specification_part.fingerprint(),
        parts=_parts(specification_part),
        slos=_slos(specification_part),
        coverage={**plan_set.coverage, profile.pipeline: ProfileCoverage.of(profile)},
        code_versions={**plan_set.code_versions, **profile.code_versions},
        matching=matching,
        created_at=created_at.isoformat(timespec="seconds"),
        planning_s=planning_s,
    )


def require_fresh(
    plan_set: PlanFile,
    specification: Specification,
    *,
    profile_store: Path | None = None,
    new_query: str | None = None,
) -> None:
    """Check that the inputs of a plan are unchanged.

    Args:
        plan_set: the plan.
        specification: the current one.
        profile_store: path of the profile store according to the plan; by default it is not checked.
        new_query: a query to be admitted. If the plan does not serve it, the query itself may have changed; queries and
            pipelines that the plan does not contain are ignored.

    Raises:
        StalePlanError: the specification or code changed, or the profiles are missing; the message lists the changes.
    """
    if new_query is None:
        changes = _changed_parts(plan_set, specification)
    else:
        served = any(assignment.query == new_query for assignment in plan_set.matching.assignments)
        exempt = set() if served else {f"query {new_query}"}
        changes = _changes_among(plan_set, specification, plan_set.parts.keys() - exempt)
    for uses, version in plan_set.code_versions.items():
        try:
            current_version = version_of(resolve(uses, specification.module_paths))
        except OperatorError as error:
            changes.append(f"the code of {uses} cannot be loaded ({error})")
            continue
        if current_version != version:
            changes.append(f"the code of {uses} changed")
    if profile_store is not None and not profile_store.is_file():
        changes.append(f"the profile store {profile_store} is missing")
    if changes:
        only_new_queries = all(change.startswith("query ") and change.endswith(" is new") for change in changes)
        hint = "Run `circinus profile` if code changed, and `circinus plan` again."
        if only_new_queries:
            hint = "Admit them with `circinus admit`, remove them from the specification, or run `circinus plan` again."
        message = f"the plan of {plan_set.created_at} is stale: {'; '.join(changes)}"
        raise StalePlanError(message, code="plan.stale", hint=hint)


def _parts(specification: Specification) -> dict[str, str]:
    """Return the fingerprint of each document."""
    documents = {f"pipeline {name}": Specification({name: p}, None, ()) for name, p in specification.pipelines.items()}
    if specification.infrastructure is not None:
        name = specification.infrastructure.name
        documents[f"infrastructure {name}"] = Specification({}, specification.infrastructure, ())
    documents |= {f"query {query.name}": Specification({}, None, (query,)) for query in specification.queries}
    return {name: part.fingerprint() for name, part in documents.items()}


def _slos(specification: Specification) -> dict[str, Slos]:
    return {query.name: query.slos for query in specification.queries}


def _changed_parts(plan_set: PlanFile, specification: Specification) -> list[str]:
    if plan_set.specification_fingerprint == specification.fingerprint():
        return []
    changes = _changes_among(plan_set, specification, plan_set.parts.keys())
    changes += [f"{name} is new" for name in _parts(specification) if name not in plan_set.parts]
    return changes or ["the specification changed"]


def _changes_among(plan_set: PlanFile, specification: Specification, names: Collection[str]) -> list[str]:
    current, planned = (
        _parts(specification),
        {name: fingerprint for name, fingerprint in plan_set.parts.items() if name in names},
    )
    changes = [
        f"{name} changed" for name, fingerprint in planned.items() if current.get(name, fingerprint) != fingerprint
    ]
    return changes + [f"{name} is gone" for name in planned if name not in current]


def _specification_part(specification: Specification, names: Collection[str]) -> Specification:
    return replace(
        specification,
        pipelines={name: pipeline for name, pipeline in specification.pipelines.items() if f"pipeline {name}" in names},
        queries=tuple(query for query in specification.queries if f"query {query.name}" in names),
    )


def _check_kind(path: Path, document: Any) -> None:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind != KIND:
        raise PlanningError(
            f"not a plan file: kind must be {KIND}, got {kind}",
            code="plan.wrong_kind",
            location=str(path),
            hint="Write one with `circinus plan`.",
        )
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise PlanningError(
            f"the plan file is of another version of Circinus: schema version must be {SCHEMA_VERSION}, got {version}",
            code="plan.wrong_version",
            location=str(path),
            hint="Run `circinus plan` again.",
        )


@cache
def _adapter() -> TypeAdapter[PlanFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlanFile)
