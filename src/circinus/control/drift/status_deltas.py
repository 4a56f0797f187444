"""What is new in the status of an engine since it was last read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.serving import DeploymentStatus, ServedBatch
from circinus.serving.engine import QueryStatus
from circinus.serving.loadtest.service_time_learning import WARMUP_BATCHES
from circinus.specification import Deployment


class NewBatchReader:
    """Batches that deployments served since the last reading, each once; those of replicas that are still cold are
    left out. What came before the first reading is not read."""

    def __init__(self) -> None:
        self._counts: dict[Deployment, int] = {}

    def read(self, statuses: Sequence[DeploymentStatus]) -> dict[Deployment, tuple[ServedBatch, ...]]:
        """The new ones, oldest first; where more came than the engine remembers, the last of them."""
        found = {}
        for status in statuses:
            before = self._counts.get(status.deployment, status.batches)
            new = status.batches - before if status.batches >= before else status.batches
            self._counts[status.deployment] = status.batches
            batches = status.recent_batches[-new:] if new else ()
            warm = tuple(batch for batch in batches if batch.batch_index >= WARMUP_BATCHES)
            if warm:
                found[status.deployment] = warm
        return found


@dataclass
class _Block:
    """Requests of one query that ended within some seconds."""

    begin_s: float
    ended: float = 0.0
    late: float = 0.0


class LateShareReader:
    """Shares of requests that are late, by blocks of time. Requests that failed are late."""

    def __init__(self, block_s: float, least: int) -> None:
        """Nothing was read.

        Args:
            block_s: how long a block is at least.
            least: how many requests it has at least.
        """
        self._block_s, self._least = block_s, least
        self._counts: dict[str, tuple[int, int]] = {}
        self._blocks: dict[str, _Block] = {}

    def read(self, now_s: float, statuses: Sequence[QueryStatus], limits_s: Mapping[str, float]) -> dict[str, float]:
        """Query -> share of late requests, of the blocks that are full now.

        Args:
            now_s: by a clock that never goes back.
            statuses: of queries.
            limits_s: query -> latency limit; others are not read.
        """
        found = {}
        for status in statuses:
            if status.query not in limits_s:
                continue
            share = self._read(now_s, status, limits_s[status.query])
            if share is not None:
                found[status.query] = share
        return found

    def _read(self, now_s: float, status: QueryStatus, limit_s: float) -> float | None:
        now = status.answered, status.failed
        before = self._counts.get(status.query, now)
        if now < before or status.failed < before[1]:
            before = (0, 0)  # the engine was started again
        self._counts[status.query] = now
        block = self._blocks.setdefault(status.query, _Block(now_s))
        answered, failed = now[0] - before[0], now[1] - before[1]
        if answered:
            # Where more came than the engine remembers, those that it does stand for all.
            latencies = status.recent_latency_s[-answered:]
            block.late += answered * sum(seconds > limit_s for seconds in latencies) / max(len(latencies), 1)
        block.late += failed
        block.ended += answered + failed
        if now_s - block.begin_s < self._block_s or block.ended < self._least:
            return None
        self._blocks[status.query] = _Block(now_s)
        return block.late / block.ended
