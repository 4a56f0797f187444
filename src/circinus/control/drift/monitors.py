"""Monitors of the current plans, and their baselines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from circinus.control.drift.audit_scores import Agreements, AuditScore
from circinus.control.drift.baselines import AccuracyBaseline, RunsBaseline, ServiceTimeBaseline, scaled_late_share
from circinus.control.drift.drift_tests import (
    AccuracyMonitor,
    DriftAlarm,
    DriftState,
    LatencySloMonitor,
    MonitorSample,
    RunsMonitor,
    ServiceTimeMonitor,
    Watch,
    reset_monitors,
    update_monitors,
)
from circinus.control.drift.status_deltas import LateShareReader, NewBatchReader, NewRunsReader
from circinus.control.settings import DriftSettings
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.serving import EngineStatus
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import (
    Deployment,
    HardwareClass,
    LatencySlo,
    Query,
    QueryPlan,
    Specification,
    prefix_configuration,
)


@dataclass(frozen=True, eq=False)
class Baselines:
    """Baselines of live values."""

    services: Mapping[ServiceTimeMonitor, ServiceTimeBaseline]
    prefixes: Mapping[tuple[Deployment, str], ServiceTimeMonitor]
    """(deployment, label of the prefix) -> monitor of its batches."""
    accuracies: Mapping[tuple[str, str], ConfigurationProfile]
    """(pipeline, label) -> profile of a configuration that some plan uses."""
    runs: Mapping[tuple[str, str], Mapping[RunsMonitor, RunsBaseline]]
    """(pipeline, label of a configuration) -> baselines of its operators that may run never or several times."""
    queries: Mapping[str, Query]
    latencies: Mapping[str, LatencySlo]
    """Latency SLOs of the queries whose late requests are monitored."""
    unwatched: tuple[str, ...]
    """Unmonitored parts with the reason."""
    risk: float
    """Error probability of each side of each baseline."""

    @classmethod
    def of(
        cls,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        profiles: Mapping[str, PipelineProfile],
        settings: DriftSettings,
        *,
        replays: bool,
    ) -> Baselines:
        """Return the baselines of all plans that queries may use, none of which is split.

        A replay has none of service times and of late requests: its replicas sleep recorded times, so that a deviation
        is that of the machine that replays.
        """
        infrastructure = specification.required_infrastructure
        distinct_plans = list(dict.fromkeys(plan for query_plans in plans.values() for plan in query_plans))
        measured = {
            (name, profiled.configuration): profiled
            for name, profile in profiles.items()
            for profiled in profile.configurations
        }
        prefixes: dict[tuple[Deployment, str], ServiceTimeMonitor] = {}
        operators: dict[ServiceTimeMonitor, tuple[OperatorProfile, HardwareClass]] = {}
        accuracies: dict[tuple[str, str], ConfigurationProfile] = {}
        for plan in distinct_plans:
            profile = measured.get((plan.pipeline, plan.configuration))
            if profile is None:
                continue
            accuracies[plan.pipeline, configuration_hash(plan.configuration)] = profile
            if replays:
                continue
            pipeline = specification.pipelines[plan.pipeline]
            for name, operator in profile.operators.items():
                deployment, prefix = plan.deployment_of(name), prefix_configuration(pipeline, plan.configuration, name)
                hardware = infrastructure.pool(deployment.pool).hardware
                monitor = ServiceTimeMonitor(plan.pipeline, name, prefix, hardware.name)
                prefixes[deployment, configuration_hash(prefix)] = monitor
                operators[monitor] = operator, hardware
        # Scores are compared with ground truth or with a reference's outputs: two baselines per configuration.
        several = sum(o.runs is not None for profiled in accuracies.values() for o in profiled.operators.values())
        risk = settings.reference_risk / max(2 * (len(operators) + 2 * len(accuracies) + several), 1)
        runs = {
            key: {
                RunsMonitor(key[0], name, operator.prefix): baseline
                for name, operator in profiled.operators.items()
                if operator.runs is not None
                and (baseline := RunsBaseline.of(operator, tolerance=settings.runs_tolerance, risk=risk)) is not None
            }
            for key, profiled in accuracies.items()
        }
        services, unwatched = {}, []
        for monitor, (operator, hardware) in operators.items():
            reference = ServiceTimeBaseline.of(
                operator,
                hardware,
                tolerance=settings.service_tolerance,
                risk=risk,
                tolerance_s=settings.service_tolerance_s,
            )
            if reference is None:
                unwatched.append(f"{monitor}: profiled on only {len(operator.service_s)} items")
            else:
                services[monitor] = reference
        queries = {query.name: query for query in specification.queries if query.name in plans}
        latencies = {
            name: query.slos.latency
            for name, query in queries.items()
            if query.slos.latency is not None and not replays
        }
        return cls(services, prefixes, accuracies, runs, queries, latencies, tuple(unwatched), risk)


class MonitorSet:
    """Monitors with the readers of the engine's counters. `update_monitors` holds the decision logic."""

    def __init__(
        self,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        profiles: Mapping[str, PipelineProfile],
        settings: DriftSettings | None = None,
        *,
        replays: bool = False,
        agreements: Agreements | None = None,
        without_truth: Collection[str] = (),
        previous: MonitorSet | None = None,
    ) -> None:
        """Start without observations, or continue the monitors of other plans or of profiles before re-profiling.

        Monitors with a changed baseline restart, as does the late share of a query that raised an alarm; others
        continue.

        Args:
            specification: queries, pipelines and infrastructure.
            plans: query -> all plans that it may use, parts of split ones.
            profiles: pipeline -> profile, with the corrections used in planning; the identical object as in `previous`
                if it was not re-profiled.
            settings: false-alarm rate and tolerances.
            replays: whether the engine runs in replay mode, which shows the accuracy of answers only.
            agreements: expected scores against reference outputs (`expected_agreements`, or
                `ProfileOverrides.agreements`).
            without_truth: pipelines whose profiles were scored against reference outputs
                (`ProfileOverrides.without_truth`), so that scores against ground truth have no baseline.
            previous: monitors to continue; not to be used any more.
        """
        self.settings = settings or DriftSettings()
        self._baseline_cache: dict[tuple[str, str, object], AccuracyBaseline] = {}
        self._specification, self._profiles = specification, profiles
        self._agreements, self._without_truth = agreements or {}, without_truth
        self.references = Baselines.of(specification, plans, profiles, self.settings, replays=replays)
        if previous is None:
            self.state = DriftState()
            self._batch_reader = NewBatchReader()
            self._late_reader = LateShareReader(self.settings.block_s, self.settings.block_answers)
            self._runs_reader = NewRunsReader()
        else:
            self.state = reset_monitors(previous.state, self._unchanged(previous))
            self._batch_reader, self._late_reader = previous._batch_reader, previous._late_reader
            self._runs_reader = previous._runs_reader

    @property
    def unwatched(self) -> tuple[str, ...]:
        """Unmonitored parts with the reason."""
        return self.references.unwatched

    def look(
        self, now_s: float, time_s: float, status: EngineStatus, scores: Sequence[AuditScore] = ()
    ) -> tuple[DriftAlarm, ...]:
        """Return new alarms, each subject once until it is re-profiled."""
        samples = [
            *self._service_samples(time_s, status),
            *self._runs_samples(time_s, status),
            *self._late_samples(now_s, time_s, status),
            *self._accuracy_samples(scores),
        ]
        self.state, alarms = update_monitors(self.state, samples, now_s, self.settings)
        return alarms

    def _unchanged(self, previous: MonitorSet) -> dict[Watch, bool]:
        """Return monitor -> whether it continues that of other plans."""
        before = previous.references.services
        remeasured = {name for name, profile in self._profiles.items() if profile is not previous._profiles.get(name)}
        unchanged: dict[Watch, bool] = {
            monitor: monitor in before and _is_same_measurement(before[monitor], reference)
            for monitor, reference in self.references.services.items()
        }
        for (pipeline, _), baselines in self.references.runs.items():
            unchanged |= dict.fromkeys(baselines, pipeline not in remeasured)
        for name, query in self.references.queries.items():
            unchanged[AccuracyMonitor(name, query.pipeline)] = query.pipeline not in remeasured
            late = previous.state.watches.get(LatencySloMonitor(name))
            unchanged[LatencySloMonitor(name)] = late is None or not late.reported
        return unchanged

    def _service_samples(self, time_s: float, status: EngineStatus) -> Iterable[MonitorSample]:
        for deployment, batches in self._batch_reader.read(status.deployments).items():
            for label, group in groupby(batches, key=lambda batch: batch.prefix):
                monitor = self.references.prefixes.get((deployment, label))
                reference = None if monitor is None else self.references.services.get(monitor)
                if monitor is None or reference is None:
                    continue
                for batch in group:
                    placed = reference.placed(batch, deployment.allocation)
                    if placed is not None:
                        yield MonitorSample(monitor, time_s, placed)

    def _runs_samples(self, time_s: float, status: EngineStatus) -> Iterable[MonitorSample]:
        for query, requests in self._runs_reader.read(status.queries).items():
            if query not in self.references.queries:
                continue
            pipeline = self.references.queries[query].pipeline
            for request in requests:
                for monitor, baseline in self.references.runs.get((pipeline, request.configuration), {}).items():
                    yield MonitorSample(monitor, time_s, baseline.placed(request.runs.get(monitor.operator, 0)))

    def _late_samples(self, now_s: float, time_s: float, status: EngineStatus) -> Iterable[MonitorSample]:
        slos = self.references.latencies
        shares = self._late_reader.read(now_s, status.queries, slos)
        for name, share in shares.items():
            yield MonitorSample(LatencySloMonitor(name), time_s, scaled_late_share(share, slos[name].percentile))

    def _accuracy_samples(self, scores: Sequence[AuditScore]) -> Iterable[MonitorSample]:
        for score in scores:
            reference = self._accuracy_baseline(score)
            if reference is not None and score.query in self.references.queries:
                yield MonitorSample(
                    AccuracyMonitor(score.query, score.pipeline), score.time_s, reference.placed(score.score)
                )

    def _accuracy_baseline(self, score: AuditScore) -> AccuracyBaseline | None:
        key = score.pipeline, score.configuration, score.reference
        if key in self._baseline_cache:
            return self._baseline_cache[key]
        profile = self.references.accuracies.get((score.pipeline, score.configuration))
        if profile is None:
            return None  # answer of a previous plan
        if score.reference is None and score.pipeline in self._without_truth:
            return None
        metric, risk = self._specification.pipelines[score.pipeline].metric, self.references.risk
        tolerance = self.settings.accuracy_tolerance
        if score.reference is None:
            baseline = AccuracyBaseline.of_scores(profile.scores, metric, tolerance=tolerance, risk=risk)
        else:
            agreement = self._agreements.get((score.pipeline, profile.configuration, score.reference))
            if agreement is not None and len(agreement):
                baseline = AccuracyBaseline.of_scores(agreement, metric, tolerance=tolerance, risk=risk)
            else:
                profiled = self._profiles[score.pipeline].configurations
                references = [c for c in profiled if c.configuration == score.reference]
                if not references:
                    return None
                baseline = AccuracyBaseline.through(
                    profile.scores, references[0].scores, metric, tolerance=tolerance, risk=risk
                )
        self._baseline_cache[key] = baseline
        return baseline


def _is_same_measurement(baseline: ServiceTimeBaseline, other: ServiceTimeBaseline) -> bool:
    """Return whether both derive from equal measurements; the number of monitors changes their bounds only."""
    return (baseline.expected_s, baseline.mean_log) == (other.expected_s, other.mean_log)
