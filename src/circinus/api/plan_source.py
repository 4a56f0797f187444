"""Plans that a controller deploys, from a plan file that may be overwritten meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.plan_context import LoadedPlan, load_plan, read_specification
from circinus.api.planning_service import apply_corrections, pipelines_in_use, plan_and_save
from circinus.api.profiling_service import load_profiles
from circinus.api.progress import ProgressFactory, no_progress
from circinus.api.traffic_items import record_configurations
from circinus.control.drift.auditor import expected_agreements
from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.drift.ground_truth import ChainedGroundTruth, DatasetGroundTruth, GroundTruthFile
from circinus.control.drift.reference_outputs import LiveReferenceRunner, ReplayReferenceRunner
from circinus.control.ladders.standby import StandbyReplicas, plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
from circinus.errors import StalePlanError
from circinus.matching import Incumbent
from circinus.operators.source_version import file_state
from circinus.profiling import save_observations
from circinus.serving import Mode
from circinus.serving.local.capacity import can_emulate

if TYPE_CHECKING:
    from circinus.control.drift.audit_scores import Agreements, AuditScore
    from circinus.control.drift.reference_outputs import ReferenceRunner
    from circinus.estimation import Corrections
    from circinus.profiling import PipelineProfile, ServiceTimeObservation
    from circinus.specification import Configuration, Infrastructure, Specification

Signature = tuple[tuple[str, int, int], ...]
"""(path, modification time in ns, size) of each file."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class PlanFileSource:
    """Source of plans: a plan, its file and the specification that it was made from. Without a file it never changes.

    Raises:
        PlanningError: the plan serves no query.
    """

    opened: LoadedPlan
    """Plan that was read last."""
    mode: Mode
    peak: float
    """Burst factor to keep standby replicas for; 1: none."""
    dwell_s: float
    audited_share: float = 0.0
    """Fraction of answered requests that are audited."""
    replay_items: int | None = None
    """Maximum number of held-out items recorded for each plan in a replay; None: all."""
    local_only: bool = False
    """True if this machine emulates all pools; it can emulate slower hardware, but not faster."""
    dry: bool = False
    """True to write nothing, the plan file included."""
    trust: bool = False
    """True to adopt plans that other users made; see `Workspace.open_plan`."""
    warnings: tuple[str, ...] = ()
    """Operators whose recordings for a replay other programs disturbed, of the plans prepared last."""
    _polled: Signature = ()
    """Signature at the last poll: files that are being written are left alone until they stay unchanged."""
    _profiles: tuple[str, Mapping[str, PipelineProfile]] | None = None
    """(fingerprint of specification, corrections and store; the profiles) that were loaded last."""
    _ended: bool = False

    def __post_init__(self) -> None:
        self._seen = self._read = self._signature()
        """Signatures of the files when the adopted plans were read, and when plans were last read, adopted or not."""
        self.managed, self.standby = self._managed(self.opened)
        """Plans to control, and their standby replicas."""

    def planner(self) -> ReplanDependencies:
        """Return the functions that replan after changes of nodes or files, for one run of a controller."""
        self._ended = False
        return ReplanDependencies(self.profiles, self._changed, self._latest, self.prepare, self._end, self._adopt)

    def drift_tools(
        self,
        ground_truth: Path | None,
        ground_truth_timeout_s: float,
        on_scores: Callable[[Sequence[AuditScore]], None],
    ) -> DriftDependencies:
        """Return the functions that detect drift.

        Args:
            ground_truth: file to which ground truths of answers are appended; None: only those of the data sets.
            ground_truth_timeout_s: seconds that an answer waits for its ground truth.
            on_scores: callback with the scores of audited answers.
        """
        files = () if ground_truth is None else (GroundTruthFile(ground_truth),)
        return DriftDependencies(
            answers=self._reference_runner,
            agreements=self._agreements,
            keep=self._store_observations,
            truths=ChainedGroundTruth(*files, DatasetGroundTruth(lambda: self.opened.specification)),
            ground_truth_timeout_s=0.0 if ground_truth is None else ground_truth_timeout_s,
            on_scores=on_scores,
        )

    def profiles(self, managed: ManagedPlans) -> Mapping[str, PipelineProfile]:
        """Return the corrected profiles of all pipelines that the queries of some plans use."""
        return self._load_profiles(managed.specification, managed.corrections, self.opened)

    def prepare(
        self, managed: ManagedPlans, *, progress: ProgressFactory = no_progress, repeats_disturbed: bool = False
    ) -> tuple[str, ...]:
        """Record the outputs that a replay of the plans returns, if there are any; return warnings that are new.

        A running controller repeats no disturbed runs, which would delay its reaction.
        """
        before = self.warnings
        if self._records:
            self.warnings = record_configurations(
                managed.specification,
                self.opened.store,
                ((plan.pipeline, plan.configuration) for plan in managed.reachable_plans()),
                self.replay_items,
                seed=self.opened.plan_set.seed,
                verb="serve",
                progress=progress,
                repeats_disturbed=repeats_disturbed,
            )
        return tuple(warning for warning in self.warnings if warning not in before)

    @property
    def _records(self) -> bool:
        return self.mode is Mode.REPLAY and not self.dry

    def _reference_runner(self, specification: Specification) -> ReferenceRunner:
        """Return a runner of other configurations: the operators on this machine, or the recordings of a replay."""
        if self.mode is Mode.REPLAY:
            return ReplayReferenceRunner(specification, self.opened.store)
        return LiveReferenceRunner(specification)

    def _agreements(
        self, specification: Specification, pairs: Sequence[tuple[str, Configuration, Configuration]]
    ) -> Agreements:
        store, seed = self.opened.store, self.opened.plan_set.seed
        if self._records:
            recorded = [(pipeline, configuration) for pipeline, *both in pairs for configuration in both]
            record_configurations(specification, store, recorded, self.replay_items, seed=seed)
        return expected_agreements(specification, store, pairs)

    def _store_observations(self, observations: Sequence[ServiceTimeObservation]) -> None:
        """Store service times for later plans; those of a replay reveal nothing about the hardware."""
        if self.mode is Mode.REAL and observations:
            save_observations(self.opened.store, observations)

    def _changed(self) -> bool:
        if self.opened.path is None:
            return False
        now, before = self._signature(), self._polled
        self._polled = now
        return now != self._seen and now == before

    def _latest(self, running: ManagedPlans) -> ManagedPlans:
        """Return the plans of the plan file as it is now; if only its specification was edited, replan first.

        Raises:
            CircinusError: the plan file or the specification is faulty, or a dry run would have to write a plan file.
        """
        opened, plan_file = self.opened, self.opened.path
        if plan_file is None:
            return running
        before, needs_store, runs_code = self._signature(), self.mode is Mode.REPLAY, not self.trust
        try:
            latest = load_plan(plan_file, needs_store=needs_store, complete=True, runs_code=runs_code)
        except StalePlanError:
            if self.dry:
                raise
            _log.info("the specification of %s changed: plan again", plan_file)
            plan_and_save(
                read_specification(opened.plan_set, plan_file),
                plan_file,
                opened.store,
                seed=opened.plan_set.seed,
                running=Incumbent.of(running.matching),
                is_superseded=lambda: self._ended or self._signature() != before,
            )
            latest = load_plan(plan_file, needs_store=needs_store, runs_code=runs_code)
        managed, _ = self._managed(latest)
        self.opened = latest
        self._read = before  # as before anything was read: files written since are read at the next poll
        return managed

    def _adopt(self) -> None:
        self._seen = self._read

    def _end(self) -> None:
        self._ended = True

    def _load_profiles(
        self, specification: Specification, corrections: Corrections, opened: LoadedPlan
    ) -> Mapping[str, PipelineProfile]:
        key = f"{specification.fingerprint()} {corrections} {file_state(opened.store)}"
        if self._profiles is None or self._profiles[0] != key:
            stored = load_profiles(
                specification, pipelines_in_use(specification), opened.store, seed=opened.plan_set.seed
            )
            self._profiles = key, apply_corrections(corrections, stored, specification)
        return self._profiles[1]

    def _managed(self, opened: LoadedPlan) -> tuple[ManagedPlans, StandbyReplicas]:
        opened.require_served_query()
        matching, infrastructure = opened.plan_set.matching, opened.specification.required_infrastructure
        pools = self._standby_pools(infrastructure)
        standby = StandbyReplicas(matching.deployments, {}, (), 0.0)
        if self.peak > 1:
            profiles = self._load_profiles(opened.specification, opened.plan_set.corrections, opened)
            standby = plan_standby(matching, infrastructure, self.peak, profiles, pools)
        managed = ManagedPlans(
            matching=matching,
            specification=opened.specification,
            deployments=standby.deployments,
            mode=self.mode,
            recordings=opened.store.resolve() if self.mode is Mode.REPLAY else None,
            code_versions=opened.plan_set.code_versions,
            dwell_s=self.dwell_s,
            peak=max(self.peak, 1.0),
            standby_pools=pools,
            corrections=opened.plan_set.corrections,
            audited_share=self.audited_share,
        )
        return managed, standby

    def _standby_pools(self, infrastructure: Infrastructure) -> frozenset[str] | None:
        """Return the pools that may have standby replicas; None: all.

        A pool that this machine cannot emulate must not keep the other pools from running.
        """
        if not self.local_only or self.mode is not Mode.REAL:
            return None
        return frozenset(pool.name for pool in infrastructure.pools if can_emulate(pool.hardware.speed))

    def _signature(self) -> Signature:
        """Return the state of the plan file and of all files that its specification is or may be read from."""
        specification, plan_file = self.opened.specification, self.opened.path
        files = {*specification.files} if plan_file is None else {plan_file, *specification.files}
        for source in specification.sources:
            files |= set(source.glob("*.y*ml")) if source.is_dir() else {source}
        return tuple((str(file), *file_state(file)) for file in sorted(files))
