"""Triggers of replanning: node changes, plan or specification edits, and drift."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from circinus.control.background_task import BackgroundTask, TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.control_state import ControlState
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.node_tracker import NodeTracker
from circinus.control.replanning.replan import Profiles, ReplanDependencies, ReplanResult, replan_for_nodes
from circinus.control.settings import ControlSettings
from circinus.serving import EngineStatus
from circinus.specification import Specification


class ReplanTrigger(StrEnum):
    """Trigger of replanning."""

    NODES = "nodes"
    FILES = "files"
    DRIFT = "drift"


@dataclass(frozen=True)
class ReplanReady:
    """New plans to be deployed."""

    controlled: ManagedPlans
    trigger: ReplanTrigger
    reason: str
    """Description of the trigger."""
    base: ManagedPlans | None
    """Plans of the plan file, if the file changed."""
    overrides: ProfileOverrides
    """Re-profiled data that the plans were made from."""
    warnings: tuple[str, ...] = ()
    """Warnings of the plans' preparation."""
    explain_displaced: Callable[[], tuple[str, ...]] = lambda: ()
    """As of `ReplanResult`."""


class Replanner:
    """Background replanning. Until new plans are ready, the current ones remain."""

    def __init__(
        self,
        planner: ReplanDependencies,
        now: ManagedPlans,
        settings: ControlSettings,
        overrides: ProfileOverrides,
    ) -> None:
        self._planner, self._settings, self._planned_overrides = planner, settings, overrides
        self._node_tracker = NodeTracker(now.specified_nodes, settings.nodes, now.nodes)
        self._planning_task: BackgroundTask[ReplanReady | None] = BackgroundTask()
        self._explanation_task: BackgroundTask[tuple[str, ...]] = BackgroundTask()
        self._ready: ReplanReady | None = None
        """New plans that were not adopted yet."""
        self._trigger = ReplanTrigger.NODES
        """Trigger of the running or last task."""
        self._is_stale = False
        """True if the running task started from plans that were rolled back since."""
        self._checked_files_s = 0.0
        self._backoff = {
            trigger: Backoff(settings.initial_replan_backoff_s, settings.max_backoff_s) for trigger in ReplanTrigger
        }
        self._reported: dict[ReplanTrigger, str] = {}
        """Last reported failure by trigger."""
        self._refused_nodes: Mapping[str, int] | None = None
        """Node counts for which no further plans are made, because the previous ones were rolled back."""

    @property
    def nodes(self) -> Mapping[str, int]:
        """Number of nodes per pool that are assumed to be live."""
        return self._node_tracker.node_counts

    def schedule(self, now_s: float, status: EngineStatus, state: ControlState, overrides: ProfileOverrides) -> None:
        """Start replanning if a trigger applies.

        The overrides are the identical object if nothing was re-profiled.
        """
        now, previous = state.controlled, self.nodes
        if status.nodes is not None and self._planner.follows_nodes:
            self._node_tracker.observe(now_s, now.available_nodes(status.nodes))
        if self.nodes != previous:  # earlier failures do not apply to these nodes
            self._refused_nodes = None
            self._backoff[ReplanTrigger.NODES].reset()
        if self._planning_task.busy or self._ready is not None:
            return
        nodes, tracker = (
            dict(self.nodes),
            self._node_tracker.with_specified(now.specified_nodes),
        )  # copies for the thread
        if self._backoff[ReplanTrigger.NODES].is_due(now_s) and self.nodes != now.nodes and self._refused_nodes is None:
            self._start(ReplanTrigger.NODES, _node_changes(now.nodes, nodes), now, nodes, overrides)
        elif self._backoff[ReplanTrigger.FILES].is_due(now_s) and self._files_changed(now_s):
            self._trigger = ReplanTrigger.FILES
            self._planning_task.start(partial(self._from_files, state, tracker, overrides))
        elif self._backoff[ReplanTrigger.DRIFT].is_due(now_s) and overrides is not self._planned_overrides:
            description = "; ".join(overrides.notes[len(self._planned_overrides.notes) :])
            self._start(ReplanTrigger.DRIFT, description, now, nodes, overrides)

    def poll(self, now_s: float) -> ReplanReady | TaskFailed | None:
        """Return new plans until they are committed, a new failure once, or None."""
        result = self._planning_task.poll()
        if result is not None and self._is_stale:  # restart from the current plans
            self._is_stale, result = False, None
        if isinstance(result, TaskFailed):
            return self._failed(now_s, self._trigger, result.reason)
        if isinstance(result, TaskSucceeded):
            self._succeeded(self._trigger)
            self._ready = result.value
            if self._ready is None and self._trigger == ReplanTrigger.FILES:
                self._planner.acknowledge()
        return self._ready

    def commit(self, ready: ReplanReady) -> None:
        """Record that plans were adopted, and start explaining which of them changed beside the lost pools."""
        if ready.base is not None:
            self._planner.acknowledge()
        self._planned_overrides, self._ready = ready.overrides, None
        self.track(ready.controlled)
        if not self._explanation_task.busy:
            self._explanation_task.start(ready.explain_displaced)

    def poll_displaced(self) -> tuple[str, ...]:
        """Return the displaced queries of adopted plans once, with the reason; none if there is no explanation."""
        result = self._explanation_task.poll()
        return result.value if isinstance(result, TaskSucceeded) else ()

    def track(self, controlled: ManagedPlans) -> None:
        """Follow the node counts of adopted plans."""
        self._node_tracker = self._node_tracker.with_specified(controlled.specified_nodes)

    def rolled_back(self, refused: ManagedPlans, before: ManagedPlans) -> None:
        """Record a rollback.

        Results based on the refused plans are discarded, except file changes. No further plans are made for the same
        node counts until they change.
        """
        self._is_stale = self._planning_task.busy and self._trigger != ReplanTrigger.FILES
        if self._ready is not None and self._ready.trigger != ReplanTrigger.FILES:
            self._ready = None
        repeats = refused.nodes != before.nodes and refused.nodes == self.nodes
        self.track(before)
        if repeats:
            self._refused_nodes = dict(self.nodes)

    async def wait(self) -> None:
        """Wait until planning and explanations have finished."""
        await self._planning_task.wait()
        await self._explanation_task.wait()

    async def close(self, timeout_s: float) -> None:
        """Cancel planning and wait for it for at most `timeout_s`."""
        self._planner.cancel()
        await self._planning_task.wait(timeout_s)

    def _files_changed(self, now_s: float) -> bool:
        if now_s - self._checked_files_s < self._settings.file_poll_interval_s:
            return False
        self._checked_files_s = now_s
        return self._planner.changed()

    def _start(
        self,
        trigger: ReplanTrigger,
        description: str,
        now: ManagedPlans,
        nodes: Mapping[str, int],
        overrides: ProfileOverrides,
    ) -> None:
        """Start planning the queries of the current plans."""

        def work() -> ReplanReady:
            profiles, reprofiled = self._current_profiles(now, overrides)
            result = replan_for_nodes(now, nodes, profiles, relax=reprofiled)
            warnings = tuple(self._planner.prepare(result.controlled))
            reason = _with_caveats(description, result)
            return ReplanReady(result.controlled, trigger, reason, None, overrides, warnings, result.explain_displaced)

        self._trigger = trigger
        self._planning_task.start(work)

    def _failed(self, now_s: float, trigger: ReplanTrigger, reason: str) -> TaskFailed | None:
        """Return a failure event, unless the same failure was reported already."""
        self._backoff[trigger].record_failure(now_s)
        is_new = self._reported.get(trigger) != reason
        self._reported[trigger] = reason
        return TaskFailed(f"replanning failed ({trigger}): {reason}") if is_new else None

    def _succeeded(self, trigger: ReplanTrigger) -> None:
        self._backoff[trigger].reset()
        self._reported.pop(trigger, None)

    def _current_profiles(
        self, controlled: ManagedPlans, overrides: ProfileOverrides
    ) -> tuple[Profiles, Collection[str]]:
        """Return the profiles of the plans' pipelines, and the pipelines that were re-profiled."""
        stored = self._planner.profiles(controlled)
        reprofiled = overrides.without_stale(stored).profiles
        return {**stored, **reprofiled}, tuple(reprofiled)

    def _from_files(self, state: ControlState, tracker: NodeTracker, overrides: ProfileOverrides) -> ReplanReady | None:
        now = state.controlled
        base = self._planner.latest(now)
        if base.fingerprint == state.plan_file_fingerprint:
            return None
        nodes = tracker.with_specified(base.specified_nodes).node_counts
        profiles, reprofiled = self._current_profiles(base, overrides)
        result = ReplanResult(base)
        if reprofiled or nodes != base.nodes:
            result = replan_for_nodes(base, nodes, profiles, relax=reprofiled)
        warnings = tuple(self._planner.prepare(result.controlled))
        description = _with_caveats(_edit_description(now.specification, base.specification), result)
        explain = result.explain_displaced
        return ReplanReady(result.controlled, ReplanTrigger.FILES, description, base, overrides, warnings, explain)


def _node_changes(before: Mapping[str, int], nodes: Mapping[str, int]) -> str:
    return ", ".join(
        f"{pool} has {count} of {before[pool]} nodes" if count < before[pool] else f"{pool} has {count} nodes again"
        for pool, count in nodes.items()
        if count != before[pool]
    )


def _edit_description(before: Specification, after: Specification) -> str:
    """Return a description of the edit: plan only, or specification with the changed queries."""
    if before.fingerprint() == after.fingerprint():
        return "the plan file changed"
    previous = {query.name: query for query in before.queries}
    changed = sorted(query.name for query in after.queries if previous.get(query.name, query) != query)
    suffix = f" (changed queries: {', '.join(changed)})" if changed else ""
    return f"the specification changed{suffix}"


def _with_caveats(description: str, result: ReplanResult) -> str:
    if result.unpinned:
        description = f"{description}; pinned but infeasible on the remaining nodes: {', '.join(result.unpinned)}"
    return f"{description}; SLOs relaxed: {', '.join(result.relaxed)}" if result.relaxed else description
