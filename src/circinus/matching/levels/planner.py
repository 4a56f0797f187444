"""Planner on levels: plans and whole replicas of all queries, judged at the loads that they really have.

1. The linear relaxation of a programme of some plans tells which further plans may be better (`_priced`).
2. A search chooses plans and replicas, and branch and cut improves on it or proves that it is the best.
3. The judge decides on the answer by the estimates of `circinus.estimation`. Where it breaks promises, their limits are
   tightened; around what it keeps, levels become finer. Then all begins again, until nothing is better.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.levels.bounds import LevelBounds
from circinus.matching.levels.catalogue import Catalogue
from circinus.matching.levels.judge import PlanJudge, PlanVerdict
from circinus.matching.levels.level_tables import LevelTables
from circinus.matching.levels.programme import LevelProgramme
from circinus.matching.levels.relaxation import LevelRelaxation
from circinus.matching.levels.search import ColumnSearch
from circinus.matching.priority_levels import PriorityLevels
from circinus.specification import Deployment, DirectedLink, Infrastructure, Query

_log = logging.getLogger(__name__)

_TIGHTENED, _MAX_EXCESS = 0.99, 10.0
"""Factor on the limit of a plan that was late, beside the excess; and the largest excess to consider."""
_CHEAPER = 0.9
"""Factor on the cost limit of a plan that paid more than that."""
_USABLE = 0.97
"""Factor on a pool on which replicas were not packed."""
_MAX_ROUNDS, _MAX_PRICINGS = 6, 4
_FIRST_OPTIONS, _PRICED_OPTIONS = 12, 20
"""Options of each query to begin with, and to consider more after each relaxation."""
_MIN_LOAD = 0.05
"""Load, in replicas, that an option takes of each deployment at least when first options are compared."""


@dataclass(frozen=True)
class LevelAnswer:
    """Plans with whole replicas, and what the judge says of them."""

    plans: Mapping[str, CompiledPlan]
    """Query -> its plan, of those that are served."""
    replicas: Mapping[Deployment, int]
    """With spare ones."""
    verdict: PlanVerdict
    weight_bound: float = math.inf
    """Of any answer, divided requests included."""
    cost_bound_usd_per_h: float = 0.0
    """Of any answer of at least as much weight."""


class LevelPlanner:
    """Planner of all queries."""

    def __init__(
        self,
        queries: Sequence[Query],
        plans: Mapping[str, Sequence[CompiledPlan]],
        infrastructure: Infrastructure,
        levels: PriorityLevels,
        *,
        time_limit_s: float,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        observer: Callable[[LevelAnswer], None] = lambda answer: None,
    ) -> None:
        """Prepare for planning.

        Args:
            queries: to be planned.
            plans: of each query, at the highest utilization as their targets.
            infrastructure: with pools and links.
            levels: priorities of the queries.
            time_limit_s: from now on.
            seed: of random choices.
            clock: of the time limit.
            observer: gets each answer that is better than those before.
        """
        self._levels, self._seed, self._observer = levels, seed, observer
        self._clock, self._deadline_s = clock, clock() + time_limit_s
        self._judge = PlanJudge(queries, infrastructure)
        self._catalogue = Catalogue(queries, plans, infrastructure)
        stages = max((len(option.plan.stages) for option in self._catalogue.options), default=1)
        self._tables = LevelTables(infrastructure.utilization_limit, stages)
        self._original = list(self._catalogue.options)
        """Options with the limits of their SLOs."""
        self._names = [query.name for query in queries]
        self._number = {name: number for number, name in enumerate(self._names)}
        self._weight = {query.name: query.weight for query in queries}
        self._active = self._promising()
        self._best = self._with_verdict({}, {})

    def answer(self, start: LevelAnswer | None = None) -> LevelAnswer:
        """Return the best answer that was found; it is no worse than `start` if that keeps all promises."""
        if start is not None:
            self._offer(start)
        usable = dict[str, float]()
        for number in range(_MAX_ROUNDS):
            programme, relaxation = self._programme(usable, may_price=number == 0)
            found = self._searched(programme, relaxation)
            is_better = self._offer(found)
            if self._left_s() <= 0 or (found.verdict.is_kept and not is_better):
                break
            self._correct(found, usable)
        begin = {self._number[name]: plan for name, plan in self._best.plans.items()}
        values = programme.start(begin, self._best.replicas)
        self._offer(self._decoded(*programme.chosen(relaxation.improved(values))))
        self._offer(self._fewer(self._best))
        return self._bounded(self._best, programme, relaxation)

    def _left_s(self) -> float:
        return self._deadline_s - self._clock()

    def _bounded(self, answer: LevelAnswer, programme: LevelProgramme, relaxation: LevelRelaxation) -> LevelAnswer:
        """Return the answer with its bounds; without them if there are several priorities."""
        if self._levels.count > 1:
            return answer
        catalogue, weights = copy(self._catalogue), self._levels.integer_weights[0]
        catalogue.options = self._original
        bounds = LevelBounds(programme, catalogue, relaxation.weight, relaxation.cost_factor, self._seed, self._left_s)
        served = float(sum(relaxation.weight[self._number[name]] for name in answer.plans))
        weight, cost_usd_per_h = bounds.weight_and_cost(served)
        fixed_usd_per_h = sum(
            pool.paid_usd_per_h * pool.base_nodes for pool in catalogue.infrastructure.pools if pool.bills_nodes
        )
        bound = weight * weights.unit + weights.rounding
        return replace(answer, weight_bound=bound, cost_bound_usd_per_h=cost_usd_per_h + fixed_usd_per_h)

    def _promising(self) -> BoolArray:
        """Return (options,) whether to begin with an option: the cheapest ones by prices and by parts of pools."""
        catalogue = self._catalogue
        options, rows = np.arange(len(catalogue.options)), catalogue.rows
        active = np.zeros(len(options), dtype=bool)
        share = (rows.coefficients / rows.limit[:, None]).max(axis=0, initial=0.0)
        billed = catalogue.billed_usd_per_h
        for price in (billed, share, share + billed / max(catalogue.max_cost_usd_per_h, 1e-9)):
            by_stage = catalogue.of_stations(price)[catalogue.station] * np.maximum(catalogue.load, _MIN_LOAD)
            cheapest = catalogue.cheapest(options, by_stage.sum(axis=1) + catalogue.transfer_usd_per_h, _FIRST_OPTIONS)
            active |= cheapest
        return active

    def _programme(self, usable: Mapping[str, float], *, may_price: bool) -> tuple[LevelProgramme, LevelRelaxation]:
        """Return the programme of the active options, and its relaxation.

        Args:
            usable: see `LevelProgramme`.
            may_price: whether to activate options that may be better.
        """
        around = self._around(self._best)
        for trial in range(_MAX_PRICINGS):
            active = np.flatnonzero(self._active).tolist()
            programme = LevelProgramme(self._catalogue, active, self._tables, usable, around)
            relaxation = LevelRelaxation(programme, self._levels, self._seed, self._left_s)
            if not may_price or self._active.all() or trial + 1 == _MAX_PRICINGS or self._left_s() <= 0:
                break
            solution = relaxation.solution()
            if solution is None:
                break
            prices = relaxation.option_prices(solution)
            better = np.flatnonzero(~self._active & (prices < -1e-9))
            if not len(better):
                break
            self._active |= self._catalogue.cheapest(better, prices[better], _PRICED_OPTIONS)
        return programme, relaxation

    def _searched(self, programme: LevelProgramme, relaxation: LevelRelaxation) -> LevelAnswer:
        solution = relaxation.solution()
        duals = np.zeros(len(programme.model.row_lower)) if solution is None else solution.row_duals
        search = ColumnSearch(programme, relaxation.weight, relaxation.cost_factor, duals, self._seed)
        return self._decoded(*search.improved({self._number[q]: plan for q, plan in self._best.plans.items()}))

    def _decoded(self, plans: Mapping[int, CompiledPlan], replicas: Mapping[Deployment, int]) -> LevelAnswer:
        return self._with_verdict({self._names[query]: plan for query, plan in plans.items()}, replicas)

    def _with_verdict(self, plans: Mapping[str, CompiledPlan], replicas: Mapping[Deployment, int]) -> LevelAnswer:
        used = {use.deployment for plan in plans.values() for use in plan.deployments}
        replicas = {deployment: count for deployment, count in replicas.items() if deployment in used}
        return LevelAnswer(plans, replicas, self._judge.verdict(plans, replicas))

    def _offer(self, answer: LevelAnswer) -> bool:
        """Take an answer, without the queries whose promises it breaks, if it is the best; return whether it is."""
        kept = self._kept(answer)
        if self._key(kept) <= self._key(self._best):
            return False
        self._best = kept
        self._observer(kept)
        _log.debug("%d queries served at $%.4g/h", len(kept.plans), kept.verdict.cost_usd_per_h)
        return True

    def _key(self, answer: LevelAnswer) -> tuple[tuple[float, ...], float]:
        """Return what is compared: the weight of each priority, then the cost, with what tells equal ones apart."""
        chosen = np.array([0 if name in answer.plans else -1 for name in self._names], dtype=np.int64)
        catalogue = self._catalogue
        more = catalogue.compared_usd_per_h - catalogue.of_stations(catalogue.billed_usd_per_h)
        tie = sum(more[catalogue.number_of[deployment]] * count for deployment, count in answer.replicas.items())
        crossed = {crossing.link for plan in answer.plans.values() for crossing in plan.links}
        tie += sum(more[catalogue.number_of_link[link]] for link in crossed)
        busy = (use.busy_replicas for plan in answer.plans.values() for use in plan.deployments)
        tie += catalogue.tie_usd_per_h * sum(busy)
        return self._levels.weights_of(chosen), -answer.verdict.cost_usd_per_h - float(tie)

    @staticmethod
    def _around(answer: LevelAnswer) -> dict[Deployment | DirectedLink, tuple[int, float]]:
        """Return the replicas, without spare ones, and the load of each deployment and link."""
        load, spare = defaultdict[Deployment | DirectedLink, float](float), dict[Deployment, int]()
        for plan in answer.plans.values():
            for use in plan.deployments:
                load[use.deployment] += use.busy_replicas
                spare[use.deployment] = max(spare.get(use.deployment, 0), use.demand.spare_replicas)
            for crossing in plan.links:
                load[crossing.link] += crossing.bytes_per_s / crossing.link.bandwidth_bytes_per_s
        counts = {deployment: answer.replicas[deployment] - spare[deployment] for deployment in spare}
        return {place: (counts[place] if isinstance(place, Deployment) else 1, busy) for place, busy in load.items()}

    def _correct(self, found: LevelAnswer, usable: dict[str, float]) -> None:
        """Tighten the limits that an answer breaks: of the plans, and of the pools."""
        index_of = {(option.query, id(option.plan)): index for index, option in enumerate(self._catalogue.options)}
        for name in {*found.verdict.late, *found.verdict.dear}:
            index = index_of[self._number[name], id(found.plans[name])]
            option = self._catalogue.options[index]
            if name in found.verdict.late:
                factor = _TIGHTENED / min(found.verdict.late[name], _MAX_EXCESS)
                option = replace(option, limit_s=option.limit_s * factor)
            if name in found.verdict.dear:
                option = replace(option, limit_usd_per_h=option.limit_usd_per_h * _CHEAPER)
            self._catalogue.options[index] = option
        for pool in found.verdict.unpacked:
            usable[pool] = usable.get(pool, 1.0) * _USABLE

    def _kept(self, answer: LevelAnswer) -> LevelAnswer:
        """Return the answer without the queries whose promises it breaks, the lightest first."""
        while not answer.verdict.is_kept and answer.plans:
            verdict = answer.verdict
            broken = {*verdict.late, *verdict.dear}
            if broken:
                dropped = {min(broken, key=lambda q: (self._weight[q], -verdict.late.get(q, 0.0), q))}
            else:  # the queries of the deployment that takes most for their weight
                users = defaultdict[Deployment, set[str]](set)
                for name, plan in answer.plans.items():
                    for use in plan.deployments:
                        if use.deployment.pool in verdict.unpacked:
                            users[use.deployment].add(name)
                value = {d: sum(self._weight[q] for q in own) / self._share(d, answer) for d, own in users.items()}
                dropped = users[min(value, key=lambda d: (value[d], d))]
            answer = self._with_verdict({q: p for q, p in answer.plans.items() if q not in dropped}, answer.replicas)
        return answer

    def _share(self, deployment: Deployment, answer: LevelAnswer) -> float:
        """Return the largest share of its pool's resources that a deployment takes."""
        rows, station = self._catalogue.rows, self._catalogue.number_of[deployment]
        return float((rows.coefficients[:, station] / rows.limit).max(initial=1e-9)) * answer.replicas[deployment]

    def _fewer(self, answer: LevelAnswer) -> LevelAnswer:
        """Return the answer without replicas that no promise needs, the dearest first."""
        price = {u.deployment: u.demand.cost_usd_per_h for plan in answer.plans.values() for u in plan.deployments}
        for deployment in sorted(answer.replicas, key=lambda d: (-price[d], d)):
            while answer.replicas[deployment] > 1 and self._left_s() > 0:
                trial = self._with_verdict(
                    answer.plans, {**answer.replicas, deployment: answer.replicas[deployment] - 1}
                )
                if not trial.verdict.is_kept or self._key(trial) < self._key(answer):
                    break
                answer = trial
        return answer
