"""When other plans are made: nodes went or came, files were written over, something is not any more as measured."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from circinus.control.controlled import Controlled
from circinus.control.drift.drifting import Drifting
from circinus.control.replanning.nodes import NodeSettings, NodeWatch
from circinus.control.replanning.planner import Planner, Replanned, for_nodes
from circinus.errors import CircinusError
from circinus.serving import EngineStatus

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
class NewPlans:
    """Plans to be brought about."""

    controlled: Controlled
    why: str
    reason: str
    """In words."""
    base: Controlled | None
    """What the plan file says, where it was written over."""


@dataclass(frozen=True)
class NoPlans:
    """None could be made."""

    why: str
    reason: str


class Replanning:
    """Makes plans beside the loop, one at a time. Until they are there, and if they cannot be made, the last good ones
    stay in force."""

    def __init__(
        self,
        planner: Planner,
        now: Controlled,
        settings: ReplanSettings | None = None,
        drifting: Drifting | None = None,
    ) -> None:
        """Nothing is being planned.

        Args:
            planner: makes plans.
            now: the plans in force.
            settings: times.
            drifting: measures again what moved; None: nothing is.
        """
        self._planner, self._drifting = planner, drifting
        self._settings = settings or ReplanSettings()
        self._watch = _watch(now, self._settings.nodes)
        self._planning: asyncio.Task[NewPlans | None] | None = None
        self._why = ""
        self._looked_s = 0.0
        self._failures: Counter[str] = Counter()
        self._not_before_s: dict[str, float] = {}
        """Why -> when plans may be made for it again."""
        self._refused: Mapping[str, int] | None = None
        """Nodes for which no other plans shall be made: those that were did not do."""

    @property
    def nodes(self) -> Mapping[str, int]:
        """Pool -> nodes that are believed to live."""
        return self._watch.believed

    def look(self, now_s: float, status: EngineStatus, now: Controlled) -> None:
        """Begin to plan if there is reason to.

        Args:
            now_s: by a clock that never goes back.
            status: of the engine.
            now: the plans in force.
        """
        before = self.nodes
        if status.nodes is not None:
            self._watch.look(now_s, status.nodes)
        if self.nodes != before:  # whatever was found of the nodes before says nothing of these
            self._refused = None
            self._not_before_s.pop(NODES, None)
            del self._failures[NODES]
        if self._planning is not None:
            return
        if self._may(NODES, now_s) and self.nodes != now.nodes and self._refused is None:
            self._begin(NODES, now)
        elif self._may(FILES, now_s) and self._files_changed(now_s):
            self._begin(FILES, now)
        elif self._drifting is not None and self._may(DRIFTED, now_s) and self._drifting.due(now_s):
            self._begin(DRIFTED, now)

    def found(self, now_s: float) -> NewPlans | NoPlans | None:
        """What came of planning; None: nothing yet, or nothing new."""
        if self._planning is None or not self._planning.done():
            return None
        planning, self._planning = self._planning, None
        try:
            found = planning.result()
        except CircinusError as error:
            pause_s = min(
                self._settings.first_pause_s * 2.0 ** self._failures[self._why], self._settings.longest_pause_s
            )
            self._failures[self._why] += 1
            self._not_before_s[self._why] = now_s + pause_s
            return NoPlans(self._why, str(error))
        del self._failures[self._why]
        if found is not None and found.base is not None:
            self._watch = self._watch.respecified(_specified(found.controlled))
        return found

    def refuse(self) -> None:
        """The plans for the nodes that are there did not do: make no other ones until there are others."""
        self._refused = dict(self.nodes)

    async def wait(self) -> None:
        """Until plans that are being made are there."""
        if self._planning is not None:
            await asyncio.wait([self._planning])

    async def end(self) -> None:
        """Wait for a plan that is being made, and forget it."""
        if self._planning is not None:
            await asyncio.gather(self._planning, return_exceptions=True)

    def _may(self, why: str, now_s: float) -> bool:
        return now_s >= self._not_before_s.get(why, now_s)

    def _files_changed(self, now_s: float) -> bool:
        if now_s - self._looked_s < self._settings.files_every_s:
            return False
        self._looked_s = now_s
        return self._planner.changed()

    def _begin(self, why: str, now: Controlled) -> None:
        self._why = why
        plan = {FILES: self._from_files, NODES: self._for_nodes, DRIFTED: self._for_what_moved}[why]
        watch = self._watch.respecified(_specified(now))  # of its own, as looks go on beside
        self._planning = asyncio.create_task(asyncio.to_thread(plan, now, watch))

    def _from_files(self, now: Controlled, watch: NodeWatch) -> NewPlans | None:
        base = self._planner.latest(now)
        if base is None:
            return None
        nodes = watch.respecified(_specified(base)).believed
        if self._drifting is not None:
            self._drifting.forget()
        found = Replanned(base) if nodes == base.nodes else for_nodes(base, nodes, self._planner.profiles(base))
        self._planner.prepare(found.controlled)
        return NewPlans(found.controlled, FILES, _with_exceptions("the plan was written over", found), base)

    def _for_what_moved(self, now: Controlled, watch: NodeWatch) -> NewPlans | None:
        assert self._drifting is not None, "something moved"
        again = self._drifting.remeasure()
        if again is None:
            return None
        found = for_nodes(now, watch.believed, again.profiles, relax=self._drifting.measured_again)
        self._planner.prepare(found.controlled)
        return NewPlans(found.controlled, DRIFTED, _with_exceptions("; ".join(again.notes), found), None)

    def _for_nodes(self, now: Controlled, watch: NodeWatch) -> NewPlans:
        nodes = watch.believed
        profiles = self._planner.profiles(now) if self._drifting is None else self._drifting.profiles(now)
        relax = () if self._drifting is None else self._drifting.measured_again
        found = for_nodes(now, nodes, profiles, relax=relax)
        self._planner.prepare(found.controlled)
        words = ", ".join(
            f"{pool} has {count} of {now.nodes[pool]} nodes" if count < now.nodes[pool] else f"{pool} has {count} again"
            for pool, count in nodes.items()
            if count != now.nodes[pool]
        )
        return NewPlans(found.controlled, NODES, _with_exceptions(words, found), None)


def _specified(controlled: Controlled) -> Mapping[str, int]:
    infrastructure = controlled.specification.infrastructure
    assert infrastructure is not None, "plans are made for one"
    return {pool.name: pool.nodes for pool in infrastructure.pools}


def _watch(now: Controlled, settings: NodeSettings) -> NodeWatch:
    """That believes what the plans in force were made for."""
    return NodeWatch(_specified(now), settings, now.nodes)


def _with_exceptions(words: str, found: Replanned) -> str:
    if found.unpinned:
        words = f"{words}; pinned and cannot run on what is left: {', '.join(found.unpinned)}"
    return f"{words}; no longer promised: {', '.join(found.relaxed)}" if found.relaxed else words
