"""Buffer of sampled requests and responses that wait for an audit."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from circinus.operators.pickling import Payload
from circinus.serving.engine import AuditBatch, AuditSample
from circinus.serving.settings import SERVING


class AuditBuffer:
    """Audit samples of an engine, or of its part where requests enter."""

    def __init__(
        self, *, seed: int = 0, max_samples: int = SERVING.audit_samples, max_bytes: int = SERVING.audit_bytes
    ) -> None:
        """Create an empty buffer.

        Args:
            seed: seed of the sampling.
            max_samples: maximum number of samples.
            max_bytes: maximum size of all inputs and outputs together.
        """
        self._seed, self._max_samples, self._max_bytes = seed, max_samples, max_bytes
        self._samples: deque[AuditSample] = deque()
        self._bytes = 0
        self._dropped = 0
        self._num_answered: defaultdict[str, int] = defaultdict(int)

    def record(
        self,
        query: str,
        share: float,
        item_key: str,
        configuration: str,
        value: Payload | None,
        outputs: Mapping[str, Payload],
    ) -> None:
        """Keep an answered request if it is sampled.

        Args:
            query: name of the query.
            share: fraction of the query's requests to sample.
            item_key: key of the item.
            configuration: hash of the configuration that answered.
            value: pickled input; None in a replay.
            outputs: sink -> pickled output.
        """
        index = self._num_answered[query]
        self._num_answered[query] += 1
        if share <= 0 or not is_sampled(self._seed, query, index, share):
            return
        sample = AuditSample(
            query=query,
            item_key=item_key,
            configuration=configuration,
            value=None if value is None else bytes(value),
            outputs={sink: bytes(output) for sink, output in outputs.items()},
        )
        self._samples.append(sample)
        self._bytes += sample.size_bytes
        while self._samples and (len(self._samples) > self._max_samples or self._bytes > self._max_bytes):
            self._bytes -= self._samples.popleft().size_bytes
            self._dropped += 1

    def drain(self) -> AuditBatch:
        """Return all samples and clear the buffer."""
        batch = AuditBatch(tuple(self._samples), self._dropped)
        self._samples.clear()
        self._bytes = self._dropped = 0
        return batch


def is_sampled(seed: int, query: str, index: int, share: float) -> bool:
    """Return whether a request is sampled: pseudo-random, and a function of the arguments only.

    Args:
        seed: seed of the sampling.
        query: name of the query.
        index: index of the request within its query.
        share: probability of sampling.
    """
    digest = hashlib.blake2b(f"{seed}/{query}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def merge_audits(parts: Iterable[AuditBatch]) -> AuditBatch:
    """Concatenate the samples of several parts of an engine."""
    batches = list(parts)
    return AuditBatch(
        tuple(sample for batch in batches for sample in batch.samples), sum(batch.dropped for batch in batches)
    )
