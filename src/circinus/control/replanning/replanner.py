"""When other plans are made: nodes went or came, files were written over, something is not any more as measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from circinus.control.background_task import BackgroundTask, TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.drift.drift_monitor import DriftMonitor, ReprofileOutcome
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.node_tracker import NodeSettings, NodeTracker
from circinus.control.replanning.replan import Profiles, ReplanDependencies, ReplanResult, replan_for_nodes
from circinus.serving import EngineStatus
from circinus.specification import Specification

NODES, FILES, DRIFTED = "nodes", "files", "drift"
"""Why plans are made."""


@dataclass(frozen=True)
class ReplanSettings:
    """Times of planning again."""

    nodes: NodeSettings = field(default_factory=NodeSettings)
    files_every_s: float = 1.0
    """How often files are looked at."""
    first_pause_s: float = 2.0
    """Before what could not be planned is tried again; doubles every time."""
    longest_pause_s: float = 60.0


@dataclass(frozen=True)
class ReplanReady:
    """Plans to be brought about."""

    controlled: ManagedPlans
    why: str
    reason: str
    """In words."""
    base: ManagedPlans | None
    """What the plan file says, where it was written over."""


@dataclass(frozen=True)
class ReplanFailed:
    """None could be made."""

    why: str
    reason: str


class Replanner:
    """Makes plans beside the loop, one at a time, and measures again what moved beside both. Until plans are there, and
    if they cannot be made, the last good ones stay in force."""

    def __init__(
        self,
        planner: ReplanDependencies,
        now: ManagedPlans,
        base: str,
        settings: ReplanSettings | None = None,
        drifting: DriftMonitor | None = None,
    ) -> None:
        """Nothing is being planned.

        Args:
            planner: makes plans.
            now: the plans in force.
            base: fingerprint of what the plan file says.
            settings: times.
            drifting: measures again what moved; None: nothing is.
        """
        self._planner, self._drifting, self._base = planner, drifting, base
        self._settings = times = settings or ReplanSettings()
        self._watch = NodeTracker(_specified(now), times.nodes, now.nodes)
        self._planning: BackgroundTask[ReplanReady | None] = BackgroundTask()
        self._measuring: BackgroundTask[ReprofileOutcome] = BackgroundTask()
        """By itself: it may take a minute, and lost nodes must be planned for meanwhile."""
        self._found: ReplanReady | None = None
        """Plans that are there and were not taken over yet."""
        self._again: ReprofileOutcome | None = None
        """What was measured again, as long as no plans that were made from it were taken over."""
        self._why = ""
        self._outdated = False
        """Whether what is being planned was begun from plans that were taken back since."""
        self._looked_s = 0.0
        self._backoff = {why: Backoff(times.first_pause_s, times.longest_pause_s) for why in (NODES, FILES, DRIFTED)}
        self._said: dict[str, str] = {}
        """Why -> why there were no plans the last time."""
        self._refused: Mapping[str, int] | None = None
        """Nodes for which no other plans shall be made: those that were did not do."""

    @property
    def nodes(self) -> Mapping[str, int]:
        """Pool -> nodes that are believed to live."""
        return self._watch.node_counts

    def schedule(self, now_s: float, status: EngineStatus, now: ManagedPlans) -> None:
        """Begin to plan if there is reason to.

        Args:
            now_s: by a clock that never goes back.
            status: of the engine.
            now: the plans in force.
        """
        before = self.nodes
        if status.nodes is not None:
            self._watch.observe(now_s, status.nodes)
        if self.nodes != before:  # whatever was found of the nodes before says nothing of these
            self._refused = None
            self._backoff[NODES].reset()
        self._measure_again(now_s)
        if self._planning.busy or self._found is not None:
            return
        nodes, watch = dict(self.nodes), self._watch.with_specified(_specified(now))  # as looks go on beside
        if self._backoff[NODES].is_due(now_s) and self.nodes != now.nodes and self._refused is None:
            self._begin(NODES, lambda: self._for_nodes(now, nodes))
        elif self._backoff[FILES].is_due(now_s) and self._files_changed(now_s):
            self._begin(FILES, lambda: self._from_files(now, watch))
        elif self._again is not None:
            again = self._again
            self._begin(DRIFTED, lambda: self._for_what_moved(now, nodes, again))

    def poll(self, now_s: float) -> ReplanReady | ReplanFailed | None:
        """What came of planning; plans are told until they are taken. None: nothing yet, or nothing new."""
        failed = self._collect(now_s)
        if failed is not None:
            return failed
        result = self._planning.poll()
        if result is not None and self._outdated:  # it is made anew, from the plans in force
            self._outdated, result = False, None
        if isinstance(result, TaskFailed):
            if self._why == DRIFTED:
                self._again = None  # it is measured anew: by then more may have moved
            return self._failed(now_s, self._why, result.reason)
        if isinstance(result, TaskSucceeded):
            self._went_well(self._why)
            self._found = result.value
            if self._found is None and self._why == FILES:
                self._planner.acknowledge()
        return self._found

    def pending_overrides(self) -> str | None:
        """What was measured again, also for the plans that were found, to be kept with them."""
        made_from_it = self._found is not None and self._found.why == DRIFTED
        return None if self._drifting is None else self._drifting.to_json(self._again if made_from_it else None)

    def commit(self, found: ReplanReady) -> None:
        """They are in force, or are being brought about."""
        if found.base is not None:
            self._base = found.base.fingerprint
            self._planner.acknowledge()
        if self._drifting is not None and self._again is not None and found.why == DRIFTED:
            self._drifting.commit_reprofile(self._again)
            self._again = None
        self._found = None
        self.track(found.controlled)

    def track(self, controlled: ManagedPlans) -> None:
        """Other plans are in force."""
        self._watch = self._watch.with_specified(_specified(controlled))

    def rolled_back(self, refused: ManagedPlans, before: ManagedPlans) -> None:
        """Plans did not do. Whatever was made from them is not wanted any more, but for what files say; and for nodes
        that they were made for, no others are made until there are other nodes.

        Args:
            refused: those that did not do.
            before: those in force again.
        """
        self._outdated = self._planning.busy and self._why != FILES
        if self._found is not None and self._found.why != FILES:
            self._found = None
        repeats = refused.nodes != before.nodes and refused.nodes == self.nodes
        self.track(before)
        if repeats:
            self._refused = dict(self.nodes)

    async def wait(self) -> None:
        """Until plans that are being made are there, and what is being measured again is known."""
        await self._measuring.wait()
        await self._planning.wait()

    async def close(self, patience_s: float) -> None:
        """What is being planned is not wanted any more."""
        self._planner.cancel()
        await asyncio.gather(self._planning.wait(patience_s), self._measuring.wait(patience_s))

    def _files_changed(self, now_s: float) -> bool:
        if now_s - self._looked_s < self._settings.files_every_s:
            return False
        self._looked_s = now_s
        return self._planner.changed()

    def _begin(self, why: str, work: Callable[[], ReplanReady | None]) -> None:
        self._why = why
        self._planning.start(work)

    def _measure_again(self, now_s: float) -> None:
        """What moved, if it is time; once more only when plans were made from it."""
        if self._drifting is None or self._measuring.busy or self._again is not None:
            return
        if self._backoff[DRIFTED].is_due(now_s) and self._drifting.reprofile_due(now_s):
            self._measuring.start(self._drifting.reprofile_task())

    def _collect(self, now_s: float) -> ReplanFailed | None:
        """What was measured again; why nothing was, if that is new."""
        result = self._measuring.poll()
        if isinstance(result, TaskFailed):
            return self._failed(now_s, DRIFTED, result.reason)
        if isinstance(result, TaskSucceeded) and result.value.changed:
            self._again = result.value
        elif isinstance(result, TaskSucceeded) and self._drifting is not None:
            self._went_well(DRIFTED)
            self._drifting.commit_reprofile(result.value)
        return None

    def _failed(self, now_s: float, why: str, reason: str) -> ReplanFailed | None:
        """Said once."""
        self._backoff[why].record_failure(now_s)
        new = self._said.get(why) != reason
        self._said[why] = reason
        return ReplanFailed(why, reason) if new else None

    def _went_well(self, why: str) -> None:
        self._backoff[why].reset()
        self._said.pop(why, None)

    def _profiles(
        self, controlled: ManagedPlans, more: ReprofileOutcome | None = None
    ) -> tuple[Profiles, Collection[str]]:
        """What is known of the pipelines of some plans, and of which of them something was measured again."""
        stored = self._planner.profiles(controlled)
        again = {} if self._drifting is None else self._drifting.profile_overrides(stored, more)
        return {**stored, **again}, tuple(again)

    def _from_files(self, now: ManagedPlans, watch: NodeTracker) -> ReplanReady | None:
        base = self._planner.latest(now)
        if base.fingerprint == self._base:
            return None
        nodes = watch.with_specified(_specified(base)).node_counts
        profiles, again = self._profiles(base)
        found = ReplanResult(base)
        if again or nodes != base.nodes:
            found = replan_for_nodes(base, nodes, profiles, relax=again)
        self._planner.prepare(found.controlled)
        return ReplanReady(
            found.controlled, FILES, _with_exceptions(_written_over(now.specification, base.specification), found), base
        )

    def _for_what_moved(self, now: ManagedPlans, nodes: Mapping[str, int], again: ReprofileOutcome) -> ReplanReady:
        profiles, measured = self._profiles(now, again)
        found = replan_for_nodes(now, nodes, profiles, relax=measured)
        self._planner.prepare(found.controlled)
        return ReplanReady(found.controlled, DRIFTED, _with_exceptions("; ".join(again.notes), found), None)

    def _for_nodes(self, now: ManagedPlans, nodes: Mapping[str, int]) -> ReplanReady:
        profiles, again = self._profiles(now)
        found = replan_for_nodes(now, nodes, profiles, relax=again)
        self._planner.prepare(found.controlled)
        words = ", ".join(
            f"{pool} has {count} of {now.nodes[pool]} nodes" if count < now.nodes[pool] else f"{pool} has {count} again"
            for pool, count in nodes.items()
            if count != now.nodes[pool]
        )
        return ReplanReady(found.controlled, NODES, _with_exceptions(words, found), None)


def _specified(controlled: ManagedPlans) -> Mapping[str, int]:
    infrastructure = controlled.specification.infrastructure
    assert infrastructure is not None, "plans are made for one"
    return {pool.name: pool.nodes for pool in infrastructure.pools}


def _written_over(before: Specification, after: Specification) -> str:
    """What was, in words: the plan file alone, or what it was made from, with the queries of which other is asked."""
    if before.fingerprint() == after.fingerprint():
        return "the plan was written over"
    asked = {query.name: query for query in before.queries}
    others = sorted(query.name for query in after.queries if asked.get(query.name, query) != query)
    named = f" (other terms: {', '.join(others)})" if others else ""
    return f"the specification was written over{named}"


def _with_exceptions(words: str, found: ReplanResult) -> str:
    if found.unpinned:
        words = f"{words}; pinned and cannot run on what is left: {', '.join(found.unpinned)}"
    return f"{words}; no longer promised: {', '.join(found.relaxed)}" if found.relaxed else words
