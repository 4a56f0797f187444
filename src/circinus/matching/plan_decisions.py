"""Decisions of a plan file: whether they still hold for a specification, and how another one is added."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.errors import StalePlanError
from circinus.matching.inline_specification import InlineSpecification
from circinus.matching.plan_code import changed_code, code_files, code_seal
from circinus.matching.plan_references import require_references
from circinus.matching.plan_set import Matching, PlanFile, ProfileCoverage, Rejection, with_weights
from circinus.specification import Query, Specification

if TYPE_CHECKING:
    from circinus.profiling import PipelineProfile


def add_rejected(matching: Matching, rejection: Rejection, specification: Specification) -> Matching:
    """Return the matching with one more rejected query, or with another reason for its rejection."""
    others = tuple(other for other in matching.rejections if other.query != rejection.query)
    weights = {query.name: query.weight for query in specification.queries}
    is_new = len(others) == len(matching.rejections)
    return with_weights(
        replace(matching, rejections=(*others, rejection)),
        specification.queries,
        specification.required_infrastructure.tenants,
        unbounded_weight=weights[rejection.query] if is_new else 0.0,
    )


def add_decision(
    plan_set: PlanFile,
    specification: Specification,
    profile: PipelineProfile,
    matching: Matching,
    query: str,
    *,
    created_at: datetime,
    planning_s: float,
) -> PlanFile:
    """Return the plan set with the decision on one more query of the specification, and with its pipeline.

    Other new parts of the specification are not added.

    Args:
        plan_set: the running plans.
        specification: the current one.
        profile: of the query's pipeline.
        matching: of the running queries, with the new one admitted or rejected.
        query: its name.
        created_at: current time.
        planning_s: duration of the admission.
    """
    current, names = parts_of(specification), (f"query {query}", f"pipeline {profile.pipeline}")
    (slos,) = (other.slos for other in specification.queries if other.name == query)
    inline = InlineSpecification.of(specification, plan_set.folder)
    kept = {uses: file for uses, file in plan_set.code_files.items() if uses not in profile.code_versions}
    return replace(
        plan_set,
        parts={**plan_set.parts, **{name: current[name] for name in names}},
        files=files_of(specification, plan_set.folder),
        inline=inline,
        slos={**plan_set.slos, query: slos},
        coverage={**plan_set.coverage, profile.pipeline: ProfileCoverage.of(profile)},
        code_versions={**plan_set.code_versions, **profile.code_versions},
        code_files={**kept, **code_files(profile.code_versions, specification, plan_set.folder)},
        seal=code_seal(specification, inline),
        matching=matching,
        created_at=created_at.isoformat(timespec="seconds"),
        planning_s=planning_s,
    )


def covered_part(
    plan_set: PlanFile, specification: Specification, *, compares_code: bool = True
) -> tuple[PlanFile, Specification]:
    """Return the part of a plan file and the part of its specification that belong together.

    The plan file is returned without rejections that do not hold any more, as the query, its pipeline or the pipeline's
    code has changed. The specification is returned without the queries that the plan file then neither serves nor
    rejects.

    Args:
        plan_set: the plan.
        specification: the current one.
        compares_code: whether files of code are compared with those that the plan was made with.
    """
    current, matching = parts_of(specification), plan_set.matching
    served, rejected = matching.served, {rejection.query for rejection in matching.rejections}

    @cache
    def holds_pipeline(name: str) -> bool:
        part = f"pipeline {name}"
        if plan_set.parts.get(part) != current[part]:
            return False
        return not (compares_code and changed_code(plan_set, specification, {name}))

    def holds(query: Query) -> bool:
        part = f"query {query.name}"
        return plan_set.parts.get(part) == current[part] and holds_pipeline(query.pipeline)

    queries = tuple(
        query for query in specification.queries if query.name in served or (query.name in rejected and holds(query))
    )
    covered = replace(specification, queries=queries)
    names = {query.name for query in queries}
    if names >= rejected:
        return plan_set, covered
    rejections = tuple(rejection for rejection in matching.rejections if rejection.query in names)
    # A weight found with more changes may count queries whose rejections are dropped.
    matching = replace(matching, rejections=rejections, weight_with_more_changes=None)
    matching = with_weights(matching, queries, specification.required_infrastructure.tenants)
    return replace(plan_set, matching=matching), covered


def require_fresh(
    plan_set: PlanFile, specification: Specification, *, profile_store: Path | None = None, location: str = ""
) -> None:
    """Check that the inputs of a plan are unchanged: the infrastructure, the served queries, their pipelines and code.

    Args:
        plan_set: the plan.
        specification: the current one; queries that the plan does not serve may be new, changed or missing.
        profile_store: path of the profile store according to the plan; by default it is not checked.
        location: plan file, for the message.

    Raises:
        StalePlanError: the specification or code changed, or the profiles are missing; the message lists the changes.
        PlanningError: the plan has names that the specification does not have.
    """
    served = plan_set.matching.served
    pipelines = {query.pipeline for query in specification.queries if query.name in served}
    changes = _changes(plan_set, specification, served, pipelines)
    changed = changed_code(plan_set, specification, pipelines)
    if profile_store is not None and not profile_store.is_file():
        changed.append(f"the profile store {profile_store} is missing")
    if changes or changed:
        message = f"the plan of {plan_set.created_at} is stale: {'; '.join((*changes, *changed))}"
        hint = "Run `circinus profile` and `circinus plan` again." if changed else "Run `circinus plan` again."
        raise StalePlanError(message, code="plan.stale", location=location, hint=hint)
    require_references(plan_set.matching, specification, location)


def files_of(specification: Specification, folder: Path) -> tuple[str, ...]:
    """Return the files and folders that a specification was read from, relative to `folder`."""
    paths = specification.sources or specification.files
    return tuple(os.path.relpath(path.resolve(), folder.resolve()) for path in paths)


def parts_of(specification: Specification) -> dict[str, str]:
    """Return the fingerprint of each document."""
    documents = {f"pipeline {name}": Specification({name: p}, None, ()) for name, p in specification.pipelines.items()}
    if specification.infrastructure is not None:
        name = specification.infrastructure.name
        documents[f"infrastructure {name}"] = Specification({}, specification.infrastructure, ())
    documents |= {f"query {query.name}": Specification({}, None, (query,)) for query in specification.queries}
    return {name: part.fingerprint() for name, part in documents.items()}


def _changes(
    plan_set: PlanFile, specification: Specification, queries: Collection[str], pipelines: Collection[str]
) -> list[str]:
    """Return the changes of some queries and pipelines, and of the infrastructure."""
    current = parts_of(specification)
    names = {*(f"query {name}" for name in queries), *(f"pipeline {name}" for name in pipelines)}
    planned = {
        name: fingerprint
        for name, fingerprint in plan_set.parts.items()
        if name in names or name.startswith("infrastructure ")
    }
    changed = [f"{name} changed" for name, part in planned.items() if current.get(name, part) != part]
    return changed + [f"{name} is gone" for name in planned if name not in current]
