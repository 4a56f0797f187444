"""The part of the workspace that sizes machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.profiling_workspace import Sources
from circinus.api.quantities import AnyPath, Duration, count, seconds
from circinus.api.reporting_workspace import ReportingWorkspace

if TYPE_CHECKING:
    from circinus.api.sizing import SizingReport


class SizingWorkspace(ReportingWorkspace):
    """Base of `Workspace` with the sizing of machines."""

    def size(
        self,
        *,
        output: AnyPath | None = None,
        max_nodes: Mapping[str, int] | None = None,
        keep: Collection[str] = (),
        quick: bool = False,
        time_limit: Duration | None = None,
        sources: Sources | None = None,
        corrections: bool = True,
        on_progress: Callable[[str], None] = lambda step: None,
    ) -> SizingReport:
        """Find the cheapest machines on which all SLOs hold, or as much weight of them as possible.

        Pools have 0 nodes up to those of the infrastructure, or from `min` to `max`, which are paid whole. Pools of the
        tier `device` stay as they are, unless `max_nodes` has them.

        Args:
            output: YAML file to write the infrastructure with the chosen numbers of nodes to, if any query is
                served; by default none.
            max_nodes: pool -> greatest number of nodes, instead of that of the infrastructure.
            keep: pools that are there already: all of their nodes run and are paid, whatever plans use.
            quick: whether to leave out what each query adds, what looser SLOs save, the curve, and machines beyond the
                allowed ones.
            time_limit: time for each plan; by default 20 s, and 0.1 s for each query beyond 40, at most 60 s.
            sources: pipeline -> measurement backend, where it is not this machine.
            corrections: whether service times observed under traffic correct the profile.
            on_progress: callback with each step that takes time.

        Raises:
            ProfileError: a pipeline was never profiled.
            PlanningError: a pool is unknown, or pinned queries cannot be served, or the file cannot be written.

        Example:
            >>> sizing = workspace.size(quick=True, max_nodes={"region": 4})
            >>> sizing.nodes["region"] <= 4
            True
        """
        from circinus.api.planning_service import corrected_profiles
        from circinus.api.sizing import SizingReport
        from circinus.matching import MatchSettings
        from circinus.matching.candidate_machines import candidate_machines
        from circinus.matching.machine_sizing import size_machines
        from circinus.matching.sufficient_machines import sufficient_machines

        limits = {pool: count(nodes, f"max_nodes[{pool!r}]") for pool, nodes in (max_nodes or {}).items()}
        machines = candidate_machines(self._code.required_infrastructure, limits, keep)
        candidates = replace(self.specification, infrastructure=machines)
        profiles, _ = corrected_profiles(candidates, self.store, seed=self.seed, sources=sources, corrected=corrections)
        settings = MatchSettings(time_limit_s=None if time_limit is None else seconds(time_limit, "time_limit"))
        found = size_machines(candidates, profiles, settings=settings, explains=not quick, progress=on_progress)
        sufficient = None
        if not quick:
            sufficient = sufficient_machines(found, profiles, settings=settings, progress=on_progress)
        sizing = SizingReport(self.specification, found, sufficient)
        return (
            sizing
            if output is None or not found.matching.assignments
            else replace(sizing, path=sizing.save(Path(output)))
        )
