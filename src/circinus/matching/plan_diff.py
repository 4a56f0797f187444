"""Differences between the running plans and others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from circinus.matching.plan_set import Matching
from circinus.specification import QueryPlan
from circinus.specification.formatting import format_names, format_share


@dataclass(frozen=True)
class PlanDiff:
    """Names of queries by the change of their plans, sorted, and deployments with other numbers of replicas."""

    unchanged: tuple[str, ...]
    """Running queries with an unchanged plan."""
    changed: tuple[str, ...]
    """Running queries with another plan."""
    stopped: tuple[str, ...]
    """Running queries that are still specified but lose their plan."""
    new: tuple[str, ...]
    """Queries that get a plan and did not run."""
    removed: tuple[str, ...]
    """Running queries that are not specified any more."""
    replicas: Mapping[str, tuple[int, int]]
    """Deployment of both plans -> its numbers of replicas before and after, if they differ."""
    divided: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    """New query, or one with another plan, whose requests are or were divided -> shares before and after."""

    @classmethod
    def between(cls, running: Matching, after: Matching) -> PlanDiff:
        """Compare the running plans with others."""
        before = {assignment.query: assignment.chosen.plan for assignment in running.assignments}
        served = {assignment.query: assignment.chosen.plan for assignment in after.assignments}
        rejected = {rejection.query for rejection in after.rejections}
        replicas = {sized.deployment: sized.replicas for sized in running.deployments}
        shares = {query: (_shares(before.get(query)), _shares(plan)) for query, plan in served.items()}

        def in_order(queries: Collection[str]) -> tuple[str, ...]:
            return tuple(sorted(queries))

        return cls(
            unchanged=in_order([query for query in before if served.get(query) == before[query]]),
            changed=in_order([query for query in before if query in served and served[query] != before[query]]),
            stopped=in_order(before.keys() & rejected),
            new=in_order(served.keys() - before.keys()),
            removed=in_order(before.keys() - served.keys() - rejected),
            replicas={
                sized.deployment.name: (replicas[sized.deployment], sized.replicas)
                for sized in after.deployments
                if replicas.get(sized.deployment, sized.replicas) != sized.replicas
            },
            divided={
                query: shares[query]
                for query in in_order([query for query, plan in served.items() if before.get(query) != plan])
                if max(map(len, shares[query])) > 1
            },
        )

    @property
    def empty(self) -> bool:
        """True if every running query keeps its plan, no other gets one, and deployments keep their replicas."""
        return not (self.changed or self.stopped or self.new or self.removed or self.replicas)

    def __str__(self) -> str:
        """Return `2 of 14 queries of the previous plan get another (a, b), 1 none (c), 1 new, 1 removed`.

        Shares of divided requests follow, as `; divided: a 100% -> 70% + 30%`, and numbers of replicas that change, as
        `; replicas: p/parse@edge:c1b1u0.7 2 -> 3`.
        """
        previous = len(self.unchanged) + len(self.changed) + len(self.stopped)
        parts = [f"{len(self.changed)} of {previous} queries of the previous plan get another{_names(self.changed)}"]
        parts += [f"{len(self.stopped)} none{_names(self.stopped)}"] if self.stopped else []
        parts += [f"{len(self.new)} new", f"{len(self.removed)} removed"]
        counts = tuple(f"{name} {before} -> {after}" for name, (before, after) in self.replicas.items())
        shares = tuple(
            f"{query} {' -> '.join(' + '.join(map(format_share, part)) for part in change if part)}"
            for query, change in self.divided.items()
        )
        lists = (("divided", shares), ("replicas", counts))
        return "; ".join([", ".join(parts), *(f"{name}: {format_names(texts)}" for name, texts in lists if texts)])


def _shares(plan: QueryPlan | None) -> tuple[float, ...]:
    return () if plan is None else tuple(part.share for part in plan.parts)


def _names(queries: tuple[str, ...]) -> str:
    return f" ({format_names(queries)})" if queries else ""
