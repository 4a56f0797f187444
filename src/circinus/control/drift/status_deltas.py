"""Changes of the engine's status since the last reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circinus.serving import DeploymentStatus, ServedBatch
from circinus.serving.engine import QueryStatus, RequestRuns
from circinus.serving.settings import SERVING
from circinus.specification import Deployment, LatencySlo


class NewBatchReader:
    """Reader of newly served batches, each once, without batches of cold replicas.

    Batches before the first reading are not returned.
    """

    def __init__(self) -> None:
        self._counts: dict[Deployment, int] = {}

    def read(self, statuses: Sequence[DeploymentStatus]) -> dict[Deployment, tuple[ServedBatch, ...]]:
        """Return the new batches by deployment, oldest first; if the engine dropped some, the most recent ones."""
        result = {}
        for status in statuses:
            previous = self._counts.get(status.deployment, status.batches)
            count = status.batches - previous if status.batches >= previous else status.batches
            self._counts[status.deployment] = status.batches
            batches = status.recent_batches[-count:] if count else ()
            warm = tuple(batch for batch in batches if batch.batch_index >= SERVING.warm_up_batches)
            if warm:
                result[status.deployment] = warm
        return result


class NewRunsReader:
    """Reader of the numbers of runs of newly answered requests, each once, without those before the first reading."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def read(self, statuses: Sequence[QueryStatus]) -> dict[str, tuple[RequestRuns, ...]]:
        """Return the new requests by query, oldest first; if the engine dropped some, the most recent ones."""
        result = {}
        for status in statuses:
            previous = self._counts.get(status.query, status.answered)
            count = status.answered - previous if status.answered >= previous else status.answered
            self._counts[status.query] = status.answered
            if count and status.recent_runs:
                result[status.query] = status.recent_runs[-count:]
        return result


@dataclass
class _Block:
    """Requests of one query that completed within a block."""

    begin_s: float
    completed: float = 0.0
    late: float = 0.0


class LateShareReader:
    """Reader of the share of late requests by blocks of time. Dropped and failed requests count as late."""

    def __init__(self, block_s: float, min_requests: int) -> None:
        """Start without readings; a block has a minimum duration and a minimum number of requests."""
        self._block_s, self._min_requests = block_s, min_requests
        self._counts: dict[str, tuple[int, int]] = {}
        self._blocks: dict[str, _Block] = {}

    def read(self, now_s: float, statuses: Sequence[QueryStatus], slos: Mapping[str, LatencySlo]) -> dict[str, float]:
        """Return the share of late requests of queries with an SLO, for blocks that are complete now."""
        result = {}
        for status in statuses:
            if status.query not in slos:
                continue
            share = self._read(now_s, status, slos[status.query])
            if share is not None:
                result[status.query] = share
        return result

    def _read(self, now_s: float, status: QueryStatus, slo: LatencySlo) -> float | None:
        current = status.completed, status.failed
        previous = self._counts.get(status.query, current)
        if current < previous or status.failed < previous[1]:
            previous = (0, 0)  # the engine was restarted
        self._counts[status.query] = current
        block = self._blocks.setdefault(status.query, _Block(now_s))
        completed, failed = current[0] - previous[0], current[1] - previous[1]
        if completed:
            # If the engine forgot some latencies, the remaining ones represent all.
            block.late += completed - completed * slo.fraction_within(status.recent_latency_s[-completed:])
        block.late += failed
        block.completed += completed + failed
        if now_s - block.begin_s < self._block_s or block.completed < self._min_requests:
            return None
        self._blocks[status.query] = _Block(now_s)
        return block.late / block.completed
