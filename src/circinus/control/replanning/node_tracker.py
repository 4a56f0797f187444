"""Number of nodes per pool with hysteresis: losses count soon, returns only when they last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from circinus.control.settings import NodeSettings


@dataclass(frozen=True)
class PoolState:
    """Assumed number of nodes of one pool, and pending changes."""

    assumed: int
    """Assumed number of nodes."""
    since_s: float | None = None
    """Start of the current deviation, always on one side of the assumed number; None without deviation."""
    nearest_count: int = 0
    """Observed number during the deviation that is nearest to the assumed one."""
    returned_s: float | None = None
    """Time of the last accepted return; None if it has lasted or there was none."""
    failed_returns: int = 0
    """Number of consecutive returns that did not last."""

    def required_s(self, settings: NodeSettings) -> float:
        """Return the minimum duration of the next return."""
        return settings.back_after_s * 2.0 ** min(self.failed_returns, settings.max_doublings)


def update_pool(state: PoolState, now_s: float, nodes: int, settings: NodeSettings) -> PoolState:
    """Return the state of a pool after an observation."""
    lasting_s = settings.lasting_factor * state.required_s(settings)
    if state.returned_s is not None and now_s - state.returned_s >= lasting_s:
        state = replace(state, returned_s=None, failed_returns=0)
    if nodes == state.assumed:
        return replace(state, since_s=None)
    is_loss = nodes < state.assumed
    since_s, nearest_count = state.since_s, state.nearest_count
    if since_s is None or (nearest_count < state.assumed) != is_loss:
        since_s, nearest_count = now_s, nodes
    nearest_count = max(nearest_count, nodes) if is_loss else min(nearest_count, nodes)
    duration_s = now_s - since_s
    if is_loss and duration_s >= settings.lost_after_s:
        failed_returns = state.failed_returns + (state.returned_s is not None)
        return PoolState(nearest_count, failed_returns=failed_returns)
    if not is_loss and duration_s >= state.required_s(settings):
        return PoolState(nearest_count, returned_s=now_s, failed_returns=state.failed_returns)
    return replace(state, since_s=since_s, nearest_count=nearest_count)


class NodeTracker:
    """Node counts of all pools. The caller passes the time and, after adopting plans, the counts they were made for."""

    def __init__(
        self,
        specified: Mapping[str, int],
        settings: NodeSettings,
        assumed: Mapping[str, int] | None = None,
    ) -> None:
        """Start without observations; the specified numbers by pool are upper limits, and assumed by default."""
        self._specified = dict(specified)
        self._settings = settings
        self._pools = {pool: PoolState((assumed or specified)[pool]) for pool in specified}

    @property
    def node_counts(self) -> dict[str, int]:
        """Assumed number of nodes per pool."""
        return {pool: state.assumed for pool, state in self._pools.items()}

    def observe(self, now_s: float, nodes: Mapping[str, int]) -> None:
        """Update all pools by the numbers of live nodes; missing pools have none."""
        self._pools = {
            pool: update_pool(state, now_s, min(nodes.get(pool, 0), self._specified[pool]), self._settings)
            for pool, state in self._pools.items()
        }

    def with_specified(self, specified: Mapping[str, int]) -> NodeTracker:
        """Return a tracker for other plans or another infrastructure.

        Pools with an unchanged specified number keep their state, including returns on probation. In other pools,
        missing nodes stay missing.
        """
        tracker = NodeTracker(specified, self._settings)
        for pool, nodes in specified.items():
            state = self._pools.get(pool)
            if state is None:
                continue
            if nodes != self._specified[pool]:
                assumed = nodes if state.assumed == self._specified[pool] else min(state.assumed, nodes)
                state = replace(state, assumed=assumed, since_s=None)
            tracker._pools[pool] = state
        return tracker
