"""A choice with what it takes, kept up to date while single queries are moved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from circinus.matching.cuts import Cut
from circinus.matching.problem import FloatArray, IntArray, Problem, Usage, meets_cost_slo, round_up_replicas


class IncrementalSolution:
    """At most one candidate for each query. Moving one takes time for what it uses alone, not for all queries."""

    def __init__(self, problem: Problem, chosen: IntArray) -> None:
        """Begin with a choice (Q,), which need not keep anything."""
        self.problem = problem
        self.chosen = chosen.copy()
        most = int(np.diff(problem.fractional_load.start).max(initial=0))
        self._column = np.zeros((len(chosen), most), dtype=np.int64)
        self._fluid = np.zeros((len(chosen), most))
        """What each query's candidate needs of which deployments; nothing of the first one where it needs fewer."""
        self._transfer = np.zeros(len(chosen))
        for query, candidate in problem.served(chosen):
            self._note(query, candidate)
        self._count()

    def _count(self) -> None:
        """All sums anew: added to again and again, they drift."""
        self._usage = self.problem.usage_of(self.chosen)
        picked = self.chosen[self.chosen >= 0]
        self._users = np.zeros(len(self.problem.deployments), dtype=np.int64)
        for candidate in picked.tolist():
            self._users[self.problem.fractional_load.row(candidate)[0]] += 1

    @property
    def usage(self) -> Usage:
        """What the choice takes. The arrays are this object's own: they change with the next move."""
        return self._usage

    @property
    def goodness(self) -> tuple[float, ...]:
        """What choices are compared by: more weight, rank by rank, then less cost (rounded: noise improves nothing)."""
        counted_usd_per_h = self.problem.cost_with_churn_usd_per_h(self._usage)
        return *self.problem.priority_levels.own_weights_of(self.chosen), -round(counted_usd_per_h, 9)

    def move(self, query: int, candidate: int) -> int:
        """Give a query another candidate, -1 for none; returns the one it had."""
        before = int(self.chosen[query])
        if before != candidate:
            if before >= 0:
                self._add(before, -1)
            if candidate >= 0:
                self._add(candidate, 1)
            self.chosen[query] = candidate
            self._note(query, candidate)
        return before

    def recompute(self) -> None:
        """Add everything up anew."""
        self._count()

    def _note(self, query: int, candidate: int) -> None:
        self._column[query], self._fluid[query], self._transfer[query] = 0, 0.0, 0.0
        if candidate >= 0:
            columns, fluid = self.problem.fractional_load.row(candidate)
            self._column[query, : len(columns)], self._fluid[query, : len(columns)] = columns, fluid
            self._transfer[query] = self.problem.transfer_cost_usd_per_h[candidate]

    def _add(self, candidate: int, sign: int) -> None:
        problem, usage = self.problem, self._usage
        columns, fluid = problem.fractional_load.row(candidate)
        links, volume = problem.traffic.row(candidate)
        self._users[columns] += sign
        used = self._users[columns] > 0
        total = np.where(used, usage.fractional_load[columns] + sign * fluid, 0.0)
        replicas = round_up_replicas(total, used)
        added = replicas - usage.replicas[columns]
        usage.fractional_load[columns], usage.used[columns], usage.replicas[columns] = total, used, replicas
        usage.traffic_bytes_per_s[links] += sign * volume
        changed = np.flatnonzero(added)
        cost = sign * float(problem.transfer_cost_usd_per_h[candidate])
        rows = usage.rows
        if len(changed):
            rows = rows + problem.rows.coefficients[:, columns[changed]] @ added[changed]
            cost += float(problem.price_usd_per_h[columns[changed]] @ added[changed])
        self._usage = Usage(
            fractional_load=usage.fractional_load,
            used=usage.used,
            replicas=usage.replicas,
            traffic_bytes_per_s=usage.traffic_bytes_per_s,
            rows=rows,
            cost_usd_per_h=usage.cost_usd_per_h + cost,
            changes=usage.changes - sign * int(problem.runs[candidate]),
        )

    @cached_property
    def _limited(self) -> IntArray:
        """Queries with a cost objective."""
        return np.flatnonzero(np.isfinite(self.problem.cost_limit_usd_per_h)).astype(np.int64)

    def shares_usd_per_h(self, queries: IntArray) -> FloatArray:
        """What queries pay: their shares of whole replicas by load, and their transfers; 0 where one is not served."""
        usage = self._usage
        load = np.where(usage.used, usage.fractional_load, 1.0)
        unit = self.problem.price_usd_per_h * usage.replicas / load
        return np.asarray((unit[self._column[queries]] * self._fluid[queries]).sum(axis=1) + self._transfer[queries])

    def cost_violations(self) -> list[tuple[float, int]]:
        """(share over the limit in US dollars per hour, query) where a cost objective fails, worst first."""
        limited = self._limited
        if not len(limited):
            return []
        limit = self.problem.cost_limit_usd_per_h[limited]
        shares = self.shares_usd_per_h(limited)
        wrong = np.flatnonzero(~meets_cost_slo(shares, limit))
        return sorted(((float(shares[row] - limit[row]), int(limited[row])) for row in wrong), reverse=True)

    def is_feasible(self, cuts: Sequence[Cut]) -> bool:
        """Whether the choice keeps every capacity, every cost objective at its share, and every cut."""
        return (
            self.problem.fits(self._usage)
            and not self.cost_violations()
            and all(cut.is_satisfied(self.problem, self.chosen, self._usage) for cut in cuts)
        )
