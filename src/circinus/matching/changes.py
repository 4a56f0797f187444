"""What is another one after planning again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from circinus.matching.plan_set import Matching
from circinus.spec import QueryPlan


@dataclass(frozen=True)
class PlanDiff:
    """Queries by what became of them, in the order of their names."""

    kept: tuple[str, ...]
    """They ran, and have the same plan."""
    changed: tuple[str, ...]
    """They ran, and get another plan."""
    stopped: tuple[str, ...]
    """They ran, are still asked for, and get no plan."""
    new: tuple[str, ...]
    """They did not run, and get a plan."""
    removed: tuple[str, ...]
    """They ran, and are not asked for any more."""

    @classmethod
    def between(cls, before: Mapping[str, QueryPlan], after: Matching) -> PlanDiff:
        """From the plans that ran, by query name, to a matching."""
        served = {assignment.query: assignment.chosen.plan for assignment in after.assignments}
        rejected = {rejection.query for rejection in after.rejections}

        def named(queries: Collection[str]) -> tuple[str, ...]:
            return tuple(sorted(queries))

        return cls(
            kept=named([query for query in before if served.get(query) == before[query]]),
            changed=named([query for query in before if query in served and served[query] != before[query]]),
            stopped=named(before.keys() & rejected),
            new=named(served.keys() - before.keys()),
            removed=named(before.keys() - served.keys() - rejected),
        )

    def __str__(self) -> str:
        """`2 of 14 running queries get another plan (a, b), 1 none (c), 1 new, 1 removed`."""
        running = len(self.kept) + len(self.changed) + len(self.stopped)
        words = [f"{len(self.changed)} of {running} running queries get another plan{_names(self.changed)}"]
        words += [f"{len(self.stopped)} none{_names(self.stopped)}"] if self.stopped else []
        words += [f"{len(self.new)} new", f"{len(self.removed)} removed"]
        return ", ".join(words)


_MOST_NAMES = 12
"""Names that are said at most."""


def _names(queries: tuple[str, ...]) -> str:
    if not queries:
        return ""
    more = f" and {len(queries) - _MOST_NAMES} more" if len(queries) > _MOST_NAMES else ""
    return f" ({', '.join(queries[:_MOST_NAMES])}{more})"
