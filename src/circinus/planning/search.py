"""Planning one query, and each of many."""

from __future__ import annotations

from collections.abc import Mapping

from circinus.planning.frontier import Frontier
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.spec import Network, Pipeline, Query, Specification


def plan_query(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    network: Network,
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> Frontier:
    """Find the frontier of `query`.

    Raises:
        PlanningError: the profile is of another pipeline, or its bounds are weaker than the query's risk asks for.
    """
    raise NotImplementedError


def plan_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> Mapping[str, Frontier]:
    """The frontier of every query of `specification`, by query name, in the order of the specification.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> what was measured of it.
        settings: how to search.

    Raises:
        PlanningError: no infrastructure, no profile of a query's pipeline, or as `plan_query`.
    """
    raise NotImplementedError
