"""What is watched while plans are in force, and what it is held against."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from circinus.control.drift.audit_scores import Agreements, AuditScore
from circinus.control.drift.baselines import AccuracyBaseline, ServiceTimeBaseline, scaled_late_share
from circinus.control.drift.drift_tests import (
    AccuracyMonitor,
    DriftAlarm,
    DriftSettings,
    DriftState,
    LatencySloMonitor,
    MonitorSample,
    ServiceTimeMonitor,
    Watch,
    reset_monitors,
    update_monitors,
)
from circinus.control.drift.status_deltas import LateShareReader, NewBatchReader
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.serving import EngineStatus
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import Deployment, Query, QueryPlan, Specification, prefix_configuration


@dataclass(frozen=True, eq=False)
class Baselines:
    """What live values are held against."""

    services: Mapping[ServiceTimeMonitor, ServiceTimeBaseline]
    prefixes: Mapping[tuple[Deployment, str], ServiceTimeMonitor]
    """(deployment, label of the prefix) -> what a batch there says something of."""
    accuracies: Mapping[tuple[str, str], ConfigurationProfile]
    """(pipeline, label) -> what was profiled of a configuration that some plan has."""
    queries: Mapping[str, Query]
    unwatched: tuple[str, ...]
    """What is not watched, and why."""
    risk: float
    """Of each side of each of them."""

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
        """For all plans that queries may be on."""
        assert specification.infrastructure is not None, "plans are made for one"
        used = list(dict.fromkeys(plan for its in plans.values() for plan in its))
        measured = {
            (name, found.configuration): found for name, its in profiles.items() for found in its.configurations
        }
        prefixes: dict[tuple[Deployment, str], ServiceTimeMonitor] = {}
        known = {}
        for plan in used:
            profile = measured.get((plan.pipeline, plan.configuration))
            pipeline = specification.pipelines[plan.pipeline]
            for name in () if profile is None else profile.operators:
                deployment, before = plan.deployment_of(name), prefix_configuration(pipeline, plan.configuration, name)
                hardware = specification.infrastructure.pool(deployment.pool).hardware
                watch = ServiceTimeMonitor(plan.pipeline, name, before, hardware.name)
                prefixes[deployment, configuration_hash(before)] = watch
                assert profile is not None
                known[watch] = profile.operators[name], hardware
        accuracies = {
            (plan.pipeline, configuration_hash(plan.configuration)): measured[plan.pipeline, plan.configuration]
            for plan in used
            if (plan.pipeline, plan.configuration) in measured
        }
        # An answer is held against the truth or against another's answer: either may be wrong.
        risk = settings.reference_risk / max(2 * (len(known) + 2 * len(accuracies)), 1)
        services, unwatched = {}, []
        for watch, (operator, hardware) in known.items():
            reference = ServiceTimeBaseline.of(
                operator,
                hardware,
                tolerance=settings.service_tolerance,
                risk=risk,
                least_s=settings.service_least_s,
                corrected=not replays,
            )
            if reference is None:
                unwatched.append(f"{watch}: it was profiled on {len(operator.service_s)} items only")
            else:
                services[watch] = reference
        queries = {query.name: query for query in specification.queries if query.name in plans}
        return cls(services, prefixes, accuracies, queries, tuple(unwatched), risk)


class MonitorSet:
    """Tells what moved. Keeps what it read last; what follows from it is decided by `watches`."""

    def __init__(
        self,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        profiles: Mapping[str, PipelineProfile],
        settings: DriftSettings | None = None,
        *,
        replays: bool = False,
        agreements: Agreements | None = None,
    ) -> None:
        """Nothing was seen.

        Args:
            specification: queries, pipelines, infrastructure.
            plans: query -> all plans that it may be on.
            profiles: pipeline -> what was measured, with the corrections that were planned with.
            settings: what is promised.
            replays: whether the engine replays.
            agreements: what to expect of scores against other answers than the truth (`expected_agreements`).
        """
        self.settings = settings or DriftSettings()
        self.state = DriftState()
        self._replays = replays
        self._batches = NewBatchReader()
        self._late = LateShareReader(self.settings.block_s, self.settings.block_answers)
        self._compiled: dict[tuple[str, str, object], AccuracyBaseline] = {}
        self._specification = specification
        self._profiles = profiles
        self._agreements = agreements or {}
        self._without_truth: frozenset[str] = frozenset()
        self.references = Baselines.of(specification, plans, profiles, self.settings, replays=replays)

    @property
    def unwatched(self) -> tuple[str, ...]:
        """What is not watched, and why."""
        return self.references.unwatched

    def look(
        self, now_s: float, time_s: float, status: EngineStatus, scores: Sequence[AuditScore] = ()
    ) -> tuple[DriftAlarm, ...]:
        """What moved, each thing once until it was measured again.

        Args:
            now_s: by a clock that never goes back.
            time_s: the same moment, in seconds since 1970.
            status: of the engine.
            scores: of answers that were audited since the last look.
        """
        seen = [*self._services(time_s, status), *self._late_shares(now_s, time_s, status), *self._scored(scores)]
        self.state, moved = update_monitors(self.state, seen, now_s, self.settings)
        return moved

    def rebuild(
        self,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        profiles: Mapping[str, PipelineProfile],
        agreements: Agreements | None = None,
        without_truth: Collection[str] | None = None,
    ) -> None:
        """Other plans are in force, or something was measured again.

        What is held against something else than before begins anew, and so does the share of late requests of a query
        that told that it moved; what has not changed goes on.

        Args:
            specification: queries, pipelines, infrastructure.
            plans: query -> all plans that it may be on.
            profiles: pipeline -> what was measured; the very object where nothing was measured again.
            agreements: what to expect of scores against other answers than the truth (`Reprofiled.over`); None: as
                before.
            without_truth: pipelines whose profiles have scores against other answers than the truth
                (`Reprofiled.without_truth`): of scores against truths nothing can be expected there. None: as before.
        """
        before = self.references
        now = Baselines.of(specification, plans, profiles, self.settings, replays=self._replays)
        remeasured = {name for name, profile in profiles.items() if profile is not self._profiles.get(name)}
        keep: dict[Watch, bool] = {
            watch: before.services.get(watch) is not None and _same(before.services[watch], reference)
            for watch, reference in now.services.items()
        }
        for name, query in now.queries.items():
            keep[AccuracyMonitor(name, query.pipeline)] = query.pipeline not in remeasured
            keep[LatencySloMonitor(name)] = not self._told(LatencySloMonitor(name))
        self.references, self._specification, self._profiles = now, specification, profiles
        self._agreements = self._agreements if agreements is None else agreements
        self._without_truth = self._without_truth if without_truth is None else frozenset(without_truth)
        self._compiled.clear()
        self.state = reset_monitors(self.state, keep)

    def _told(self, watch: Watch) -> bool:
        return watch in self.state.watches and self.state.watches[watch].reported

    def _services(self, time_s: float, status: EngineStatus) -> Iterable[MonitorSample]:
        for deployment, batches in self._batches.read(status.deployments).items():
            for label, together in groupby(batches, key=lambda batch: batch.prefix):
                watch = self.references.prefixes.get((deployment, label))
                reference = None if watch is None else self.references.services.get(watch)
                if watch is None or reference is None:
                    continue
                for batch in together:
                    placed = reference.placed(batch, deployment.allocation)
                    if placed is not None:
                        yield MonitorSample(watch, time_s, placed)

    def _late_shares(self, now_s: float, time_s: float, status: EngineStatus) -> Iterable[MonitorSample]:
        slos = {
            name: query.slos.latency
            for name, query in self.references.queries.items()
            if query.slos.latency is not None
        }
        shares = self._late.read(now_s, status.queries, {name: slo.limit_s for name, slo in slos.items()})
        for name, share in shares.items():
            yield MonitorSample(LatencySloMonitor(name), time_s, scaled_late_share(share, slos[name].percentile))

    def _scored(self, scores: Sequence[AuditScore]) -> Iterable[MonitorSample]:
        for one in scores:
            reference = self._accuracy(one)
            if reference is not None and one.query in self.references.queries:
                yield MonitorSample(AccuracyMonitor(one.query, one.pipeline), one.time_s, reference.placed(one.score))

    def _accuracy(self, one: AuditScore) -> AccuracyBaseline | None:
        key = one.pipeline, one.configuration, one.reference
        if key in self._compiled:
            return self._compiled[key]
        profile = self.references.accuracies.get((one.pipeline, one.configuration))
        if profile is None:
            return None  # of a plan that was in force before
        if one.reference is None and one.pipeline in self._without_truth:
            return None
        metric, settings, risk = self._specification.pipelines[one.pipeline].metric, self.settings, self.references.risk
        tolerance = settings.accuracy_tolerance
        if one.reference is None:
            found = AccuracyBaseline.of_scores(profile.scores, metric, tolerance=tolerance, risk=risk)
        else:
            agreement = self._agreements.get((one.pipeline, profile.configuration, one.reference))
            if agreement is not None and len(agreement):
                found = AccuracyBaseline.of_scores(agreement, metric, tolerance=tolerance, risk=risk)
            else:
                others = [c for c in self._profiles[one.pipeline].configurations if c.configuration == one.reference]
                if not others:
                    return None
                found = AccuracyBaseline.through(
                    profile.scores, others[0].scores, metric, tolerance=tolerance, risk=risk
                )
        self._compiled[key] = found
        return found


def _same(one: ServiceTimeBaseline, other: ServiceTimeBaseline) -> bool:
    """Whether it is of the same measurements; how many others there are changes how sure it is, no more."""
    return (one.expected_s, one.centre) == (other.expected_s, other.centre)
