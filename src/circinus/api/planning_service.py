"""Planning from what was measured, and writing the plan file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.estimation import Corrections
    from circinus.matching import Incumbent, PlanFile
    from circinus.profiling import MeasurementBackend, PipelineProfile
    from circinus.specification import Specification


@dataclass(frozen=True)
class PlanningResult:
    """A plan file that was written, and what it was made from."""

    plan_set: PlanFile
    profiles: Mapping[str, PipelineProfile]
    """Pipeline -> what was measured, corrected."""


def plan_and_save(
    specification: Specification,
    output: Path,
    store: Path,
    *,
    seed: int,
    running: Incumbent | None,
    time_limit_s: float | None = None,
    sources: Mapping[str, MeasurementBackend] | None = None,
    corrected: bool = True,
    is_superseded: Callable[[], bool] = lambda: False,
) -> PlanningResult:
    """Plan all queries on what was measured until now, and write the plan file.

    Args:
        specification: what to plan for.
        output: the plan file.
        store: the profile store.
        seed: of the order in which items were measured.
        running: what runs already; None: nothing.
        time_limit_s: for choosing among the plans of all queries.
        sources: pipeline -> where it was measured, if not here.
        corrected: whether what traffic showed since counts.
        is_superseded: whether the plan is not wanted any more by the time that it is made: then nothing is written.

    Raises:
        PlanningError: a profile is missing, numbers without meaning, or it was overtaken; the plan file that was there
            stays.
    """
    from datetime import UTC, datetime
    from time import perf_counter

    from circinus.errors import PlanningError
    from circinus.estimation import NO_CORRECTIONS
    from circinus.matching import MatchSettings, make_plan_set, plan_all_queries, save_plan_set

    profiles = load_profiles(specification, pipelines_in_use(specification), store, seed=seed, sources=sources)
    corrections = _corrections(specification, profiles, store) if corrected else NO_CORRECTIONS
    profiles = apply_corrections(corrections, profiles, specification)
    started = perf_counter()
    matching, _ = plan_all_queries(
        specification, profiles, settings=MatchSettings(time_limit_s=time_limit_s), incumbent=running
    )
    plan_set = make_plan_set(
        specification,
        profiles,
        matching,
        plan_file=output,
        profile_store=store,
        seed=seed,
        created_at=datetime.now(UTC),
        planning_s=perf_counter() - started,
        corrections=corrections,
    )
    if is_superseded():
        raise PlanningError(
            f"{output}: not written, as something else was written, or all was ended, while it was made"
        )
    save_plan_set(plan_set, output)
    return PlanningResult(plan_set, profiles)


def pipelines_in_use(specification: Specification) -> list[str]:
    """Those that queries use, in the order of the specification."""
    used = {query.pipeline for query in specification.queries}
    return [name for name in specification.pipelines if name in used]


def load_profiles(
    specification: Specification,
    pipelines: Iterable[str],
    store: Path,
    *,
    seed: int,
    sources: Mapping[str, MeasurementBackend] | None = None,
) -> Mapping[str, PipelineProfile]:
    """Pipeline -> what the store knows of it, without any corrections.

    Args:
        specification: has the pipelines.
        pipelines: which.
        store: the profile store.
        seed: of the order in which items were measured.
        sources: pipeline -> where it was measured, if not here.

    Raises:
        ProfileError: one is not known, or the store cannot be read.
        OperatorError: code of one is not found.
    """
    from circinus.planning.sampler import make_sampler
    from circinus.profiling import load_profile

    found = {}
    for name in pipelines:
        source, explorer = (sources or {}).get(name), make_sampler(specification, name)
        found[name] = load_profile(specification, name, store, seed=seed, source=source, explorer=explorer)
    return found


def apply_corrections(
    corrections: Corrections, profiles: Mapping[str, PipelineProfile], specification: Specification
) -> Mapping[str, PipelineProfile]:
    """Profiles with what traffic showed since."""
    return {name: corrections.applied_to(profile, specification.pipelines[name]) for name, profile in profiles.items()}


def _corrections(specification: Specification, profiles: Mapping[str, PipelineProfile], store: Path) -> Corrections:
    """What traffic showed until now of the operators and pools in question."""
    from datetime import UTC, datetime

    from circinus.estimation import learn_corrections
    from circinus.profiling import load_observations

    infrastructure = specification.infrastructure
    pools = () if infrastructure is None else infrastructure.pools
    learnt = learn_corrections(load_observations(store), datetime.now(UTC))
    return learnt.for_pipelines(specification.pipelines, profiles, pools)
