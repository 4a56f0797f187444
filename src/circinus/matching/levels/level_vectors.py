"""Loosest levels of a plan's deployments at which its latency limit holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation.compiled_plan import CompiledPlan, CompiledTransfer
from circinus.estimation.transfer import bottlenecks_of
from circinus.matching.levels.stations import StationLevels
from circinus.specification import DirectedLink

_STEPS = 3
"""Looser levels that are judged at once."""
NEGLIGIBLE = 0.01
"""Part of a limit beneath which a wait hardly matters."""


def loosest_levels(
    plan: CompiledPlan, limit_s: float, stations: Sequence[StationLevels], links: Mapping[DirectedLink, StationLevels]
) -> IntArray:
    """Return (vectors, stages + links) levels of which none can be looser alone; not all such, but evenly spread ones.

    They begin at shares of the wait that the limit leaves to each place alone, and at the levels of a good answer, and
    are loosened place by place.

    Args:
        plan: to be judged.
        limit_s: limit on the upper bound of its latency.
        stations: levels of each stage, from strict to loose.
        links: levels of each link that the plan crosses.
    """
    places = [*stations, *links.values()]
    counts = np.array([len(place.waits_s) for place in places])
    if np.isinf(limit_s):
        return (counts - 1)[None]
    search = _Search(plan, limit_s, stations, links)
    widest = search.widest(counts)
    if widest is None:
        return np.zeros((0, len(counts)), dtype=np.int64)
    # Places whose waits hardly matter have their loosest level, and the others share what the limit leaves.
    reach_s = np.array([place.limits_s[level] for place, level in zip(places, widest, strict=True)])
    matters = np.flatnonzero((widest < counts - 1) | (reach_s > NEGLIGIBLE * limit_s))
    shares = _shares(len(matters))
    starts = np.tile(widest, (len(shares) + 1, 1))
    for column, place in enumerate(matters.tolist()):
        limits_s = places[place].limits_s
        own_s = reach_s[place] * shares[:, column]
        starts[:-1, place] = np.maximum(np.searchsorted(limits_s, own_s * (1 + 1e-9), side="right") - 1, 0)
        starts[-1, place] = min(places[place].start, widest[place])
    starts = np.unique(starts, axis=0)
    while len(starts) and not (fits := search.fits(starts)).all():
        starts = np.unique(np.where(fits[:, None], starts, np.maximum(starts - 1, 0)), axis=0)
    if not len(starts):
        return starts
    return _undominated(np.unique(search.loosened(starts, widest, matters), axis=0))


def covering_levels(
    plan: CompiledPlan, limit_s: float, stations: Sequence[StationLevels], links: Mapping[DirectedLink, StationLevels]
) -> IntArray:
    """Return (vectors, stages + links) levels such that all levels at which the limit holds are within one of them.

    For each level of the first stage, they have the loosest one of each other place alone. The arguments are those of
    `loosest_levels`.
    """
    places = [*stations, *links.values()]
    counts = np.array([len(place.waits_s) for place in places])
    if np.isinf(limit_s):
        return (counts - 1)[None]
    search = _Search(plan, limit_s, stations, links)
    widest = search.widest(counts)
    if widest is None:
        return np.zeros((0, len(counts)), dtype=np.int64)
    first = np.arange(widest[0] + 1)
    vectors = np.tile(widest, (len(first), 1))
    vectors[:, 0] = first
    for place in range(1, len(counts)):
        own = np.arange(widest[place] + 1)
        trial = np.zeros((len(first), len(own), len(counts)), dtype=np.int64)
        trial[:, :, 0], trial[:, :, place] = first[:, None], own
        fits = search.fits(trial.reshape(-1, len(counts))).reshape(len(first), len(own))
        vectors[:, place] = len(own) - 1 - fits[:, ::-1].argmax(axis=1)
    return _undominated(vectors)


class _Search:
    def __init__(
        self,
        plan: CompiledPlan,
        limit_s: float,
        stations: Sequence[StationLevels],
        links: Mapping[DirectedLink, StationLevels],
    ) -> None:
        self._plan, self._limit_s, self._waits_s = plan, limit_s, [station.waits_s for station in stations]
        self._links = {link: (len(stations) + number, its.waits_s) for number, (link, its) in enumerate(links.items())}
        self._streams = {use.link: use.traffic for use in plan.links}

    def fits(self, levels: IntArray) -> BoolArray:
        """Return (vectors,) whether the limit holds at levels (vectors, places)."""
        times = [(waits_s[levels[:, stage]], 1.0) for stage, waits_s in enumerate(self._waits_s)]
        at_links = {link: waits_s[levels[:, place]] for link, (place, waits_s) in self._links.items()}

        def transfer_s(transfer: CompiledTransfer) -> FloatArray | float:
            seconds = transfer.sent_s
            for link in bottlenecks_of(transfer.path, self._streams) if transfer.path else ():
                seconds = seconds + at_links[link]
            return seconds

        latency_s = self._plan.composed_s(times, transfer_s)
        shape = len(levels), latency_s.shape[-1]
        return self._plan.percentile.within(np.ascontiguousarray(np.broadcast_to(latency_s, shape)), self._limit_s)

    def widest(self, counts: IntArray) -> IntArray | None:
        """Return (stages,) the loosest level of each if all others are at the strictest; None if none holds."""
        levels = np.zeros((int(counts.sum()), len(counts)), dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        for stage, (start, end) in enumerate(pairwise(starts)):
            levels[start:end, stage] = np.arange(end - start)
        fits = self.fits(levels)
        if not fits[0]:
            return None
        return np.array([int(np.flatnonzero(fits[a:b])[-1]) for a, b in pairwise(starts)])

    def loosened(self, levels: IntArray, limit: IntArray, places: IntArray) -> IntArray:
        """Return levels of which none can be looser alone, loosened forwards and backwards from each place in turn."""
        stages = len(places)
        if not stages:
            return levels
        orders = np.array([np.roll(places[::way], -k) for way in (1, -1) for k in range(stages)])
        first = np.arange(len(levels)) % len(orders)
        levels = np.concatenate([levels, levels])
        order = orders[np.concatenate([first, (first + stages) % len(orders)])]
        for position in range(stages):  # a stage that can be loosened no more cannot either once others are looser
            stage, rows = order[:, position], np.arange(len(levels))
            while len(rows):
                steps = np.repeat(levels[rows][:, None], _STEPS, axis=1)
                steps[np.arange(len(rows)), :, stage[rows]] += np.arange(1, _STEPS + 1)
                fits = steps[np.arange(len(rows)), :, stage[rows]] <= limit[stage[rows], None]
                fits[fits] = self.fits(steps[fits])
                gained = fits.sum(axis=1)
                levels[rows, stage[rows]] += gained
                rows = rows[gained == _STEPS]
        return levels


@cache
def _shares(stages: int) -> FloatArray:
    """Return (starts, places) shares of the wait for each place: equal, and half or nearly all for each one."""
    rows = [np.full(stages, 1.0 / max(stages, 1))]
    for stage in range(stages if stages > 1 else 0):
        for share in (0.5, 0.85):
            rows.append(np.full(stages, (1 - share) / (stages - 1)))
            rows[-1][stage] = share
    return np.array(rows)


def _undominated(levels: IntArray) -> IntArray:
    looser: BoolArray = np.all(levels[:, None] <= levels[None], axis=2)
    np.fill_diagonal(looser, False)
    return levels[~looser.any(axis=1)]
