"""Search for the best choice of a programme's columns, each deployment with as many replicas as they need together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.levels.programme import LevelProgramme
from circinus.matching.levels.search_kernel import SearchArrays, SearchState, improve, rebuild
from circinus.specification import Deployment

_MIN_ITERATIONS = 4_000
"""A search ends when twice as many iterations as until its last find, and so many more, found nothing better."""
_HISTORY = 50
"""Number of iterations ago whose choice a choice must not be worse than."""


class ColumnSearch:
    """Search on the columns of a programme."""

    def __init__(
        self, programme: LevelProgramme, weight: FloatArray, cost_factor: float, row_duals: FloatArray, seed: int
    ) -> None:
        """Prepare the arrays.

        Args:
            programme: columns and levels.
            weight: (queries,)
            cost_factor: of the cost, in units of weight.
            row_duals: of the programme's relaxation.
            seed: of the random choices.
        """
        self._programme, self._seed = programme, seed
        self._columns = sorted(programme.columns, key=lambda column: column.query)
        self._stations = sorted(programme.levels)
        self._data = self._arrays(weight, cost_factor, row_duals)

    def improved(self, plans: Mapping[int, CompiledPlan]) -> tuple[dict[int, CompiledPlan], dict[Deployment, int]]:
        """Return the plans and replicas of the best choice that was found from some plans on."""
        options, queries = self._programme.catalogue.options, len(self._data.weight)
        chosen = np.full(queries, -1, dtype=np.int64)
        for number, column in enumerate(self._columns):
            if plans.get(column.query) is options[column.option].plan and chosen[column.query] < 0:
                chosen[column.query] = number
        stations = len(self._stations)
        state = SearchState(
            chosen=chosen,
            load=np.zeros(stations),
            level=np.zeros(stations, dtype=np.int64),
            fill=np.zeros(stations),
            replicas=np.zeros(stations, dtype=np.int64),
            used=np.zeros(len(self._data.row_limit)),
            random=np.array([88_172_645_463_325_252 + self._seed], dtype=np.int64),
            taken=np.zeros((int(self._data.nodes.max(initial=1)), 4)),
            is_packed=np.zeros(stations, dtype=np.int64),
        )
        best, scratch = chosen.copy(), np.zeros((2, queries), dtype=np.int64)
        undo = np.zeros(4 * int(np.diff(self._data.first_use).max(initial=1)))
        improve(
            self._data,
            state,
            best,
            scratch[0],
            scratch[1],
            np.zeros(queries),
            np.zeros(_HISTORY),
            undo,
            _MIN_ITERATIONS,
        )
        state.chosen[:] = best
        rebuild(self._data, state)
        found = [self._columns[number] for number in best.tolist() if number >= 0]
        counts = zip(self._stations, state.replicas.tolist(), strict=True)
        deployments = self._programme.catalogue.stations
        return (
            {column.query: options[column.option].plan for column in found},
            {deployments[s].deployment: count for s, count in counts if count and s < len(deployments)},
        )

    def _arrays(self, weight: FloatArray, cost_factor: float, row_duals: FloatArray) -> SearchArrays:
        programme, stations, columns = self._programme, self._stations, self._columns
        catalogue = programme.catalogue
        rows, pools = catalogue.rows, catalogue.infrastructure.pools
        position = {station: number for number, station in enumerate(stations)}
        levels = [programme.levels[station] for station in stations]
        uses = [use for column in columns for use in zip(column.stations, column.levels, column.loads, strict=True)]
        fills = list[float]()
        for column in columns:
            option = catalogue.options[column.option]
            own = option.minimum_fills() if math.isfinite(option.limit_usd_per_h) else []
            fills += [*own, *[0.0] * (len(column.stations) - len(own))]
        coefficients = np.hstack([rows.coefficients, np.zeros((len(rows.limit), len(catalogue.links)))])
        shares = coefficients[:, stations] / rows.limit[:, None]
        of_station, row = np.nonzero(shares.T)
        whole_usd_per_h = np.array([pool.nodes * pool.paid_usd_per_h if pool.bills_nodes else 0.0 for pool in pools])
        pool_of = np.concatenate([catalogue.pool_of, np.full(len(catalogue.links), -1)])[stations]
        divided_usd_per_h = np.where(pool_of >= 0, whole_usd_per_h[pool_of], 0.0) * shares.max(axis=0, initial=0.0)
        node_share = np.vstack([catalogue.node_share, np.zeros((len(catalogue.links), 4))])[stations]
        spare = catalogue.of_stations(catalogue.spare)[stations].astype(np.int64)
        compared_usd_per_h = catalogue.compared_usd_per_h[stations]
        link_price = np.zeros(len(stations))
        for station, in_model in programme.load_rows.items():
            if station >= len(catalogue.stations):
                link_price[position[station]] = max(-row_duals[in_model], 0.0)
        return SearchArrays(
            first_column=np.searchsorted([column.query for column in columns], np.arange(len(weight) + 1)),
            weight=weight,
            first_use=_starts(len(column.stations) for column in columns),
            column_cost=cost_factor * catalogue.compared_option_usd_per_h[[column.option for column in columns]],
            use_station=np.array([position[station] for station, _, _ in uses], dtype=np.int64),
            use_level=np.array([level for _, level, _ in uses], dtype=np.int64),
            use_load=np.array([load for _, _, load in uses], dtype=np.float64),
            use_fill=np.array(fills, dtype=np.float64),
            first_size=_starts(len(each.sizes) for each in levels),
            size=_joined([its.sizes + more for its, more in zip(levels, spare, strict=True)]).astype(np.int64),
            first_capacity=_starts(each.capacity.size for each in levels),
            capacity=_joined([each.capacity.ravel() for each in levels]),
            minimum=_joined([each.minimum.ravel() for each in levels]),
            replica_cost=cost_factor * (compared_usd_per_h + divided_usd_per_h),
            first_row=np.searchsorted(of_station, np.arange(len(stations) + 1)),
            row=row.astype(np.int64),
            row_share=shares[row, of_station],
            row_price=np.maximum(-row_duals[[programme.pool_rows[k] for k in range(len(rows.limit))]], 0.0),
            row_limit=np.array([programme.usable.get(pools[pool].name, 1.0) for pool in rows.pool.tolist()]),
            load_price=link_price,
            pool=pool_of,
            node_share=node_share,
            largest_share=node_share.max(axis=1, initial=0.0),
            is_spread=spare > 0,
            nodes=np.array([pool.nodes for pool in pools], dtype=np.int64),
        )


def _starts(sizes: Iterable[int]) -> IntArray:
    """Return where each of consecutive parts starts, and the end of the last."""
    return np.concatenate([[0], np.cumsum(list(sizes))]).astype(np.int64)


def _joined(parts: list[FloatArray]) -> FloatArray:
    return np.concatenate([*parts, np.zeros(0)])
