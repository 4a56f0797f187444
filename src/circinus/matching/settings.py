"""Settings of the matching, measured by `python -m benchmarks matching`; tolerances are in `tolerances.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MatchingSettings:
    """Limits and shares of time of the matching."""

    max_exact_queries: int = 40
    """Maximum number of queries for the exact solver, which mostly takes less than a second."""
    base_time_limit_s: float = 20.0
    time_limit_per_query_s: float = 0.1
    max_time_limit_s: float = 60.0
    """Default time limit: the base, more for each query beyond those of the exact solver, and its maximum."""
    offered_plans: int = 3
    """Number of each query's plans, the cheapest in isolation, whose deployments are offered to other queries."""
    max_reuse_rounds: int = 3
    search_time_share: float = 0.75
    """Share of the time limit for a search; passes share what it leaves."""
    column_generation_share: float = 0.2
    """Share of the search's time for column generation."""
    enumeration_share: float = 0.5
    """Maximum share of the remaining time for estimates of all plans."""
    change_time_share: float = 0.3
    """Minimum time for choosing between running plans and an answer from scratch, as a share of the search's time."""
    round_share_large: float = 0.5
    """Share of the remaining time for a round with many queries, as further rounds will follow."""
    max_rounds: int = 80
    """Maximum number of rounds; then queries are dropped from the last choice until it is feasible."""
    max_packed_queries: int = 500
    """Maximum number of queries that are matched together in one program, with whole replicas on nodes."""
    max_all_columns: int = 20_000
    """Maximum number of plans of more queries than those of the exact solver, together, for all to be candidates."""
    max_enumerated_plans: int = 4_000
    """Maximum number of plans of each query if all are estimated, which takes 0.15 ms each."""
    max_composed_plans: int = 500
    """Maximum number of plans on running deployments that are estimated for one query at a time."""
    max_cached_estimates: int = 20_000
    """Maximum number of cached re-estimates."""
    max_cached_compositions: int = 100
    """Maximum number of cached lists of plans on running deployments."""
    max_cached_frontiers: int = 200
    """Maximum number of cached frontiers of kinds of queries with other SLOs."""
    max_backfill_plans: int = 40
    """Maximum number of plans of a query that are tried in backfilling, those with the lowest added cost."""
    backfill_time_share: float = 0.5
    """Share of the remaining time for backfilling queries."""
    splitting_time_share: float = 0.5
    """Share of the remaining time for dividing requests among several plans."""
    fitting_time_share: float = 0.5
    """Share of the remaining time for fitting utilization targets."""
    consolidation_time_share: float = 0.3
    """Time of a consolidation, as a share of the time limit."""
    consolidation_requests: int = 1_200
    """Simulated requests of each query that misses its SLO by formula then, with those that wait alike."""
    max_opened_plans: int = 3
    """Maximum number of plans of a kind of queries, the cheapest, to which they may move though nobody uses them."""
    max_closing_trials: int = 10
    """Maximum number of ways to move the queries of a deployment to others."""
    max_fitted_queries: int = 500
    """Maximum number of queries whose utilization targets are fitted to the load, and that may open deployments."""
    max_fitted_plans: int = 3
    """Maximum number of plans of a query that are checked at the final sizes, the cheapest."""
    max_rebuilt_queries: int = 8
    """Maximum number of queries for which matchings are built up at the final sizes."""
    max_rebuilt_plans: int = 6
    """Maximum number of plans of a query that are checked when it is added to such a matching, the cheapest."""
    max_added_replicas: int = 6
    """Maximum number of replicas that such a plan takes beyond those for the highest utilization."""
    max_part_plans: int = 4_000
    """Maximum number of plans for parts of requests, of all queries together."""
    max_splitting_rounds: int = 5
    """Maximum number of divisions that are tried, each without the plans that were too slow in the ones before."""
    min_share: float = 0.05
    """Share of a query's requests that a part takes at least, if that costs nothing."""
    max_division_faults: int = 3
    """Number of divisions of a query that miss an SLO until it is divided no more."""
    tie_time_share: float = 0.5
    """Share of the remaining time for breaking ties."""
    conflict_time_factor: float = 2.0
    """Time for finding a conflict among pinned queries, as a multiple of the search's time."""
    max_greedy_passes: int = 8
    """Maximum number of improvement passes; nearly all instances converge after three."""
    max_cut_rounds: int = 20
    """Maximum number of cut rounds; the relaxation converges after about six."""
    min_step_s: float = 0.02
    """Minimum time limit of every step."""
    second_look_factor: float = 3.0
    """Factor on the latency limit up to which plans are tried at their final sizes before a query is rejected. Of 330
    rejected, 1.5 admits 31 instead of 28, but leaves 4 instead of 2 that a simulation keeps; of 234, 2 and 6 admit as
    many."""
    max_second_looks: int = 40
    """Maximum number of kinds of rejected queries that get a second look, the heaviest first. Of 26 rejected of 40, 20
    leaves 6 undecided and 80 changes nothing; a look takes 0.1 s."""
    max_looked_queries: int = 4_000
    """Maximum number of second looks times that of all queries: beside a thousand queries, a look takes some 3 s."""
    max_second_look_simulations: int = 12
    """Maximum number of plans that are simulated in all second looks of a matching together. Of 234 rejected, 6, 12 and
    24 leave 3, 1 and 0 undecided, in equal time."""
    max_kept_trials: int = 200
    """Maximum number of running plans of which an admission decides whether they can stay, if changes are limited."""
    min_time_share: float = 0.1
    """Share of the time limit that a matching gets at least if those before took it all."""
    min_late_weight: float = 0.8
    """Share of the weight that an answer with late plans serves at least if second looks at it are worthwhile.

    Of 11 such answers to 46 to 100 queries, six served 1.02 times as much and more, and were better in the end. The
    others served 0.24 to 0.7 times as much, and second looks, up to 40 % of the time, made none of them better.
    """
    max_simulated_plans: int = 4
    """Maximum number of plans of a query that are tried in simulations; then the query is rejected."""
    simulated_executions: int = 3_000_000
    """Approximate number of simulated executions of operators and links: at most some seconds."""
    short_executions: int = 300_000
    """Simulated executions that refute plans for one more query, or confirm a bound that misses its SLO narrowly."""
    interim_analyses: int = 4
    """Number of times at which a simulation may end early: after a sixteenth, an eighth, a quarter and a half. Of 52
    simulations of bursty random applications 42 end at the first, four last to the end, and all 211 verdicts are those
    of the whole simulations, in a quarter of the time."""
    early_risk: float = 0.01
    """Probability that any interval of the interim analyses does not contain the percentile."""
    min_simulated_requests: int = 400
    """Minimum number of requests of a query for its simulated latencies to count."""
    simulated_bursts: int = 200
    """Number of bursts to simulate."""
    max_extension: float = 3.0
    """Maximum factor by which the simulation is extended to see enough bursts."""
    warm_up_share: float = 0.1
    """Warm-up, as a share of the simulated time."""
    max_sample: int = 2_000
    """Maximum number of latencies from which the SLO probability is computed."""


MATCHING = MatchingSettings()


@dataclass(frozen=True)
class MatchSettings:
    """Settings of the matching that are not part of a query."""

    time_limit_s: float | None = None
    """Time limit of all matchings of the queries together; then the best answer so far is taken, with its bounds.

    Default: 20 s, plus 0.1 s for each query beyond 40, at most 60 s. Plans of single queries, simulations,
    consolidation, pins that conflict, tenants' shares and running plans take further time. So do second looks at
    rejected queries: as much again, or without a limit if none is given.
    """
    seed: int = 0
    """Random seed of the solver."""
    requires_pins: bool = True
    """Whether a pinned query without a plan is an error; otherwise it is rejected, as a second look may serve it."""

    divides_requests: bool = True
    """Whether requests of up to 40 queries may be divided among several plans (`Query.split`)."""
    fits_targets: bool = True
    """Whether utilization targets are raised to fit the load, up to 40 queries plans replaced by ones that do, and
    deployments consolidated."""
    considers_all_plans: bool = True
    """Whether up to 40 queries are matched with all their plans at last, and more if these are few."""
    considers_late_plans: bool = True
    """Whether more than 40 queries are planned once more, if any is rejected, with plans that are late at their
    utilization targets, but not at the final sizes. Few are not: for eight, it takes 16 s."""
    plans_on_levels: bool = False
    """Whether queries are planned on levels of wait (`circinus.matching.levels`), unless plans run already or tenants
    have shares."""
    required_weight: float = math.inf
    """Weight that suffices, of up to 40 queries: beyond it, the cost counts alone. Pinned queries come first."""

    @property
    def second_look_limit_s(self) -> float:
        """Time limit of all second looks; infinite without a time limit, as numbers limit each of them.

        At 2.5 s, 5 of 286 plans on a busy machine left out a query that an admission had promised.
        """
        return math.inf if self.time_limit_s is None else self.time_limit_s

    def limit_s(self, queries: int) -> float:
        """Return the time limit for a number of queries."""
        if self.time_limit_s is not None:
            return self.time_limit_s
        return min(
            MATCHING.base_time_limit_s + MATCHING.time_limit_per_query_s * max(queries - MATCHING.max_exact_queries, 0),
            MATCHING.max_time_limit_s,
        )


DEFAULT_MATCH_SETTINGS = MatchSettings()
