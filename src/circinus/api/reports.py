"""Reports of validation, profiling, simulation and load tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from circinus.api.result import NamedResults, Result
from circinus.specification import configuration_count

if TYPE_CHECKING:
    from circinus.profiling import HardwareClassReport, ImportedTime, PipelineProfile, ServiceTimeObservation
    from circinus.serving.loadtest.load_report import LoadReport as MeasuredLoad
    from circinus.serving.loadtest.load_report import QueryMeasurement
    from circinus.simulation import SimulationReport as SimulatedLoad
    from circinus.simulation.report import QueryOutcome
    from circinus.specification import Specification


@dataclass(frozen=True, repr=False)
class ValidationReport(Result):
    """A specification without problems, in figures.

    Example:
        >>> workspace.validate().rows()
        [{'pipeline': 'mend', 'operators': 2, 'configurations': 8}]
    """

    specification: Specification

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers of operators and configurations of each pipeline."""
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


@dataclass(frozen=True, repr=False)
class ProfileReport(NamedResults["PipelineProfile"]):
    """Profiles of pipelines: accuracy, service times and sizes with their bounds.

    Example:
        >>> report = workspace.profile_report()
        >>> report["mend"].dataset_items
        120
        >>> best = max(report.rows(), key=lambda row: row["accuracy"])
        >>> best["accuracy_lower"] <= best["accuracy"] <= best["accuracy_upper"]
        True
    """

    profiles: Mapping[str, PipelineProfile]
    specification: Specification
    observations: Mapping[str, Sequence[ServiceTimeObservation]] = field(default_factory=dict)
    """Pipeline -> service times observed under traffic."""
    imported: Mapping[str, Sequence[ImportedTime]] = field(default_factory=dict)
    """Pipeline -> times on hardware classes from tables."""

    @property
    def _by_name(self) -> Mapping[str, PipelineProfile]:
        return self.profiles

    @property
    def hardware_classes(self) -> Mapping[str, Sequence[HardwareClassReport]]:
        """Pipeline -> measurements on further hardware classes."""
        return {name: profile.class_reports for name, profile in self.items() if profile.class_reports}

    @property
    def interrupted(self) -> bool:
        """True if the measurement was interrupted; the same call resumes it."""
        return any(profile.interrupted for profile in self.profiles.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measured configuration: its knobs, items, accuracy, and verdict with reason."""
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
                        "service_s": measured.mean_service_s,
                        "verdict": None if verdict is None else verdict.verdict,
                        "reason": None if verdict is None else verdict.reason,
                    }
                )
        return rows

    def _document(self) -> Any:
        from circinus.api.profile_summary import profile_summary

        return {
            "profiles": [
                profile_summary(
                    profile, self.specification, self.observations.get(name, ()), self.imported.get(name, ())
                )
                for name, profile in self.profiles.items()
            ]
        }


@dataclass(frozen=True, repr=False)
class LearntServiceTimes(Result):
    """Service times observed under traffic, which correct later plans.

    Example:
        >>> learnt = workspace.learnt()
        >>> learnt.observations, learnt.rows()
        ((), [])
    """

    observations: tuple[ServiceTimeObservation, ...]
    """Observations of deployments by run of traffic, oldest first."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each operator with its knobs and hardware: the mean ratio to the profile, and its basis."""
        groups: dict[tuple[str, ...], list[ServiceTimeObservation]] = {}
        for seen in self.observations:
            key = (seen.pipeline, seen.operator, str(seen.knobs), seen.hardware_class, seen.mode)
            groups.setdefault(key, []).append(seen)
        names = ("pipeline", "operator", "knobs", "hardware_class", "mode")
        return [
            {
                **dict(zip(names, key, strict=True)),
                "ratio": math.exp(sum(o.log_ratio * o.requests for o in group) / sum(o.requests for o in group)),
                "runs": len(group),
                "requests": sum(o.requests for o in group),
                "latest": f"{max(o.at for o in group)[:16]}Z".replace("T", " "),
            }
            for key, group in groups.items()
        ]

    def _empty(self) -> str:
        return "no service times learnt from traffic"

    def _document(self) -> Any:
        return {"operators": self.rows(), "observations": self.observations}


@dataclass(frozen=True, repr=False)
class SimulationReport(NamedResults["QueryOutcome"]):
    """Outcome of a simulation: latency, accuracy and cost of each query in simulated time.

    Example:
        >>> report = workspace.simulate(plan, load_factor=0.5, duration="5min")
        >>> report["archive"].satisfied
        True
        >>> [row["query"] for row in report.rows()]
        ['typing-aid', 'archive']
    """

    outcome: SimulatedLoad
    metrics: Mapping[str, str]
    """Query -> name of the metric whose mean is its accuracy."""

    @property
    def _by_name(self) -> Mapping[str, QueryOutcome]:
        return {outcome.query: outcome for outcome in self.outcome.queries}

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
        queries = [
            vars(query) | {"satisfied": query.satisfied, "metric": self.metrics.get(query.query)}
            for query in self.outcome.queries
        ]
        for query in queries:
            if not query["dropped"]:
                del query["dropped"]
        return vars(self.outcome) | {"queries": queries}


@dataclass(frozen=True, repr=False)
class LoadReport(NamedResults["QueryMeasurement"]):
    """Measurement of a load test: latency, accuracy and cost of each query, compared with its SLOs.

    Example:
        >>> with workspace.deploy(plan, mode="replay") as deployment:
        ...     report = deployment.load_test(duration="1s", warm_up="0s")
        >>> sorted(report), report.to_dict()["mode"]
        (['archive', 'typing-aid'], 'replay')
    """

    measured: MeasuredLoad
    items_sent: int = 0
    """Number of different items that requests chose from, in turns."""
    profiled_items_sent: int = 0
    """Number of these items that planning had measured; their accuracy is no test of the plan."""
    not_stored_reason: str = ""
    """Reason why no observed service times were stored; empty if some were."""
    warnings: tuple[str, ...] = ()
    """Warnings: operators whose recordings for a replay other programs disturbed, or the end of the engine."""

    @property
    def _by_name(self) -> Mapping[str, QueryMeasurement]:
        return {measurement.query: measurement for measurement in self.measured.queries}

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of the served queries that miss an SLO beyond chance."""
        return tuple(query.query for query in self.measured.queries if query.verdict == "no")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each query: its figures and whether its SLOs are met."""
        return [
            {
                "query": query.query,
                "served": query.served,
                "satisfied": query.satisfied,
                "verdict": query.verdict,
                "requests": query.requests,
                "failures": query.failures,
                "dropped": query.dropped,
                "unanswered": query.unanswered,
                "latency_s": None if query.latency_s is None else query.latency_s.at_percentile_s,
                "accuracy": query.score,
                "cost_usd_per_h": query.cost_usd_per_h,
            }
            for query in self.measured.queries
        ]

    def _document(self) -> Any:
        return {
            **vars(self.measured),
            "totals": self.measured.totals,
            "items_sent": self.items_sent,
            "items_sent_seen_by_planning": self.profiled_items_sent,
            "observations_kept": not self.not_stored_reason,
            "warnings": self.warnings,
        }
