"""Results of the workspace's methods: typed, with `to_dict`, `to_frame` and a table in notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from circinus.api.result import Result

if TYPE_CHECKING:
    from circinus.estimation import Estimate
    from circinus.matching import Admission, Assignment, Matching, PlanDiff, PlanFile, Rejection
    from circinus.planning import Frontier
    from circinus.profiling import HardwareClassReport, PipelineProfile
    from circinus.serving.loadtest.load_report import LoadReport as MeasuredLoad
    from circinus.serving.loadtest.load_report import QueryMeasurement
    from circinus.simulation import SimulationReport as SimulatedLoad
    from circinus.simulation.report import QueryOutcome
    from circinus.specification import Query, Specification


def _probability(estimate: Estimate) -> float | None:
    return None if estimate.slo_probability is None else estimate.slo_probability.joint


@dataclass(frozen=True)
class ValidationReport(Result):
    """A specification without problems, in figures."""

    specification: Specification

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers of operators and configurations of each pipeline."""
        from circinus.specification import configuration_count

        return [
            {"pipeline": name, "operators": len(pipeline.operators), "configurations": configuration_count(pipeline)}
            for name, pipeline in self.specification.pipelines.items()
        ]

    def _document(self) -> Any:
        infrastructure = self.specification.infrastructure
        return {
            "files": list(self.specification.files),
            "passed_over": list(self.specification.skipped_documents),
            "pipelines": {row.pop("pipeline"): row for row in self.rows()},
            "pools": len(infrastructure.pools) if infrastructure else 0,
            "queries": [query.name for query in self.specification.queries],
        }


@dataclass(frozen=True)
class ProfileReport(Result, Mapping[str, "PipelineProfile"]):
    """Profiles of pipelines: accuracy, service times and sizes with their bounds."""

    profiles: Mapping[str, PipelineProfile]
    specification: Specification
    hardware_classes: Mapping[str, Sequence[HardwareClassReport]] = field(default_factory=dict)
    """Pipeline -> measurements on further hardware classes."""

    def __getitem__(self, pipeline: str) -> PipelineProfile:
        return self.profiles[pipeline]

    def __iter__(self) -> Iterator[str]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)

    @property
    def interrupted(self) -> bool:
        """Whether the measurement was interrupted; the same call resumes it."""
        return any(profile.interrupted for profile in self.profiles.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measured configuration: its knobs, items, accuracy with bounds, and verdict."""
        rows = []
        for name, profile in self.profiles.items():
            for measured in profile.configurations:
                verdict = profile.verdicts.get(measured.configuration)
                rows.append(
                    {
                        "pipeline": name,
                        "configuration": str(measured.configuration),
                        "items": len(measured.items),
                        "accuracy": measured.accuracy.value,
                        "accuracy_lower": measured.accuracy.lower,
                        "accuracy_upper": measured.accuracy.upper,
                        "service_s": sum(float(o.service_s.mean()) for o in measured.operators.values()),
                        "verdict": None if verdict is None else verdict.verdict,
                    }
                )
        return rows

    def _document(self) -> Any:
        from circinus.api.profile_summary import profile_summary

        return {
            "profiles": [
                profile_summary(profile, self.specification, self.hardware_classes.get(name, ()))
                for name, profile in self.profiles.items()
            ]
        }


@dataclass(frozen=True)
class Plan(Result, Mapping[str, "Assignment"]):
    """The plans of all queries: configuration, placement and allocation of each served query.

    Indexing by a query's name gives its `Assignment`; `rejected` has the queries without a plan.
    """

    file: PlanFile
    path: Path | None = None
    """Plan file that it was read from or written to."""
    warnings: tuple[str, ...] = ()
    changes: PlanDiff | None = None
    """Differences from the incumbent plan, if there was one."""

    @property
    def matching(self) -> Matching:
        """Assignments, rejections and deployments of the plan."""
        return self.file.matching

    @property
    def rejected(self) -> Mapping[str, Rejection]:
        """Query -> reason and relaxation, for each query without a plan."""
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
        raise KeyError(query)

    def __iter__(self) -> Iterator[str]:
        return (assignment.query for assignment in self.matching.assignments)

    def __len__(self) -> int:
        return len(self.matching.assignments)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: whether it is served, its plan and its estimate."""
        rows = []
        for assignment in self.matching.assignments:
            plan, estimate = assignment.chosen.plan, assignment.chosen.estimate
            rows.append(
                {
                    "query": assignment.query,
                    "served": True,
                    "configuration": str(plan.configuration),
                    "placement": ", ".join(f"{name}: {pool}" for name, pool in plan.placement),
                    "latency_s": estimate.latency_s.value,
                    "accuracy": estimate.accuracy.value,
                    "cost_usd_per_h": estimate.cost_usd_per_h.value,
                    "slo_probability": _probability(estimate),
                    "reason": assignment.reason,
                }
            )
        for rejection in self.matching.rejections:
            absent = dict.fromkeys(
                ("configuration", "placement", "latency_s", "accuracy", "cost_usd_per_h", "slo_probability")
            )
            rows.append({"query": rejection.query, "served": False, **absent, "reason": rejection.reason})
        return rows

    def _document(self) -> Any:
        return {"file": self.path, "plan_set": self.file, "warnings": self.warnings, "changes": self.changes}

    def save(self, path: str | Path) -> Path:
        """Write the plan file, whole or not at all, and return its path.

        Raises:
            PlanningError: it cannot be written.
        """
        from circinus.matching import save_plan_set

        save_plan_set(self.file, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a plan file; `Workspace.check_fresh` compares it with the specification.

        Raises:
            PlanningError: the file does not exist, or it is no plan file of this version.
        """
        from circinus.matching import load_plan_set

        return cls(load_plan_set(Path(path)), Path(path))


@dataclass(frozen=True)
class AdmissionResult(Result):
    """Answer of admission control for one query."""

    query: str
    admission: Admission
    plan: Plan
    """Plan with the query if it was admitted, else the plan as it was."""
    added_usd_per_h: float
    """Increase of the plan's cost, in US dollars per hour."""
    answered_s: float

    @property
    def admitted(self) -> bool:
        """Whether the query fits beside the running ones."""
        return self.admission.assignment is not None

    def __bool__(self) -> bool:
        return self.admitted

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: the answer, its cost and its reason."""
        decision = self.admission.assignment or self.admission.rejection
        reason = "" if decision is None else decision.reason
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
            "admitted": self.admitted,
            "assignment": self.admission.assignment,
            "rejection": self.admission.rejection,
            "binding": self.admission.binding,
            "more_usd_per_h": self.added_usd_per_h if self.admitted else None,
            "answered_s": self.answered_s,
        }


@dataclass(frozen=True)
class Explanation(Result):
    """Reasons of a plan: for each query its decision, the alternatives, and what would change it."""

    plan: Plan
    queries: Mapping[str, Query]
    """The explained queries."""

    def decisions(self) -> Mapping[str, Assignment | Rejection]:
        """Return the decision on each explained query."""
        matching = self.plan.matching
        decisions: dict[str, Assignment | Rejection] = {a.query: a for a in matching.assignments}
        decisions |= {rejection.query: rejection for rejection in matching.rejections}
        return {name: decisions[name] for name in self.queries}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query with its reason and the best alternative."""
        rows = []
        for name, decision in self.decisions().items():
            alternative = decision.alternatives[0].reason if decision.alternatives else None
            relaxation = getattr(decision, "relaxation", None)
            rows.append(
                {
                    "query": name,
                    "served": name in self.plan,
                    "reason": decision.reason,
                    "best_alternative": alternative,
                    "relaxation": None if relaxation is None else relaxation.change,
                }
            )
        return rows

    def _document(self) -> Any:
        return self.decisions()

    def print(self) -> None:
        """Print the explanation as `circinus explain` does."""
        from rich.console import Console

        from circinus.reporting.explanation import assignment_explanation, rejection_explanation

        console = Console()
        for assignment in self.plan.matching.assignments:
            if assignment.query in self.queries:
                console.print(assignment_explanation(assignment, self.queries[assignment.query]))
        for rejection in self.plan.matching.rejections:
            if rejection.query in self.queries:
                console.print(rejection_explanation(rejection, self.queries[rejection.query]))


@dataclass(frozen=True)
class FrontierReport(Result):
    """Frontier of one query: the plans that no other plan beats in cost and resources."""

    frontier: Frontier

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each plan, by ascending cost of the plan alone."""
        return [
            {
                "configuration": str(candidate.plan.configuration),
                "placement": ", ".join(f"{name}: {pool}" for name, pool in candidate.plan.placement),
                "latency_s": candidate.estimate.latency_s.value,
                "accuracy": candidate.estimate.accuracy.value,
                "cost_usd_per_h": candidate.estimate.cost_usd_per_h.value,
                "slo_probability": _probability(candidate.estimate),
            }
            for candidate in self.frontier.plans
        ]

    def _document(self) -> Any:
        return {"query": self.frontier.query.name, "plans": self.rows(), "reason": self.frontier.reason}

    def plot(self, axes: Any = None) -> Any:
        """Plot latency against cost, coloured by accuracy, and return the Matplotlib axes.

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
        axes.figure.colorbar(points, label="accuracy")
        axes.set(xlabel="cost (US dollars per hour)", ylabel="latency (s)", title=self.frontier.query.name)
        return axes


@dataclass(frozen=True)
class SimulationReport(Result, Mapping[str, "QueryOutcome"]):
    """Outcome of a simulation: latency, accuracy and cost of each query in simulated time."""

    outcome: SimulatedLoad

    def __getitem__(self, query: str) -> QueryOutcome:
        for outcome in self.outcome.queries:
            if outcome.query == query:
                return outcome
        raise KeyError(query)

    def __iter__(self) -> Iterator[str]:
        return (outcome.query for outcome in self.outcome.queries)

    def __len__(self) -> int:
        return len(self.outcome.queries)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: its figures and whether its SLOs are met."""
        return [
            {
                "query": query.query,
                "satisfied": query.satisfied,
                "latency_s": query.at_percentile_s.value,
                "accuracy": query.score,
                "cost_usd_per_h": query.cost_usd_per_h,
            }
            for query in self.outcome.queries
        ]

    def _document(self) -> Any:
        queries = [vars(query) | {"satisfied": query.satisfied} for query in self.outcome.queries]
        return vars(self.outcome) | {"queries": queries}


@dataclass(frozen=True)
class LoadReport(Result, Mapping[str, "QueryMeasurement"]):
    """Measurement of a load test: latency, accuracy and cost of each query, held against its SLOs."""

    measured: MeasuredLoad
    items_sent: int = 0
    """Number of different items that were sent."""
    profiled_items_sent: int = 0
    """Number of those that planning had measured: their accuracy tests no promise."""

    def __getitem__(self, query: str) -> QueryMeasurement:
        for measurement in self.measured.queries:
            if measurement.query == query:
                return measurement
        raise KeyError(query)

    def __iter__(self) -> Iterator[str]:
        return (measurement.query for measurement in self.measured.queries)

    def __len__(self) -> int:
        return len(self.measured.queries)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: its figures and whether its SLOs are met."""
        return [
            {
                "query": query.query,
                "served": query.served,
                "satisfied": query.satisfied,
                "requests": query.requests,
                "failures": query.failures,
                "latency_s": None if query.latency_s is None else query.latency_s.at_percentile_s,
                "accuracy": query.score,
                "cost_usd_per_h": query.cost_usd_per_h,
            }
            for query in self.measured.queries
        ]

    def _document(self) -> Any:
        counts = {"items_sent": self.items_sent, "items_sent_seen_by_planning": self.profiled_items_sent}
        return {**vars(self.measured), **counts}
