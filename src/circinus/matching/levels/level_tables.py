"""Tables of waits, levels and their combinations, cached over the programmes of a planner."""

from __future__ import annotations

from circinus.arrays import IntArray
from circinus.estimation import DeploymentUse
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.estimation.percentiles import ScenarioGrid
from circinus.estimation.traffic import RequestStream
from circinus.matching.levels.catalogue import PlanOption
from circinus.matching.levels.level_vectors import loosest_levels
from circinus.matching.levels.stations import StationLevels, WaitTable
from circinus.specification import DirectedLink

_STEPS = (4, 2)
"""Steps in which waits halve from level to level, by the greatest number of stages of a plan less one; else 1."""


class LevelTables:
    """Tables of waits and grids of levels, cached over programmes."""

    def __init__(self, limit: float, stages: int) -> None:
        """Begin with none.

        Args:
            limit: highest utilization.
            stages: greatest number of a plan: the more there are, the coarser are the grids.
        """
        self._limit, self._steps = limit, (*_STEPS, 1)[min(stages, len(_STEPS) + 1) - 1]
        self._tables: dict[object, WaitTable] = {}
        self._grids: dict[object, StationLevels] = {}
        self._vectors: dict[object, list[list[int]]] = {}

    def table(self, use: DeploymentUse, plan: CompiledPlan, sizes: IntArray) -> WaitTable:
        """Return the waits of requests like those of a plan's use."""
        stage, grid = next(s for s in plan.stages if s.deployment == use.deployment), plan.percentile.grid
        key = use.deployment, use.traffic, use.fill_ratios, use.batch_wait_s, sizes.tobytes(), grid
        if key not in self._tables:
            self._tables[key] = WaitTable.of(use, stage.service_s, grid, sizes, self._limit)
        return self._tables[key]

    def grid(self, table: WaitTable, around: tuple[int, float] | None) -> StationLevels:
        """Return a grid of levels of a table; see `StationLevels.on_grid`."""
        key = id(table), around
        if key not in self._grids:
            self._grids[key] = StationLevels.on_grid(table, self._steps, around)
        return self._grids[key]

    def link(
        self, link: DirectedLink, traffic: RequestStream, grid: ScenarioGrid, usable: float, around: float | None
    ) -> StationLevels:
        """Return levels of a link; see `StationLevels.of_link`."""
        key = link, traffic, grid, around
        if key not in self._grids:
            self._grids[key] = StationLevels.of_link(link, traffic, grid, usable, self._steps, around)
        return self._grids[key]

    def loosest(self, option: PlanOption, levels: list[StationLevels], links: list[DirectedLink]) -> list[list[int]]:
        """Return the loosest levels of an option, from those of its stages and then of its links."""
        key = id(option.plan), option.limit_s, tuple(map(id, levels))
        if key not in self._vectors:
            stages = len(option.plan.stages)
            of_links = dict(zip(links, levels[stages:], strict=True))
            self._vectors[key] = loosest_levels(option.plan, option.limit_s, levels[:stages], of_links).tolist()
        return self._vectors[key]
