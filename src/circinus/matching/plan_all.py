"""Plans of all queries: matched, confirmed by a simulation, and rejected queries looked at again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.backfill import refilled
from circinus.matching.consolidation import can_open, consolidate
from circinus.matching.guarantees import pins_error, with_others_rejected
from circinus.matching.incumbent import Incumbent
from circinus.matching.levels.level_answer import answer_on_levels
from circinus.matching.match_run import Answer, Observer
from circinus.matching.optimizer import answer_of, log_pass, matching_of
from circinus.matching.phases import phase
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Assignment, Matching
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.second_look import second_look, without_plans
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MATCHING, MatchSettings
from circinus.matching.simulation_check import check_by_simulation, exclude_refuted, simulation_inputs
from circinus.matching.startup_times import add_startup_times
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.planning import Frontier, plan_queries
from circinus.planning.ladder import ladder
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.queueing.event_block import load_kernels
from circinus.specification import Network, Specification


def plan_all_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    incumbent: Incumbent | None = None,
    explain_rejections: Collection[str] | None = None,
    frontiers: Mapping[str, Frontier] | None = None,
    estimates: PlanEstimates | None = None,
    observer: Observer = log_pass,
) -> tuple[Matching, Mapping[str, Frontier]]:
    """Plan every query alone, then match all queries.

    If a plan violates its SLOs in a simulation of all queries together, it is excluded and all queries are matched
    again; of many queries, only those whose plans were excluded. Rejected queries then get a second look. If others
    leave no room for a pinned one, pinned queries are planned alone, and a second look adds the others: 5 of 19 random
    pinned queries that are served as sized only need that. Further ways to plan all queries follow where they may serve
    more.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> profile.
        search: settings of the plan search.
        settings: settings of the matching.
        incumbent: see `match`.
        explain_rejections: queries to compute SLO relaxations for if they are rejected; default all. A relaxation takes
            some tens of admissions.
        frontiers: query name -> its plans; by default they are searched for.
        estimates: cached ones of the same queries and profiles.
        observer: see `MatchRun`.

    Raises:
        PlanningError: no infrastructure, a profile is missing or too uncertain, invalid numbers, or pinned queries that
            cannot be served.
    """
    plans = estimates or PlanEstimates(specification, profiles, search=search)
    if frontiers is None:
        with phase("planned each query alone"):
            frontiers = plan_queries(specification, profiles, search, plans.compiled)
    plans.adopt(frontiers)
    left_s, looks_left_s = settings.limit_s(len(specification.queries)), settings.second_look_limit_s
    planning = _Planning(
        specification, profiles, search, settings, incumbent, frontiers, plans, observer, left_s, looks_left_s
    )
    matching = planning.planned(explain_rejections)
    deployments = add_startup_times(matching.deployments, profiles, specification.required_infrastructure)
    return plans.with_latest_starts(replace(matching, deployments=deployments)), frontiers


@dataclass
class _Planning:
    specification: Specification
    profiles: Mapping[str, PipelineProfile]
    search: SearchSettings
    settings: MatchSettings
    incumbent: Incumbent | None
    frontiers: Mapping[str, Frontier]
    plans: PlanEstimates
    observer: Observer
    left_s: float
    """Left of the time limit, which all matchings share; each gets a small share of the limit at least."""
    looks_left_s: float
    """Left of the time limit of second looks."""
    is_revised: bool = False
    """Whether a pass revised an answer."""

    def planned(self, explain_rejections: Collection[str] | None) -> Matching:
        """Match all queries, look at rejected ones again, and consolidate the deployments."""
        matching, offered = self._confirmed()
        estimates = self.plans.without_exclusions()
        planner = AdmissionPlanner.of(self.specification, self.profiles, matching, self.search, estimates)
        if self._is_on_levels:
            planner = self._with_pinned(planner, offered)
            return self._explained(planner, explain_rejections)
        sufficient = self.settings.required_weight * (1.0 - WEIGHT_TOLERANCE)
        if not matching.rejections or matching.satisfied_weight >= sufficient:
            return self._consolidated(planner, opens=True).matching
        if self.settings.time_limit_s is not None:
            load_kernels()
        planner = self._with_pinned(self._looked_at(planner), offered)
        for plan in self._ways(planner):
            if not _may_serve_more(planner):
                break
            with suppress(PlanningError):  # pinned queries may need all plans, or fit only as they run
                planner = _heavier(planner, plan())
        for opens in (False, True) if can_open(planner.matching) else (False,):
            smaller = self._consolidated(planner, opens=opens)
            planner = self._looked_at(smaller) if smaller is not planner and _may_serve_more(smaller) else smaller
        return self._explained(planner, explain_rejections)

    @staticmethod
    def _explained(planner: AdmissionPlanner, explain_rejections: Collection[str] | None) -> Matching:
        """Return the matching with SLO relaxations of rejections; None: of all."""
        return replace(
            planner.matching,
            rejections=tuple(
                planner.with_relaxation(rejection)
                if explain_rejections is None or rejection.query in explain_rejections
                else rejection
                for rejection in planner.matching.rejections
            ),
        )

    def _confirmed(self) -> tuple[Matching, Mapping[str, Frontier]]:
        """Match until a simulation refutes no plan; return the matching and the frontiers without the refuted plans."""
        network, offered, plans = Network(self.specification.required_infrastructure), self.frontiers, self.plans
        with phase("matched all queries"):
            answer = self._answer(offered)
            first = matching = matching_of(answer)
        for trial in count(1):
            with phase("simulated their plans"):
                planned = simulation_inputs(self.specification, self.profiles, matching)
                result = check_by_simulation(matching, planned, network, seed=self.settings.seed)
            if not result.violated:
                break
            is_last = trial >= MATCHING.max_simulated_plans
            for name, violating in result.violated.items():
                if violating.plan.is_split:
                    plans.exclude_part(name, None if is_last else result.late_parts.get(name))
                else:
                    plans.exclude(name, None if is_last else violating.plan)
            refuted = {
                name: exclude_refuted(offered[name], plan, result.violated, plans)
                for name, plan in result.violated.items()
            }
            offered = {name: refuted.get(name, frontier) for name, frontier in offered.items()}
            with phase("matched queries again"):
                if answer.is_large and not answer.has_limited_changes:
                    answer = refilled(answer, offered, refuted, plans.without_excluded)
                else:
                    answer = self._answer(offered)
                matching = matching_of(answer)
        return (result.matching if trial == 1 else _with_bounds(result.matching, first)), offered

    @property
    def _is_on_levels(self) -> bool:
        """Whether levels cover all that is asked for."""
        is_asked = self.settings.plans_on_levels and math.isinf(self.settings.required_weight)
        return is_asked and not (self.incumbent is not None and self.incumbent.plans) and not self._has_tenants

    def _answer(self, offered: Mapping[str, Frontier], *, requires_pins: bool = False) -> Answer:
        started_s = time.monotonic()
        min_s = MATCHING.min_time_share * self.settings.limit_s(len(self.specification.queries))
        answer = answer_of(
            offered,
            self.specification.required_infrastructure,
            self.plans.reestimate,
            source=self.plans,
            settings=replace(self.settings, requires_pins=requires_pins, time_limit_s=max(self.left_s, min_s)),
            incumbent=self.incumbent,
            observer=self._note_revised,
            on_levels=partial(answer_on_levels, specification=self.specification, estimates=self.plans)
            if self._is_on_levels
            else None,
        )
        self.left_s -= time.monotonic() - started_s
        return answer

    def _note_revised(self, name: str, answer: Answer) -> None:
        self.observer(name, answer)
        self.is_revised |= not answer.is_large and (answer.is_revised or answer.reference is not None)

    def _again(self, **changes: Any) -> Matching:
        """Plan once more, in what is left of the time.

        Args:
            changes: other inputs.
        """
        again = replace(self, plans=self.plans.without_exclusions(), is_revised=False, **changes)
        try:
            return again.planned(())
        finally:
            self.looks_left_s = again.looks_left_s

    def _looked_at(self, planner: AdmissionPlanner) -> AdmissionPlanner:
        started_s = time.monotonic()
        with phase("tried rejected queries again"):
            looked_at = second_look(planner, self.frontiers, self.incumbent, limit_s=self.looks_left_s)
        self.looks_left_s = max(self.looks_left_s - (time.monotonic() - started_s), 0.0)
        return looked_at

    def _consolidated(self, planner: AdmissionPlanner, *, opens: bool) -> AdmissionPlanner:
        return consolidate(planner, self.frontiers, self.settings, self.incumbent, opens=opens)

    def _with_pinned(self, planner: AdmissionPlanner, offered: Mapping[str, Frontier]) -> AdmissionPlanner:
        """Return the planner, or one that plans pinned queries first where others leave them no room.

        Raises:
            PlanningError: pinned queries cannot be served.
        """
        pinned = tuple(query for query in self.specification.queries if query.pin is not None)
        names = {query.name for query in pinned}
        refused = [rejection for rejection in planner.matching.rejections if rejection.query in names]
        if not refused:
            return planner
        if len(pinned) < len(self.frontiers) and self._may_change and not self._has_tenants:
            of_pinned = {query.name: self.frontiers[query.name] for query in pinned}
            only_pinned = replace(self.specification, queries=pinned)
            served = self._again(specification=only_pinned, frontiers=of_pinned)
            return self._looked_at(planner.with_matching(with_others_rejected(served, self.specification)))
        of_listed = {name: frontier for name, frontier in offered.items() if frontier.candidates}
        raise pins_error(refused, of_listed, partial(self._answer, requires_pins=True))

    def _ways(self, planner: AdmissionPlanner) -> Iterator[Callable[[], Matching]]:
        """Yield further ways to plan all queries that may serve more."""
        if self.is_revised:  # which plans are chosen at utilization targets decides whom a second look can add
            yield partial(self._again, settings=self._few)
        runs = self.incumbent is not None and bool(self.incumbent.plans)
        if runs and not self._has_tenants:
            # `circinus admit` promises queries beside running plans as sized, and the next plan holds what it promises.
            yield lambda: self._looked_at(without_plans(planner)).matching
            if self._may_change:
                yield partial(self._again, incumbent=None)
        are_many = len(self.specification.queries) > MATCHING.max_exact_queries
        if self.settings.considers_late_plans and are_many and not runs and self._has_time:
            yield partial(self._with_late_plans, planner)

    def _with_late_plans(self, planner: AdmissionPlanner) -> Matching:
        """Plan all queries once more, with plans that are late at their targets, and look at rejected ones again.

        As sized, requests wait less where many queries share replicas, or where a replica is utilized less.
        """
        plans, extended = self.plans.without_exclusions(), dict[str, Frontier]()
        for query in self.specification.queries:
            own = self.frontiers[query.name]
            listed = {candidate.plan for candidate in own.candidates}
            isolated = planner.isolated_plans(query) if query.slos.latency is not None else ()
            late = (plans.sized_candidate(query, c.plan) for c in isolated if c.plan not in listed)
            if added := tuple(filter(None, late)):
                extended[query.name] = replace(own, candidates=(*own.candidates, *added))
        if not extended:
            return planner.matching
        frontiers = {**self.frontiers, **extended}
        found, _ = replace(self, frontiers=frontiers, plans=plans, settings=self._few)._confirmed()
        if found.satisfied_weight < MATCHING.min_late_weight * planner.matching.satisfied_weight:
            return planner.matching
        rejected = {rejection.query: rejection for rejection in planner.matching.rejections}
        matching = replace(
            found,
            assignments=tuple(map(self._with_own_ladder, found.assignments)),
            rejections=tuple(rejected.get(rejection.query, rejection) for rejection in found.rejections),
        )
        return self._looked_at(planner.with_matching(matching)).matching

    def _with_own_ladder(self, assignment: Assignment) -> Assignment:
        """Return an assignment whose ladder has no plans that are late at their targets but its own."""
        frontier = self.frontiers[assignment.query]
        candidate = self.plans.estimate_of(assignment.query, assignment.chosen.plan)
        return replace(assignment, ladder=ladder(frontier.query, frontier.plans, candidate))

    @property
    def _few(self) -> MatchSettings:
        """Settings of a matching with the frontiers' plans alone, at their utilization targets."""
        return replace(
            self.settings,
            considers_all_plans=False,
            divides_requests=False,
            fits_targets=False,
            considers_late_plans=False,
        )

    @property
    def _has_time(self) -> bool:
        """Return whether matchings have not used up a time limit that was set."""
        limit_s = self.settings.time_limit_s
        return limit_s is None or self.left_s >= MATCHING.min_time_share * limit_s

    @property
    def _may_change(self) -> bool:
        return self.incumbent is None or self.incumbent.max_changes is None

    @property
    def _has_tenants(self) -> bool:
        return bool(self.specification.required_infrastructure.tenants)


def _may_serve_more(planner: AdmissionPlanner) -> bool:
    """Return whether any rejected query has a configuration that is accurate enough."""
    rejected = {rejection.query for rejection in planner.matching.rejections}
    queries = planner.specification.queries
    return any(query.name in rejected and bool(planner.plans.accurate_configurations(query)) for query in queries)


def _heavier(planner: AdmissionPlanner, other: Matching) -> AdmissionPlanner:
    """Return the planner, or one of another matching that serves more: pins, guaranteed shares of tenants, weight."""
    queries, matching = planner.specification.queries, planner.matching
    levels = PriorityLevels.of(queries)

    def rank(candidate: Matching) -> tuple[float, ...]:
        served = candidate.served
        pins = all(query.name in served for query in queries if query.pin is not None)
        shortfall = sum(share.guaranteed_share - share.share for share in candidate.tenants if not share.is_met)
        weights = levels.weights_of(np.array([0 if query.name in served else -1 for query in queries]))
        return pins, -round(shortfall, 9), *weights

    return planner if rank(other) <= rank(matching) else planner.with_matching(_with_bounds(other, matching))


def _with_bounds(matching: Matching, first: Matching) -> Matching:
    """Return a matching of some plans, or of others, with the bounds of the first one, of all plans at their targets.

    A plan that a simulation refuted next to some plans may meet its SLOs next to others.
    """
    cost_bound_usd_per_h = first.cost_bound_usd_per_h if matching.satisfied_weight >= first.satisfied_weight else 0.0
    return replace(
        matching,
        weight_bound=max(first.weight_bound, matching.satisfied_weight),
        optimal=False,
        cost_at_targets_usd_per_h=None,
        cost_bound_usd_per_h=min(cost_bound_usd_per_h, matching.cost_usd_per_h),
    )
