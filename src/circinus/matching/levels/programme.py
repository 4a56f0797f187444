"""Mixed-integer programme over levels of wait and whole replicas.

Each query takes at most one *column*: a plan with a level of wait at each of its deployments, loose enough that its
latency limit holds. Each deployment runs in at most one *mode*: a number of replicas that keeps a level up to a load.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation import DeploymentUse
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.estimation.traffic import RequestStream
from circinus.matching.levels.catalogue import Catalogue, PlanOption
from circinus.matching.levels.level_tables import LevelTables
from circinus.matching.levels.level_vectors import NEGLIGIBLE
from circinus.matching.levels.stations import StationLevels
from circinus.matching.solvers.highs import LpModel
from circinus.specification import Deployment, DirectedLink

_ALL_SIZES, _SIZE_STEP = 24, 1.12
"""Replicas up to which all numbers are modes, and the factor between larger ones."""
_MIN_UTILIZATION = 0.1
"""Utilization of a station's replicas beneath which more of them are not considered."""
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Column:
    """An option with the loosest levels that meet its limit."""

    option: int
    query: int
    stations: tuple[int, ...]
    levels: tuple[int, ...]
    loads: tuple[float, ...]


@dataclass(frozen=True)
class StationMode:
    """Replicas of a deployment that keep a level."""

    station: int
    level: int
    replicas: int
    """With spare ones."""
    capacity: float
    """Largest load in busy replicas."""
    minimum: float
    """Minimum load in busy replicas."""


class LevelProgramme:
    """Columns, modes and rows of some options of all queries."""

    def __init__(
        self,
        catalogue: Catalogue,
        active: Collection[int],
        tables: LevelTables,
        usable: Mapping[str, float],
        around: Mapping[Deployment | DirectedLink, tuple[int, float]],
    ) -> None:
        """Make the columns and modes.

        Args:
            catalogue: of options.
            active: options to consider.
            tables: of waits.
            usable: pool -> share of it that replicas can be packed on, where not all were.
            around: replicas, without spare ones, and load of deployments and links of a good answer, around which to
                look closer.
        """
        self.catalogue, self._tables, self.usable, self._around = catalogue, tables, usable, around
        self.active = active
        self.levels = dict[int, StationLevels]()
        """Of each station that an active option uses."""
        self.grids = dict[int, StationLevels]()
        """Of each station, levels that are not those of single queries."""
        self._exact = dict[int, int]()
        """Option with one stage -> its level."""
        users = defaultdict[int, list[int]](list)
        for option in active:
            for station in catalogue.uses_of[option][0]:
                users[station].append(option)
        for station in sorted(users, reverse=True):  # links first
            if station >= len(catalogue.stations):
                self._make_link_levels(station, users[station])
            else:
                self._make_levels(station, users[station])
        columns = [column for option in active for column in self._columns_of(option)]
        self.modes = list(self._modes_of(columns))
        self.columns = list(self._served(columns))
        used = {station for column in self.columns for station in column.stations}
        self.modes = [mode for mode in self.modes if mode.station in used]

    def _make_levels(self, station: int, options: list[int]) -> None:
        catalogue, of_options = self.catalogue, [self.catalogue.options[option] for option in options]
        uses = [catalogue.use(option, station) for option in options]
        table = self._tables.table(*self._reference(uses, of_options), self._sizes(station, of_options, uses))
        if all(len(option.plan.stages) == 1 and not self._waits_at_links(option) for option in of_options):
            plans, limits_s = [option.plan for option in of_options], [option.limit_s for option in of_options]
            self.levels[station], level = StationLevels.of_limits(table, plans, limits_s)
            self._exact.update(zip(options, level.tolist(), strict=True))
            self.grids[station] = self._tables.grid(table, None)
        else:
            around = self._around.get(catalogue.stations[station].deployment)
            self.grids[station] = self.levels[station] = self._tables.grid(table, around)

    def _waits_at_links(self, option: PlanOption) -> bool:
        """Return whether levels of links matter for an option."""
        links = [self.levels[self.catalogue.number_of_link[use.link]] for use in option.plan.links]
        return sum(float(its.limits_s[-1]) for its in links) > NEGLIGIBLE * option.limit_s

    def _make_link_levels(self, station: int, options: list[int]) -> None:
        catalogue = self.catalogue
        link = catalogue.links[station - len(catalogue.stations)]
        own = dict[int, RequestStream]()
        """Query -> its transfers, by the first of its options."""
        for number in options:
            option = catalogue.options[number]
            if option.query not in own:
                streams = [use.traffic for use in option.plan.links if use.link == link]
                own[option.query] = RequestStream.merged(streams)
        grid = catalogue.options[options[0]].plan.percentile.grid
        around = self._around.get(link)
        self.grids[station] = self.levels[station] = self._tables.link(
            link,
            RequestStream.merged(own.values()),
            grid,
            catalogue.infrastructure.usable_link_share,
            None if around is None else around[1],
        )

    def links_of(self, option: int) -> list[DirectedLink]:
        """Return the links of an option, in the order of its uses."""
        first, stages = len(self.catalogue.stations), len(self.catalogue.options[option].plan.stages)
        return [self.catalogue.links[station - first] for station in self.catalogue.uses_of[option][0][stages:]]

    @staticmethod
    def _reference(uses: list[DeploymentUse], options: list[PlanOption]) -> tuple[DeploymentUse, CompiledPlan]:
        """Return the use with the longest waits, and its plan; several periodic streams are a random one together."""
        slowest = max(range(len(uses)), key=lambda u: (uses[u].traffic.modulation is not None, uses[u].traffic.mean_s))
        use = uses[slowest]
        if len({option.query for option in options}) > 1 and use.traffic.jitter_s is not None:
            use = replace(use, traffic=replace(use.traffic, jitter_s=None))
        return use, options[slowest].plan

    def _sizes(self, station: int, options: list[PlanOption], uses: list[DeploymentUse]) -> IntArray:
        """Return (C,) numbers of replicas to consider, without spare ones."""
        loads = dict[int, float]()
        for option, use in zip(options, uses, strict=True):
            loads[option.query] = max(loads.get(option.query, 0.0), use.busy_replicas)
        its = self.catalogue.stations[station]
        useful = math.ceil(sum(loads.values()) / _MIN_UTILIZATION) + 2
        most = max(min(its.max_replicas - its.demand.spare_replicas, useful), 1)
        sizes = list(range(1, min(most, _ALL_SIZES) + 1))
        while sizes[-1] < most:
            sizes.append(min(math.ceil(sizes[-1] * _SIZE_STEP), most))
        return np.array(sizes, dtype=np.int64)

    def _columns_of(self, number: int) -> Iterator[Column]:
        option, (stations, loads) = self.catalogue.options[number], self.catalogue.uses_of[number]
        own = [self.levels[station] for station in stations]
        if number in self._exact:
            loosest = [len(its.capacity) - 1 for its in own[1:]]
            vectors = [[self._exact[number], *loosest]] if self._exact[number] >= 0 else []
        else:
            vectors = self._tables.loosest(option, own, self.links_of(number))
        yield from (Column(number, option.query, stations, tuple(levels), loads) for levels in vectors)

    def _modes_of(self, columns: list[Column]) -> Iterator[StationMode]:
        """Yield the modes that may be the best for some of the columns."""
        loads = defaultdict[tuple[int, int], dict[int, float]](dict)
        """Station and level -> query -> largest load that may be there."""
        used = set[tuple[int, int]]()
        for column in columns:
            for station, level, load in zip(column.stations, column.levels, column.loads, strict=True):
                used.add((station, level))
                for stricter in range(level + 1):
                    own = loads[station, stricter]
                    own[column.query] = max(own.get(column.query, 0.0), load)
        best = dict[tuple[int, int], float]()
        for station, level in sorted(used):
            levels, own = self.levels[station], loads[station, level]
            smallest, total = min(own.values()), sum(own.values())
            spare = int(self.catalogue.spare[station]) if station < len(self.catalogue.stations) else 0
            for position, size in enumerate(levels.sizes.tolist()):
                capacity, minimum = float(levels.capacity[level, position]), float(levels.minimum[level, position])
                if capacity < smallest * (1 - _ROUNDING) or capacity <= best.get((station, size), 0.0):
                    continue
                best[station, size] = capacity
                yield StationMode(station, level, size + spare, capacity, minimum)
                if capacity >= total:
                    break

    def _served(self, columns: list[Column]) -> Iterator[Column]:
        """Yield the columns that have a mode at each of their stations."""
        most = defaultdict[int, dict[int, float]](dict)
        """Station -> level -> largest capacity."""
        for mode in self.modes:
            most[mode.station][mode.level] = max(most[mode.station].get(mode.level, 0.0), mode.capacity)
        for column in columns:
            if all(
                any(k <= level and load * (1 - _ROUNDING) <= capacity for k, capacity in most[station].items())
                for station, level, load in zip(column.stations, column.levels, column.loads, strict=True)
            ):
                yield column

    @property
    def elastic(self) -> list[int]:
        """Pools of which the number of nodes is chosen."""
        pools = self.catalogue.infrastructure.pools
        return [number for number, pool in enumerate(pools) if pool.base_nodes < pool.nodes]

    @property
    def size(self) -> int:
        """Number of the model's columns."""
        return len(self.columns) + len(self.modes) + len(self.elastic)

    @cached_property
    def model(self) -> LpModel:
        """Columns, then modes, then further nodes of the elastic pools, with all rows."""
        pools, x, y = self.catalogue.infrastructure.pools, len(self.columns), len(self.modes)
        upper = [1.0] * (x + y) + [float(pools[k].nodes - pools[k].base_nodes) for k in self.elastic]
        model = LpModel(upper=upper, continuous=list(range(x + y, len(upper))), is_large=True)
        self.query_rows = self._add_query_rows(model)
        self.load_rows = self._add_station_rows(model)
        self._add_cost_rows(model)
        self.pool_rows = self._add_pool_rows(model)
        return model

    def _add_query_rows(self, model: LpModel) -> dict[int, int]:
        own, rows = defaultdict[int, list[int]](list), dict[int, int]()
        for number, column in enumerate(self.columns):
            own[column.query].append(number)
        for query, columns in own.items():
            rows[query] = len(model.row_lower)
            model.add_row(np.array(columns), np.ones(len(columns)), -np.inf, 1.0)
        return rows

    @cached_property
    def _modes_at(self) -> dict[int, IntArray]:
        """Station -> its modes."""
        modes = defaultdict[int, list[int]](list)
        for number, mode in enumerate(self.modes):
            modes[mode.station].append(number)
        return {station: np.array(own) for station, own in modes.items()}

    @cached_property
    def _columns_at(self) -> dict[int, tuple[IntArray, IntArray, FloatArray]]:
        """Station -> its columns, with level and load of each."""
        users = defaultdict[int, list[tuple[int, int, float]]](list)
        for number, column in enumerate(self.columns):
            for station, level, load in zip(column.stations, column.levels, column.loads, strict=True):
                users[station].append((number, level, load))
        at = dict[int, tuple[IntArray, IntArray, FloatArray]]()
        for station, entries in users.items():
            number_of, level_of, load_of = zip(*entries, strict=True)
            at[station] = np.array(number_of), np.array(level_of), np.array(load_of)
        return at

    def _add_station_rows(self, model: LpModel) -> dict[int, int]:
        x, rows = len(self.columns), dict[int, int]()
        query_of = np.array([column.query for column in self.columns], dtype=np.int64)
        for station, (column, at_level, load) in self._columns_at.items():
            own = self._modes_at[station]
            modes = [self.modes[mode] for mode in own.tolist()]
            capacity = np.array([mode.capacity for mode in modes])
            minimum = np.array([mode.minimum for mode in modes])
            level = np.array([mode.level for mode in modes])
            model.add_row(x + own, np.ones(len(own)), -np.inf, 1.0)
            both = np.concatenate([column, x + own])
            rows[station] = len(model.row_lower)
            model.add_row(both, np.concatenate([load, -capacity]), -np.inf, 0.0)
            if minimum.any():
                model.add_row(both, np.concatenate([load, -minimum]), 0.0, np.inf)
            for query in np.unique(query_of[column]).tolist():
                mine = query_of[column] == query
                for k in np.unique(at_level[mine]).tolist():
                    strict = mine & (at_level <= k)
                    kept = own[(level <= k) & (capacity >= load[strict].min() * (1 - _ROUNDING))]
                    columns = np.concatenate([column[strict], x + kept])
                    values = np.concatenate([np.ones(int(strict.sum())), -np.ones(len(kept))])
                    model.add_row(columns, values, -np.inf, 0.0)
        return rows

    def _add_cost_rows(self, model: LpModel) -> None:
        """Add the fills that cost SLOs need: a station's load is at least fill * replicas, if the column is chosen."""
        groups = defaultdict[tuple[int, int, float], list[int]](list)
        """Query, station and fill -> its columns."""
        for number, column in enumerate(self.columns):
            option = self.catalogue.options[column.option]
            if math.isfinite(option.limit_usd_per_h):
                stages = column.stations[: len(option.plan.stages)]
                for station, fill in zip(stages, option.minimum_fills(), strict=True):
                    if fill > 0:
                        groups[column.query, station, fill].append(number)
        for (_, station, fill), own in groups.items():
            if math.isinf(fill):
                model.add_row(np.array(own), np.ones(len(own)), -np.inf, 0.0)
                continue
            users, _, load = self._columns_at[station]
            modes = self._modes_at[station]
            needed = np.array([self.modes[mode].replicas * fill for mode in modes.tolist()])
            values = load - needed.max() * np.isin(users, own)
            both = np.concatenate([users, len(self.columns) + modes])
            model.add_row(both, np.concatenate([values, -needed]), -float(needed.max()), np.inf)

    def _add_pool_rows(self, model: LpModel) -> dict[int, int]:
        rows, pools, x = self.catalogue.rows, self.catalogue.infrastructure.pools, len(self.columns)
        nodes = {pool: x + len(self.modes) + number for number, pool in enumerate(self.elastic)}
        station = np.array([mode.station for mode in self.modes], dtype=np.int64)
        replicas = np.array([mode.replicas for mode in self.modes], dtype=np.float64)
        coefficients = np.hstack([rows.coefficients, np.zeros((len(rows.limit), len(self.catalogue.links)))])
        row_of = dict[int, int]()
        for row, pool in enumerate(rows.pool.tolist()):
            values = coefficients[row, station] * replicas
            used = np.flatnonzero(values)
            limit = float(rows.limit[row]) * self.usable.get(pools[pool].name, 1.0)
            row_of[row] = len(model.row_lower)
            # Relative to the limit: amounts of memory are large numbers.
            if pool in nodes:
                share = 1.0 / pools[pool].nodes
                columns, both = np.append(x + used, nodes[pool]), np.append(values[used] / limit, -share)
                model.add_row(columns, both, -np.inf, share * pools[pool].base_nodes)
            else:
                model.add_row(x + used, values[used] / limit, -np.inf, 1.0)
        return row_of

    @cached_property
    def cost_usd_per_h(self) -> FloatArray:
        """(columns + modes + elastic pools,) compared cost of each; base nodes that are paid whole are left out."""
        catalogue = self.catalogue
        transfers = [float(catalogue.compared_option_usd_per_h[column.option]) for column in self.columns]
        compared = catalogue.compared_usd_per_h
        replicas = [float(compared[mode.station]) * mode.replicas for mode in self.modes]
        elastic = [catalogue.infrastructure.pools[number] for number in self.elastic]
        return np.array([*transfers, *replicas, *(p.paid_usd_per_h if p.bills_nodes else 0.0 for p in elastic)])

    def prices(self, row_duals: FloatArray, cost_factor: float) -> FloatArray:
        """Return (options,) lower bounds of the reduced costs of all options, up to what their queries gain.

        A station without modes costs its replicas' part of the pools, and one with modes the dual of its load.

        Args:
            row_duals: of the relaxation's solution.
            cost_factor: of the cost in the objective.
        """
        catalogue, rows = self.catalogue, self.catalogue.rows
        duals = np.array([-row_duals[self.pool_rows[row]] for row in range(len(rows.limit))])
        fresh = catalogue.of_stations(
            cost_factor * catalogue.billed_usd_per_h + (duals / rows.limit) @ rows.coefficients
        )
        existing = np.full(len(fresh), np.inf)
        existing[-1] = 0.0
        for station, row in self.load_rows.items():
            existing[station] = -row_duals[row]
        load, at, spare = catalogue.load, catalogue.station, catalogue.of_stations(catalogue.spare)
        limit = catalogue.infrastructure.utilization_limit
        own = fresh[at] * (np.maximum(load / limit, 1.0) + spare[at])
        own[at >= len(catalogue.stations)] = np.inf
        with np.errstate(invalid="ignore"):  # no load at infinite prices
            shared = np.nan_to_num(load * existing[at], nan=0.0, posinf=np.inf)
        best = np.minimum(own, shared)
        best[np.isinf(best)] = 0.0  # a link that no active option crosses
        prices = best.sum(axis=1) + cost_factor * catalogue.transfer_usd_per_h
        query_duals = np.zeros(len(catalogue.queries))
        for query, row in self.query_rows.items():
            query_duals[query] = -row_duals[row]
        return np.asarray(prices + query_duals[catalogue.query_of])

    def chosen(self, values: FloatArray) -> tuple[dict[int, CompiledPlan], dict[Deployment, int]]:
        """Return the plan of each query that is served, and the replicas of each deployment, of values of the model."""
        x, y, catalogue = len(self.columns), len(self.modes), self.catalogue
        columns = [self.columns[number] for number in np.flatnonzero(values[:x] > 0.5).tolist()]
        modes = [self.modes[number] for number in np.flatnonzero(values[x : x + y] > 0.5).tolist()]
        plans = {column.query: catalogue.options[column.option].plan for column in columns}
        deployments = catalogue.stations
        return plans, {deployments[m.station].deployment: m.replicas for m in modes if m.station < len(deployments)}

    def start(self, plans: Mapping[int, CompiledPlan], replicas: Mapping[Deployment, int]) -> FloatArray:
        """Return values of the model for plans with whole replicas, without the queries that it does not keep so.

        Args:
            plans: query -> its plan.
            replicas: of each deployment, with spare ones.
        """
        x, catalogue = len(self.columns), self.catalogue
        values = np.zeros(self.size)
        busy, counts = defaultdict[int, float](float), dict[int, int]()
        for plan in plans.values():
            for use in plan.deployments:
                station = catalogue.number_of[use.deployment]
                busy[station] += use.busy_replicas
                counts[station] = replicas.get(use.deployment, 0)
            for crossing in plan.links:
                station = catalogue.number_of_link[crossing.link]
                busy[station] += crossing.bytes_per_s / crossing.link.bandwidth_bytes_per_s
                counts[station] = 1
        mode_of = dict[int, int]()
        for number, mode in enumerate(self.modes):
            load = busy.get(mode.station, math.inf)
            if mode.replicas == counts.get(mode.station) and mode.minimum <= load <= mode.capacity * (1 + _ROUNDING):
                best = mode_of.get(mode.station)
                if best is None or self.modes[best].level > mode.level:
                    mode_of[mode.station] = number
        taken = set[int]()
        for number, column in enumerate(self.columns):
            is_chosen = plans.get(column.query) is catalogue.options[column.option].plan
            if not is_chosen or column.query in taken:
                continue
            pairs = zip(column.stations, column.levels, strict=True)
            if all(station in mode_of and self.modes[mode_of[station]].level <= level for station, level in pairs):
                taken.add(column.query)
                values[number] = 1.0
                for station in column.stations:
                    values[x + mode_of[station]] = 1.0
        if taken:
            values[x + len(self.modes) :] = np.array(self.model.upper[x + len(self.modes) :])
        return values
