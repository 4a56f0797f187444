"""Advice that `explain` prints for rejected queries, followed one by one."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

import circinus as c
from benchmarks.promises.applications import Application, with_query
from circinus.matching.advice import with_nodes
from circinus.matching.plan_set import Advice
from circinus.specification import SloKind

_ALONE = re.compile(r"with the infrastructure to itself, (.*) would do")
_LIMIT = re.compile(r"`([^`]+)` instead of")
_NOTHING = "no relaxation of a single SLO"
_PROFILE = re.compile(r"`circinus profile`")
_WIDE = {SloKind.LATENCY: (1.1, 1.5, 3.0, 100.0), SloKind.COST: (1.2, 3.0, 100.0), SloKind.ACCURACY: (0.05, 0.2, 1.0)}
"""Changes of a single SLO that a search tries, as shares of its limit."""


@dataclass(frozen=True)
class Followed:
    """A printed advice and what came of it."""

    kind: str
    query: str
    change: str
    holds: bool
    """True if the query is served as promised; for a "nothing would", if no single change serves it."""


def followed_advice(application: Application, plan: c.Plan) -> Iterator[Followed]:
    """Follow each advice that is printed for the rejected queries of a plan."""
    workspace = application.workspace()
    for name in plan.rejected:
        explanation = workspace.explain(plan, [name])
        text, decision = _printed(explanation), explanation.decisions()[name]
        if not isinstance(decision, c.Rejection):
            raise TypeError(f"{name} is both rejected and served")
        yield from _Follower(application, plan, name).follow(text, decision)


def _printed(explanation: c.Explanation) -> str:
    """Return the printed explanation without the tables of all plans."""
    buffer = StringIO()
    explanation.print(Console(file=buffer, width=100_000))
    return buffer.getvalue()


@dataclass(frozen=True)
class _Follower:
    """Changes of the specification for one rejected query, and their results."""

    application: Application
    plan: c.Plan
    name: str

    @property
    def query(self) -> c.Query:
        return next(query for query in self.specification.queries if query.name == self.name)

    @property
    def specification(self) -> c.Specification:
        return self.application.specification

    def follow(self, text: str, rejection: c.Rejection) -> Iterator[Followed]:
        """Follow each advice of a printed rejection."""
        relaxation = rejection.relaxation
        if relaxation is not None:
            relaxed = self.query.model_copy(update={"slos": relaxation.slos})
            kind = "relaxation of several" if rejection.unrelaxable else "relaxation"
            yield self._result(f"{kind}, admitted", relaxation.change, self._admits(relaxed))
            yield self._result(f"{kind}, planned", relaxation.change, self._plans(relaxed))
            if "smallest" in text:
                half = self._halfway(relaxation.slos)
                yield self._result("smallest relaxation", str(half), not self._admits(self._with_slos(half)))
        if _NOTHING in text:
            yield self._nothing()
        for line in _LIMIT.findall(limits[1]) if (limits := _ALONE.search(text)) else ():
            ((kind_of_slo, slo),) = c.Slos.parse(line).by_kind.items()
            slos = self.query.slos.replaced(kind_of_slo, slo)
            yield self._result("alone", str(slos), self._serves_alone(self._with_slos(slos)))
        for advice in rejection.advice:
            yield self._followed(advice)
        if _PROFILE.search(text):
            yield self._result("profile first", "circinus profile", self._profiles())

    def _followed(self, advice: Advice) -> Followed:
        """Follow an advice other than the relaxation; its empty form says that the query would be admitted as it is."""
        if advice.slos is not None:
            return self._result("other plans", advice.sentence, self._plans(self._with_slos(advice.slos)))
        if advice.risk is not None:
            risky = self.query.model_copy(update={"risk": advice.risk})
            return self._result("risk", advice.sentence, self._admits(risky))
        if advice.pool is not None:
            larger = with_nodes(self.specification, advice.pool, advice.nodes)
            return self._result("nodes", advice.sentence, self._plans(self.query, larger))
        return self._result("as it is", advice.sentence, self._admits(self.query))

    def _result(self, kind: str, change: str, holds: bool) -> Followed:
        return Followed(kind, self.name, change, holds)

    def _with_slos(self, slos: c.Slos) -> c.Query:
        return self.query.model_copy(update={"slos": slos})

    def _halfway(self, relaxed: c.Slos) -> c.Slos:
        """Return the SLOs halfway between the query's and relaxed ones."""
        slos = self.query.slos
        for kind, slo in slos.by_kind.items():
            slos = slos.replaced(kind, slo.with_limit((slo.limit + relaxed.by_kind[kind].limit) / 2))
        return slos

    def _nothing(self) -> Followed:
        """Search single changes, the widest first, until one serves the query."""
        slos = self.query.slos
        for kind_of_slo, slo in slos.by_kind.items():
            for share in reversed(_WIDE[kind_of_slo]):
                changed = slos.replaced(kind_of_slo, slo.relaxed_by(share))
                if self._admits(self._with_slos(changed)):
                    change = f"{kind_of_slo} {slo} -> {changed.by_kind[kind_of_slo].limit_text}"
                    return self._result("nothing would", change, False)
        return self._result("nothing would", "", True)

    def _admits(self, query: c.Query) -> bool:
        workspace = self.application.workspace(with_query(self.specification, query))
        return workspace.admit(query.name, self.plan).admitted

    def _plans(self, query: c.Query, specification: c.Specification | None = None) -> bool:
        """Return whether the next `circinus plan` serves the query, in addition to as much weight as before."""
        changed = with_query(specification or self.specification, query)
        after = self.application.workspace(changed).plan(incumbent=self.plan)
        weight = self.plan.matching.satisfied_weight + query.weight
        return query.name in after and after.matching.satisfied_weight >= weight - 1e-9

    def _serves_alone(self, query: c.Query) -> bool:
        alone = replace(self.specification, queries=(query,))
        return query.name in self.application.workspace(alone).plan()

    def _profiles(self) -> bool:
        """Return whether profiling a copy of the store measures more of the query's pipeline, or rules the rest out.

        What was measured for other SLOs may leave nothing to measure, but that is found out by profiling only.
        """
        pipeline, store = self.query.pipeline, self.application.store
        with tempfile.TemporaryDirectory(prefix="promises-") as folder:
            copied = replace(self.application, store=Path(folder) / store.name)
            for file in store.parent.glob(f"{store.name}*"):
                shutil.copy(file, folder)
            workspace = copied.workspace()
            before = _measured(workspace.profile_report([pipeline]))
            workspace.profile([pipeline], budget=60.0, sources=copied.sources)
            after = workspace.profile_report([pipeline])
            return _measured(after) > before or not after[pipeline].promising


def _measured(report: Mapping[str, Any]) -> int:
    return sum(len(configuration.items) for profile in report.values() for configuration in profile.configurations)
