"""Plan files: written whole or not at all, read back exactly, refused when stale."""

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
from circinus.matching.plan_set import SCHEMA_VERSION, Matching, PlanFile
from circinus.operators import resolve, version_of
from circinus.profiling import PipelineProfile
from circinus.specification import Specification
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
    """Everything that a plan file says.

    Args:
        specification: what was planned for; the files and folders it was read from are noted relative to the plan file.
        profiles: pipeline name -> the profile that was planned on.
        matching: what was chosen.
        plan_file: where it is going to be written.
        profile_store: where the profiles came from.
        seed: of the order in which items were measured.
        created_at: now.
        planning_s: how long planning took.
        corrections: those that the profiles were planned on with.
    """
    folder = plan_file.resolve().parent
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
    )


def save_plan_set(plan_set: PlanFile, path: Path) -> None:
    """Write a plan file; a file that was there stays as it was until the new one is complete.

    Raises:
        PlanningError: it cannot be written.
    """
    text = json_text({"kind": KIND, **vars(plan_set)}, indent=1, by_alias=False)
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
        raise PlanningError(f"{path}: cannot be written ({error}); name another file with --output") from error
    except ValueError as error:
        raise PlanningError(
            f"{path}: found a number in the plan that is not finite ({error}); nothing written"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def load_plan_set(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        PlanningError: there is none, or it is no plan file of this version.
    """
    from pydantic import ValidationError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanningError(f"{path}: cannot be read ({error.strerror}); write one with `circinus plan`") from error
    except ValueError as error:  # no JSON, or not even text
        raise PlanningError(f"{path}: found no JSON ({error}), expected a plan file; plan again") from error
    _check_kind(path, document)
    try:
        return _adapter().validate_python({name: value for name, value in document.items() if name != "kind"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PlanningError(f"{path}: {field}: {first['msg']}; the file is damaged, plan again") from error


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
    """The same with one more query of the specification, and with its pipeline.

    What else is new in the specification stays unknown to it.

    Args:
        plan_set: what ran.
        specification: as it is now.
        profile: of the query's pipeline.
        matching: of what ran and the query.
        query: its name.
        created_at: now.
        planning_s: how long the answer took.
    """
    known = {*plan_set.parts, f"query {query}", f"pipeline {profile.pipeline}"}
    part = _known_part(specification, known)
    return replace(
        plan_set,
        specification_fingerprint=part.fingerprint(),
        parts=_parts(part),
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
    """Make sure that what a plan was made from is still what there is.

    Args:
        plan_set: the plan.
        specification: as it is now.
        profile_store: where the plan says that its profiles are; by default that is not looked at.
        new_query: a query about to be let in beside the plan. Where that does not serve it, it may be another one than
            before; and there may be queries and pipelines that the plan does not know.

    Raises:
        StalePlanError: the specification or code that it names changed, or the profiles are gone; the message
            says what.
    """
    if new_query is None:
        changes = _changed_parts(plan_set, specification)
    else:
        served = any(assignment.query == new_query for assignment in plan_set.matching.assignments)
        free = set() if served else {f"query {new_query}"}
        changes = _changes_among(plan_set, specification, plan_set.parts.keys() - free)
    for uses, version in plan_set.code_versions.items():
        try:
            now = version_of(resolve(uses, specification.module_paths))
        except OperatorError as error:
            changes.append(f"the code of {uses} cannot be loaded any more ({error})")
            continue
        if now != version:
            changes.append(f"the code of {uses} changed")
    if profile_store is not None and not profile_store.is_file():
        changes.append(f"the profile store {profile_store} is gone")
    if changes:
        waiting = all(change.startswith("query ") and change.endswith(" is new") for change in changes)
        advice = "profile again if code changed, and plan again"
        if waiting:
            advice = "let them in (circinus admit), take them out of the specification, or plan all again"
        raise StalePlanError(f"the plan of {plan_set.created_at} is stale, since then {'; '.join(changes)}: {advice}")


def _parts(specification: Specification) -> dict[str, str]:
    """Fingerprints of the documents one by one."""
    alone = {f"pipeline {name}": Specification({name: p}, None, ()) for name, p in specification.pipelines.items()}
    if specification.infrastructure is not None:
        name = specification.infrastructure.name
        alone[f"infrastructure {name}"] = Specification({}, specification.infrastructure, ())
    alone |= {f"query {query.name}": Specification({}, None, (query,)) for query in specification.queries}
    return {name: part.fingerprint() for name, part in alone.items()}


def _changed_parts(plan_set: PlanFile, specification: Specification) -> list[str]:
    if plan_set.specification_fingerprint == specification.fingerprint():
        return []
    changes = _changes_among(plan_set, specification, plan_set.parts.keys())
    changes += [f"{name} is new" for name in _parts(specification) if name not in plan_set.parts]
    return changes or ["the specification changed"]


def _changes_among(plan_set: PlanFile, specification: Specification, names: Collection[str]) -> list[str]:
    now, before = _parts(specification), {name: was for name, was in plan_set.parts.items() if name in names}
    changes = [f"{name} changed" for name, was in before.items() if now.get(name, was) != was]
    return changes + [f"{name} is gone" for name in before if name not in now]


def _known_part(specification: Specification, names: Collection[str]) -> Specification:
    return replace(
        specification,
        pipelines={name: one for name, one in specification.pipelines.items() if f"pipeline {name}" in names},
        queries=tuple(query for query in specification.queries if f"query {query.name}" in names),
    )


def _check_kind(path: Path, document: Any) -> None:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind != KIND:
        raise PlanningError(f"{path}: found kind {kind}, expected {KIND} as `circinus plan` writes it")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise PlanningError(
            f"{path}: found schema version {version}, expected {SCHEMA_VERSION}; it was written by another version of "
            f"Circinus, plan again"
        )


@cache
def _adapter() -> TypeAdapter[PlanFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlanFile)
