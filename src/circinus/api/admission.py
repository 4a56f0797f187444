"""Admission of one more query to a running plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from circinus.api.plans import AdmissionResult, Plan
from circinus.matching import Admission, add_query, admit_query, save_plan_set

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.profiling import MeasurementBackend
    from circinus.specification import Query

_log = logging.getLogger(__name__)


def admit(
    opened: LoadedPlan,
    query: Query,
    into: Plan,
    *,
    output: Path | None,
    sources: Mapping[str, MeasurementBackend],
) -> AdmissionResult:
    """Plan one more query, and write the plan file if the query is admitted.

    Args:
        opened: running plan with its specification and profile store.
        query: query to admit.
        into: running plan.
        output: plan file to write, if any.
        sources: pipeline -> measurement backend, where it is not this machine.

    Raises:
        ProfileError: a pipeline was never profiled.
        PlanningError: the plan file cannot be written.
    """
    if query.name in into:
        present = Admission(query, into[query.name])
        return AdmissionResult(query.name, present, into, 0.0, 0.0, already_served=True)
    profiles = opened.profiles({query.pipeline}, sources)
    started = perf_counter()
    admission, matching = admit_query(opened.specification, profiles, into.matching, query.name)
    answered_s = perf_counter() - started
    _log.info("query %s is %s", query.name, "rejected" if admission.assignment is None else "admitted")
    if admission.assignment is None:
        return AdmissionResult(query.name, admission, into, 0.0, answered_s)
    file = add_query(
        into.file,
        opened.specification,
        profiles[query.pipeline],
        matching,
        query.name,
        created_at=datetime.now(UTC),
        planning_s=answered_s,
    )
    if output is not None:
        file = file.moved_to(output.parent)
        save_plan_set(file, output)
    added_usd_per_h = matching.cost_usd_per_h - into.cost_usd_per_h
    return AdmissionResult(query.name, admission, Plan(file, output), added_usd_per_h, answered_s, output)
