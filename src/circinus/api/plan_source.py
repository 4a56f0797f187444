"""Plans as `circinus serve` deploys them, from a plan file that may be written over meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.progress import ProgressFactory, no_progress

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.control.drift.audit_scores import Agreements, AuditScore
    from circinus.control.drift.drift_monitor import DriftDependencies
    from circinus.control.drift.reference_outputs import ReferenceRunner
    from circinus.control.ladders.standby import StandbyReplicas
    from circinus.control.managed_plans import ManagedPlans
    from circinus.control.replanning.replan import ReplanDependencies
    from circinus.estimation import Corrections
    from circinus.profiling import PipelineProfile, ServiceTimeObservation
    from circinus.serving import Mode
    from circinus.specification import Configuration, Infrastructure, Specification

Signature = tuple[tuple[str, int, int], ...]
"""(path, when it was written, size) of files."""


@dataclass(eq=False)
class PlanFileSource:
    """A plan file, and the specification that it was made from."""

    plan_file: Path
    mode: Mode
    peak: float
    """Times their rate that queries are made ready for; 1: no more than planned."""
    dwell_s: float
    audited_share: float = 0.0
    """Of answered requests that are kept to be audited."""
    replay_items: int | None = None
    """How many items are recorded for each plan that is replayed; None: nothing is recorded."""
    only_here: bool = False
    """Whether all pools are this machine, which may be slowed down and not sped up."""
    dry: bool = False
    """Whether nothing is written, either."""
    _opened: LoadedPlan | None = None
    _seen: Signature = ()
    """Of the files as they were when the plans that were taken over last were read."""
    _read: Signature = ()
    """As they were when plans were last read, whatever became of these."""
    _looked: Signature = ()
    """As they were at the last look: files that are being written are left alone until they stay as they are."""
    _profiles: tuple[str, Mapping[str, PipelineProfile]] | None = None
    """(which specification and corrections, its profiles) that were loaded last."""
    _ended: bool = False

    def open(self) -> tuple[ManagedPlans, StandbyReplicas]:
        """The plans, and what is kept ready.

        Raises:
            CircinusError: as of `open_plan`; or nobody is served.
        """
        from circinus.api.plan_context import load_plan
        from circinus.serving import Mode

        opened = load_plan(self.plan_file, needs_store=self.mode is Mode.REPLAY)
        opened.require_served_query(str(self.plan_file))
        self._opened, self._seen = opened, self._seen or _signature(self.plan_file, opened.specification)
        return self._controlled(opened)

    def planner(self) -> ReplanDependencies:
        """What makes other plans when nodes or files are others."""
        from circinus.control.replanning.replan import ReplanDependencies

        return ReplanDependencies(self.profiles, self._changed, self._latest, self.prepare, self._end, self._took)

    def drift_tools(
        self, truths: Path | None, truth_patience_s: float, on_scores: Callable[[Sequence[AuditScore]], None]
    ) -> DriftDependencies:
        """What notices what moved since it was measured.

        Args:
            truths: a file to which truths of answers are added; None: none are known but those of the data sets.
            truth_patience_s: how long an answer waits for its truth.
            on_scores: told of answers that were audited.
        """
        from circinus.control.drift.drift_monitor import DriftDependencies
        from circinus.control.drift.ground_truth import ChainedGroundTruth, DatasetGroundTruth, GroundTruthFile

        told = () if truths is None else (GroundTruthFile(truths),)
        return DriftDependencies(
            answers=self._answers,
            agreements=self._agreements,
            keep=self._keep,
            truths=ChainedGroundTruth(*told, DatasetGroundTruth(self._specified)),
            truth_patience_s=0.0 if truths is None else truth_patience_s,
            on_scores=on_scores,
        )

    def profiles(self, controlled: ManagedPlans) -> Mapping[str, PipelineProfile]:
        """Of all pipelines that the queries of some plans use, corrected as these were."""
        assert self._opened is not None, "plans are opened first"
        return self._loaded(controlled.specification, controlled.corrections, self._opened)

    def prepare(self, controlled: ManagedPlans, *, progress: ProgressFactory = no_progress) -> None:
        """Record the outputs that the plans replay, if they do."""
        from circinus.api.replay_recording import record_plans

        assert self._opened is not None, "plans are opened first"
        if self.replay_items is not None:
            record_plans(
                controlled.specification,
                self._opened.store,
                controlled.reachable_plans(),
                self.replay_items,
                seed=self._opened.plan_set.seed,
                progress=progress,
            )

    def _specified(self) -> Specification:
        assert self._opened is not None, "plans are opened first"
        return self._opened.specification

    def _answers(self, specification: Specification) -> ReferenceRunner:
        """Computed on this machine, or what was recorded for a replay."""
        from circinus.control.drift.reference_outputs import LiveReferenceRunner, ReplayReferenceRunner
        from circinus.serving import Mode

        assert self._opened is not None, "plans are opened first"
        if self.mode is Mode.REPLAY:
            return ReplayReferenceRunner(specification, self._opened.store)
        return LiveReferenceRunner(specification)

    def _agreements(
        self, specification: Specification, pairs: Sequence[tuple[str, Configuration, Configuration]]
    ) -> Agreements:
        from circinus.api.replay_recording import record_configurations
        from circinus.control.drift.auditor import expected_agreements

        assert self._opened is not None, "plans are opened first"
        store, seed = self._opened.store, self._opened.plan_set.seed
        if self.replay_items is not None:
            asked = [(pipeline, one) for pipeline, *both in pairs for one in both]
            record_configurations(specification, store, asked, self.replay_items, seed=seed)
        return expected_agreements(specification, store, pairs)

    def _keep(self, observations: Sequence[ServiceTimeObservation]) -> None:
        """For those who plan later; what was replayed teaches nothing."""
        from circinus.profiling import save_observations
        from circinus.serving import Mode

        assert self._opened is not None, "plans are opened first"
        if self.mode is Mode.REAL and observations:
            save_observations(self._opened.store, observations)

    def _changed(self) -> bool:
        assert self._opened is not None, "plans are opened first"
        now, before = _signature(self.plan_file, self._opened.specification), self._looked
        self._looked = now
        return now not in (self._seen, ()) and now == before

    def _latest(self, now: ManagedPlans) -> ManagedPlans:
        """The plan file as it is; where only its specification was written over, planned again first.

        Raises:
            CircinusError: one of them is faulty, or nothing may be written and that would have to be.
        """
        from circinus.api.planning_service import plan_and_save
        from circinus.errors import StalePlanError
        from circinus.matching import Incumbent
        from circinus.specification.loader import load_specification

        assert self._opened is not None, "plans are opened first"
        opened = self._opened
        before = _signature(self.plan_file, opened.specification)
        try:
            controlled, _ = self.open()
        except StalePlanError:
            if self.dry:
                raise
            specification = load_specification([self.plan_file.parent / file for file in opened.plan_set.files])
            plan_and_save(
                specification,
                self.plan_file,
                opened.store,
                seed=opened.plan_set.seed,
                running=Incumbent.of(now.matching),
                is_superseded=lambda: self._ended or _signature(self.plan_file, opened.specification) != before,
            )
            controlled, _ = self.open()
        self._read = before  # as before anything was read: whatever was written over since is looked at again
        return controlled

    def _took(self) -> None:
        self._seen = self._read

    def _end(self) -> None:
        self._ended = True

    def _loaded(
        self, specification: Specification, corrections: Corrections, opened: LoadedPlan
    ) -> Mapping[str, PipelineProfile]:
        from circinus.api.planning_service import apply_corrections, load_profiles, pipelines_in_use

        key, known = f"{specification.fingerprint()} {corrections} {_written(opened.store)}", self._profiles
        if known is None or known[0] != key:
            plain = load_profiles(
                specification, pipelines_in_use(specification), opened.store, seed=opened.plan_set.seed
            )
            self._profiles = known = key, apply_corrections(corrections, plain, specification)
        return known[1]

    def _controlled(self, opened: LoadedPlan) -> tuple[ManagedPlans, StandbyReplicas]:
        from circinus.control.ladders.standby import StandbyReplicas, plan_standby
        from circinus.control.managed_plans import ManagedPlans
        from circinus.serving import Mode

        matching, infrastructure = opened.plan_set.matching, opened.specification.infrastructure
        assert infrastructure is not None, "a plan has one"
        pools = self._standby_pools(infrastructure)
        ready = StandbyReplicas(matching.deployments, {}, (), 0.0)
        if self.peak > 1:
            profiles = self._loaded(opened.specification, opened.plan_set.corrections, opened)
            ready = plan_standby(matching, infrastructure, self.peak, profiles, pools)
        controlled = ManagedPlans(
            matching=matching,
            specification=opened.specification,
            deployments=ready.deployments,
            mode=self.mode,
            recordings=opened.store.resolve() if self.mode is Mode.REPLAY else None,
            code_versions=opened.plan_set.code_versions,
            dwell_s=self.dwell_s,
            peak=max(self.peak, 1.0),
            standby_pools=pools,
            corrections=opened.plan_set.corrections,
            audited_share=self.audited_share,
        )
        return controlled, ready

    def _standby_pools(self, infrastructure: Infrastructure) -> frozenset[str] | None:
        """Where replicas may be kept ready: what cannot be run there must not keep everything else from running."""
        from circinus.serving import Mode
        from circinus.serving.local.capacity import can_emulate

        if not self.only_here or self.mode is not Mode.REAL:
            return None
        return frozenset(pool.name for pool in infrastructure.pools if can_emulate(pool.hardware.speed))


def _signature(plan_file: Path, specification: Specification) -> Signature:
    """Of the plan file, and of all files that its specification is or may come to be read from."""
    files = {plan_file, *specification.files}
    for source in specification.sources:
        files |= set(source.glob("*.y*ml")) if source.is_dir() else {source}
    return tuple((str(file), *_written(file)) for file in sorted(files))


def _written(file: Path) -> tuple[int, int]:
    """When a file was written, and its size; zeros: it is not there, or about to be."""
    try:
        told = file.stat()
    except OSError:
        return 0, 0
    return told.st_mtime_ns, told.st_size
