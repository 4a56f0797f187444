"""Plans with their results: admission, explanations and frontiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.text import Text

from circinus.api.plan_rows import COLUMNS, allocations, columns, part_rows
from circinus.api.quantities import AnyPath
from circinus.api.result import Result
from circinus.matching import load_plan_set, save_plan_set
from circinus.reporting.escaping_console import EscapingConsole
from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.reporting.plan_table import deployment_table, price_table, spare_replicas_text
from circinus.specification.formatting import ACCURACY, format_duration, format_usd_per_h, with_metric

if TYPE_CHECKING:
    from collections.abc import Collection

    from circinus.api.plan_context import LoadedPlan
    from circinus.estimation import Correction, PlanCandidate
    from circinus.matching import Admission, Assignment, Matching, PlanDiff, PlanFile, Rejection
    from circinus.planning import Frontier
    from circinus.profiling import PipelineProfile
    from circinus.specification import Query, Specification


@dataclass(frozen=True, repr=False)
class Plan(Result, Mapping[str, "Assignment"]):
    """The plans of all queries: configuration, placement and allocation of each served query.

    Indexing by a query's name gives its `Assignment`; `rejected` has the queries without a plan.

    Example:
        >>> plan = workspace.plan()
        >>> sorted(plan), dict(plan.rejected)
        (['archive', 'typing-aid'], {})
        >>> plan["archive"].chosen.estimate.latency_s.upper <= 0.5
        True
        >>> c.Plan.load(plan.save("copy.json")).cost_usd_per_h == plan.cost_usd_per_h
        True
    """

    file: PlanFile
    path: Path | None = None
    """Plan file that it was read from or written to."""
    warnings: tuple[str, ...] = ()
    changes: PlanDiff | None = None
    """Differences from the incumbent plan, if there was one."""
    incumbent_path: Path | None = None
    """Plan file of the incumbent plan, or of the plan that it is compared with."""
    measured: Mapping[str, PipelineProfile] = field(default_factory=dict)
    """Pipeline -> profile that was measured before planning, if there was a budget."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Query -> name of the metric whose mean is its accuracy, if the specification is at hand."""
    unplanned: tuple[str, ...] = ()
    """Queries of the specification that are new, or that were edited since their rejection, or their code:
    `Workspace.admit` decides."""

    @property
    def matching(self) -> Matching:
        """Assignments, rejections and deployments of the plan."""
        return self.file.matching

    @property
    def rejected(self) -> Mapping[str, Rejection]:
        """Query -> reason and what is binding, for each query without a plan; `Workspace.explain` adds a relaxation."""
        return {rejection.query: rejection for rejection in self.matching.rejections}

    @property
    def cost_usd_per_h(self) -> float:
        """Cost of all deployments as sized, and of all transfers, in US dollars per hour."""
        return self.matching.cost_usd_per_h

    @property
    def optimality_gap(self) -> float:
        """Fraction of the weight that any other matching could satisfy in addition, by the dual bound."""
        return self.matching.weight_gap

    def __getitem__(self, query: str) -> Assignment:
        for assignment in self.matching.assignments:
            if assignment.query == query:
                return assignment
        rejection = self.rejected.get(query)
        raise KeyError(query if rejection is None else f"{query} was rejected: {self._reason(rejection)}")

    def __iter__(self) -> Iterator[str]:
        return (assignment.query for assignment in self.matching.assignments)

    def __len__(self) -> int:
        return len(self.matching.assignments)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: whether it is served, its plan and its estimate."""
        served = [
            {"query": entry.query, "served": True, **columns(entry.chosen), "reason": self._reason(entry)}
            for entry in self.matching.assignments
        ]
        rejected = [
            {"query": entry.query, "served": False, **dict.fromkeys(COLUMNS), "reason": self._reason(entry)}
            for entry in self.matching.rejections
        ]
        return served + rejected

    def _reason(self, decision: Assignment | Rejection) -> str:
        return with_metric(decision.reason, self.metrics.get(decision.query, ACCURACY))

    def _document(self) -> Any:
        from circinus.api.profile_summary import search_summary_json

        searches = {name: search_summary_json(profile) for name, profile in self.measured.items()}
        divided = {name: part_rows(a.chosen) for name, a in self.items() if a.chosen.plan.is_split}
        changes = None if self.changes is None else vars(self.changes)
        if changes is not None:
            changes = {name: value for name, value in changes.items() if name != "divided" or value}
        return {
            "file": self.path,
            "plan_set": self.file.document(),
            "warnings": self.warnings,
            "from": self.incumbent_path,
            "changes": changes,
            "metrics": self.metrics,
            "unplanned": self.unplanned,
            **({"searches": searches} if searches else {}),
            **({"divided": divided} if divided else {}),
        }

    def save(self, path: AnyPath) -> Path:
        """Write the plan file, whole or not at all, and return its path.

        It names the specification and the profile store relative to its folder.

        Raises:
            PlanningError: the file cannot be written.
        """
        save_plan_set(self.file, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: AnyPath) -> Self:
        """Read a plan file; `Workspace.load_plan` also compares it with the specification.

        Raises:
            PlanningError: the file does not exist, or it is no plan file of this version.
        """
        return cls(load_plan_set(Path(path)), Path(path))

    @classmethod
    def of(cls, opened: LoadedPlan) -> Self:
        """Return the plan of a plan file that was compared with its specification."""
        metrics = opened.specification.metric_names
        return cls(opened.plan_set, opened.path, metrics=metrics, unplanned=opened.unplanned)


@dataclass(frozen=True, repr=False)
class AdmissionResult(Result):
    """Answer of admission control for one query.

    Example:
        >>> result = workspace.admit("archive", plan)
        >>> result.admitted, result.already_served, result.added_usd_per_h
        (True, True, 0.0)
    """

    query: str
    admission: Admission
    plan: Plan
    """Plan with the admitted or rejected query."""
    added_usd_per_h: float
    """Increase of the plan's cost, in US dollars per hour."""
    answered_s: float
    written: Path | None = None
    """Plan file that was written, if any."""
    already_served: bool = False
    """True if the plan served the query before."""

    @property
    def admitted(self) -> bool:
        """True if the query fits in addition to the running queries."""
        return self.admission.assignment is not None

    def __bool__(self) -> bool:
        return self.admitted

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: the answer, its cost and its reason."""
        decision = self.admission.assignment or self.admission.rejection
        reason = "" if decision is None else with_metric(decision.reason, self.plan.metrics.get(self.query, ACCURACY))
        return [
            {
                "query": self.query,
                "admitted": self.admitted,
                "added_usd_per_h": self.added_usd_per_h if self.admitted else None,
                "reason": reason,
            }
        ]

    def _document(self) -> Any:
        return {
            "query": self.query,
            "metric": self.plan.metrics.get(self.query),
            "admitted": self.admitted,
            "written": self.written,
            "assignment": self.admission.assignment,
            "rejection": self.admission.rejection,
            "binding": self.admission.binding,
            "more_usd_per_h": self.added_usd_per_h if self.admitted else None,
            "answered_s": self.answered_s,
        }


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """Reasons of a plan: for each query its decision, the alternatives, and what would change it.

    Example:
        >>> explanation = workspace.explain(plan, ["archive"])
        >>> [row["served"] for row in explanation.rows()]
        [True]
        >>> sorted(explanation.to_dict()["queries"]["archive"])[:2]
        ['alternatives', 'chosen']
    """

    plan: Plan
    queries: Mapping[str, Query]
    """The explained queries."""
    specification: Specification
    complete: bool = True
    """True if all queries are explained; deployments and shadow prices are then printed, too."""
    measured_since: tuple[str, ...] = ()
    """Pipelines of rejected queries that were measured further since the plan was made."""
    unsearched: tuple[str, ...] = ()
    """Explained rejected queries for which no changes were searched that would serve them."""
    unsearched_reason: str = ""
    """Why none could be searched for, if that is the reason."""

    def decisions(self) -> Mapping[str, Assignment | Rejection]:
        """Return the decision on each explained query."""
        matching = self.plan.matching
        decisions: dict[str, Assignment | Rejection] = {a.query: a for a in matching.assignments}
        decisions |= {rejection.query: rejection for rejection in matching.rejections}
        return {name: decisions[name] for name in self.queries}

    def corrections(self, pipelines: Collection[str] | None = None) -> tuple[Correction, ...]:
        """Return the corrections of service times that the plan was made with, of the operators of some pipelines.

        Args:
            pipelines: names of pipelines; by default those of the explained queries.
        """
        names = {query.pipeline for query in self.queries.values()} if pipelines is None else pipelines
        used = {operator.uses for name in names for operator in self.specification.pipelines[name].operators}
        return tuple(entry for entry in self.plan.file.corrections.entries if entry.uses in used)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: its SLOs, the reason, what is binding, and the best alternative."""
        rows = []
        for name, decision in self.decisions().items():
            metric = self._shown(decision)[1]
            alternative = with_metric(decision.alternatives[0].full_reason, metric) if decision.alternatives else None
            relaxation = getattr(decision, "relaxation", None)
            rows.append(
                {
                    "query": name,
                    "served": name in self.plan,
                    "slos": str(self.queries[name].slos),
                    "reason": with_metric(decision.reason, metric),
                    "binding": ", ".join(getattr(decision, "binding", ())),
                    "best_alternative": alternative,
                    "relaxation": None if relaxation is None else with_metric(relaxation.change, metric),
                }
            )
        return rows

    def _shown(self, decision: Assignment | Rejection) -> tuple[Query, str]:
        """Return the query of a decision, and the name of its metric."""
        query = self.queries[decision.query]
        return query, self.specification.pipelines[query.pipeline].metric.name

    def _parts(self, name: str) -> dict[str, Any]:
        """Return the parts of a query's plan, if it is split."""
        served = self.plan.get(name)
        return {"parts": part_rows(served.chosen)} if served and served.chosen.plan.is_split else {}

    def _document(self) -> Any:
        queries = {
            name: {
                **vars(decision),
                **self._parts(name),
                "metric": self._shown(decision)[1],
                "search": self.plan.file.coverage.get(self.queries[name].pipeline),
                "measured_since": self.queries[name].pipeline in self.measured_since,
                "unsearched": name in self.unsearched,
                "corrections": self.corrections([self.queries[name].pipeline]),
            }
            for name, decision in self.decisions().items()
        }
        matching = self.plan.matching
        shared = {"deployments": matching.deployments, "prices": matching.prices} if self.complete else {}
        return {"queries": queries, **shared}

    def print(self, console: Console | None = None) -> None:
        """Print the explanation as `circinus explain` does."""
        console, matching = console or EscapingConsole(), self.plan.matching
        for assignment in matching.assignments:
            if assignment.query in self.queries:
                console.print(assignment_explanation(assignment, *self._shown(assignment)))
        for rejection in matching.rejections:
            if rejection.query in self.queries:
                console.print(rejection_explanation(rejection, *self._shown(rejection)))
        if self.unsearched:
            reason = self.unsearched_reason or f"`circinus explain {self.unsearched[0]}` does"
            text = f"changes that would serve {', '.join(self.unsearched)} were not searched: {reason}"
            console.print(Text(text, style="yellow"))
        for name in sorted({query.pipeline for query in self.queries.values()} & self.plan.file.coverage.keys()):
            since = (
                "; it was measured further since, `circinus plan` decides again" if name in self.measured_since else ""
            )
            text = f"pipeline {name}: {self.plan.file.coverage[name]}{since}"
            console.print(text, markup=False, highlight=False)
        corrections = self.corrections()
        if corrections:
            from circinus.reporting.profile_table import correction_table

            console.print(correction_table(corrections))
        if self.complete:
            if matching.deployments:
                console.print(deployment_table(matching.deployments))
                pools = self.specification.required_infrastructure.pools
                if spare := spare_replicas_text(matching.deployments, pools):
                    console.print(Text(spare))
            console.print(price_table(matching))


@dataclass(frozen=True, repr=False)
class FrontierReport(Result):
    """Frontier of one query: the plans that no other plan beats in cost and in the resources of each pool.

    Plans are estimated alone, with replicas of their own at utilization targets. A `Plan` has its choice as sized
    beside the other queries, which may be cheaper and quicker. A plan that costs as much as another and is slower is
    listed if it takes fewer CPUs, GPUs or bytes of memory in some pool: the other queries may need them. A frontier
    without plans has the reason as its text.

    Example:
        >>> frontier = workspace.frontier("archive")
        >>> frontier.rows()[0]["latency_s"] > 0
        True
        >>> list(frontier.to_frame().columns)[:2]
        ['configuration', 'placement']
    """

    _COLUMNS = (*COLUMNS[:2], "allocation", *COLUMNS[2:], "chosen")

    frontier: Frontier
    plan: Plan | None = None
    """Plan whose choice the column `chosen` marks; without it the column is empty."""
    metric: str = ACCURACY
    """Name of the metric that the accuracy is a mean of."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each plan of the frontier."""
        marked, rows = self._marked, []
        for candidate in self.frontier.plans:
            row = {
                **columns(candidate),
                "allocation": allocations(candidate.plan),
                "chosen": None if self.plan is None else candidate is marked,
            }
            rows.append({name: row[name] for name in self._COLUMNS})
        return rows

    @property
    def _marked(self) -> PlanCandidate | None:
        """Return the plan that was chosen, or the first that differs from it in utilization targets only."""
        from circinus.matching.target_fitting import without_targets

        if self._chosen is None:
            return None
        chosen, plans = self._chosen.plan, self.frontier.plans
        others = [c for c in plans if without_targets(c.plan) == without_targets(chosen)]
        return next((c for c in plans if c.plan == chosen), others[0] if others else None)

    @property
    def _chosen(self) -> PlanCandidate | None:
        served = None if self.plan is None else self.plan.get(self.frontier.query.name)
        return None if served is None else served.chosen

    def _document(self) -> Any:
        return {
            "query": self.frontier.query.name,
            "plans": self.rows(),
            "as_sized": None if self._chosen is None else columns(self._chosen),
            "reason": self.frontier.reason,
        }

    def _remark(self) -> str:
        remark = "each plan alone, with its own replicas at utilization targets"
        if self._chosen is None:
            return remark
        estimate = self._chosen.estimate
        latency, cost = format_duration(estimate.latency_s.value), format_usd_per_h(estimate.cost_usd_per_h.value)
        return f"{remark}; as sized beside the other queries, the plan's choice takes {latency} and costs {cost}"

    def _empty(self) -> str:
        return f"no plan: {with_metric(self.frontier.reason, self.metric)}"

    def plot(self, axes: Any = None) -> Any:
        """Plot latency against cost, coloured by the metric, and return the Matplotlib axes.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        from matplotlib import pyplot

        axes = pyplot.subplots()[1] if axes is None else axes
        rows = self.rows()
        points = axes.scatter(
            [row["cost_usd_per_h"] for row in rows],
            [row["latency_s"] for row in rows],
            c=[row["accuracy"] for row in rows],
        )
        axes.figure.colorbar(points, label=self.metric)
        axes.set(xlabel="cost (US dollars per hour)", ylabel="latency (s)", title=self.frontier.query.name)
        return axes
