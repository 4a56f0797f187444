"""Route of a query where its requests enter: the part that each request takes, and how many took each part."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from circinus.errors import ServingError
from circinus.queueing.split_sequence import split_part
from circinus.serving.engine import PartStatus, SplitStatus
from circinus.serving.router.compiled_route import CompiledRoute

ROUTE_MISSING = "route.missing"
"""Code of the error of a request for a query without a route."""


class EntryRoute:
    """Parts of one query's route, and the number of requests of each since the parts are in force."""

    def __init__(self, query: str, parts: Sequence[CompiledRoute]) -> None:
        self.parts = tuple(parts)
        self._query = query
        self._requests = [0] * len(self.parts)
        self._moves = itertools.count()

    def choose(
        self, number: int, missing: Collection[str] = (), tried_parts: Collection[CompiledRoute] = ()
    ) -> CompiledRoute:
        """Return the part that a request takes.

        Parts without a replica of some application have no share: the other parts divide it by their own shares. If no
        part is left, its request waits on the part that it would take.

        Args:
            number: number of earlier requests of the query, or of earlier moves.
            missing: applications without a replica.
            tried_parts: parts that could not answer the request.
        """
        if len(self.parts) == 1:
            return self.parts[0]
        parts = self.available(missing, tried_parts) or self.available((), tried_parts) or self.parts
        total = sum(part.share for part in parts)
        return parts[split_part(self._query, [part.share / total for part in parts], number)]

    def choose_again(self, missing: Collection[str], tried_parts: Collection[CompiledRoute]) -> CompiledRoute:
        """Return the part that a request takes after the parts that could not answer it.

        Moves are numbered by themselves: the numbers of a lost part's requests all lie in its own interval.
        """
        return self.choose(next(self._moves), missing, tried_parts)

    def available(self, missing: Collection[str], tried_parts: Collection[CompiledRoute]) -> Sequence[CompiledRoute]:
        """Return the parts with replicas of all applications that a request has not tried, and a paused one."""
        if not missing and not tried_parts:
            return self.parts
        return [
            part
            for part in self.parts
            if (part.is_paused or part not in tried_parts) and part.applications.isdisjoint(missing)
        ]

    def count(self, part: CompiledRoute, requests: int = 1) -> None:
        """Count a request that takes a part, or with -1 one that leaves it for another."""
        self._requests[self.parts.index(part)] += requests

    def status(self, missing: Collection[str]) -> SplitStatus:
        """Return the planned and measured shares."""
        total = sum(self._requests)
        return SplitStatus(
            self._query,
            tuple(
                PartStatus(
                    share=part.share,
                    measured_share=requests / total if total else None,
                    requests=requests,
                    available=part.applications.isdisjoint(missing),
                )
                for part, requests in zip(self.parts, self._requests, strict=True)
            ),
        )


def missing_route(query: str, routed: Collection[str]) -> ServingError:
    """Return the error of a request for a query without a route."""
    return ServingError(
        f"the query has no route; queries with a route: {', '.join(routed) or 'none'}",
        code=ROUTE_MISSING,
        location=f"query {query}",
    )
