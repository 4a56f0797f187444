"""Which nodes are there: losses are believed soon, returns only when they last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class NodeSettings:
    """How long other numbers of nodes must last."""

    lost_after_s: float = 1.0
    """One loss comes with others, and some are no loss but a late sign of life."""
    back_after_s: float = 15.0
    """A machine that came back once may go again, and plans should not follow it to and fro."""
    most_doublings: int = 5
    """Every return that did not last doubles the wait for the next one, at most so often."""
    proven_times: float = 4.0
    """A return has lasted when so many times its wait have passed since it was believed."""


@dataclass(frozen=True)
class PoolState:
    """What is believed of one pool."""

    believed: int
    """Nodes."""
    since_s: float | None = None
    """Since when others were seen without a break, all on the same side; None: none were."""
    level: int = 0
    """Of those seen since then, the number nearest to what is believed."""
    back_s: float | None = None
    """When a return was last believed; None: it has lasted, or there was none."""
    broken_returns: int = 0
    """Returns in a row that did not last."""

    def waits_s(self, settings: NodeSettings) -> float:
        """How long a return must last before it is believed."""
        return settings.back_after_s * 2.0 ** min(self.broken_returns, settings.most_doublings)


def update_pool(view: PoolState, now_s: float, nodes: int, settings: NodeSettings) -> PoolState:
    """What is believed after one more look.

    Args:
        view: what was believed.
        now_s: not before the last look.
        nodes: that are seen now.
        settings: how long others must last.
    """
    if view.back_s is not None and now_s - view.back_s >= settings.proven_times * view.waits_s(settings):
        view = replace(view, back_s=None, broken_returns=0)
    if nodes == view.believed:
        return replace(view, since_s=None)
    lost = nodes < view.believed
    if view.since_s is None or (view.level < view.believed) != lost:
        view = replace(view, since_s=now_s, level=nodes)
    level = max(view.level, nodes) if lost else min(view.level, nodes)
    assert view.since_s is not None
    lasted_s = now_s - view.since_s
    if lost and lasted_s >= settings.lost_after_s:
        broken = view.broken_returns + (view.back_s is not None)
        return PoolState(level, broken_returns=broken)
    if not lost and lasted_s >= view.waits_s(settings):
        return PoolState(level, back_s=now_s, broken_returns=view.broken_returns)
    return replace(view, level=level)


class NodeTracker:
    """All pools. Told the time; whoever adopts plans says what they were made for."""

    def __init__(
        self,
        specified: Mapping[str, int],
        settings: NodeSettings | None = None,
        believed: Mapping[str, int] | None = None,
    ) -> None:
        """Nothing was seen yet.

        Args:
            specified: pool -> nodes that plans may use at most.
            settings: how long others must last.
            believed: pool -> nodes that are taken to be there; by default all.
        """
        self._specified = dict(specified)
        self._settings = settings or NodeSettings()
        self._views = {pool: PoolState((believed or specified)[pool]) for pool in specified}

    @property
    def node_counts(self) -> dict[str, int]:
        """Pool -> its nodes."""
        return {pool: view.believed for pool, view in self._views.items()}

    def observe(self, now_s: float, nodes: Mapping[str, int]) -> None:
        """One more look.

        Args:
            now_s: not before the last one.
            nodes: pool -> nodes that live; a pool that is not told of has none.
        """
        self._views = {
            pool: update_pool(view, now_s, min(nodes.get(pool, 0), self._specified[pool]), self._settings)
            for pool, view in self._views.items()
        }

    def with_specified(self, specified: Mapping[str, int]) -> NodeTracker:
        """For another infrastructure, or other plans for the same: what is believed of pools with as many nodes as
        before stays as it is, returns that must prove to last among it. Elsewhere, what is missing goes on missing."""
        watch = NodeTracker(specified, self._settings)
        for pool, nodes in specified.items():
            view = self._views.get(pool)
            if view is None:
                continue
            if nodes != self._specified[pool]:
                believed = nodes if view.believed == self._specified[pool] else min(view.believed, nodes)
                view = replace(view, believed=believed, since_s=None)
            watch._views[pool] = view
        return watch
