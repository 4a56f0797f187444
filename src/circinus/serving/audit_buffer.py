"""A share of the answered requests, kept until somebody comes for them who scores or recomputes them."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from circinus.serving.engine import AuditBatch, AuditSample
from circinus.serving.replicas.replica_protocol import Payload

MOST_SAMPLES = 256
MOST_BYTES = 64 * 2**20
"""What is kept at most; beyond either the oldest go, also where nobody ever comes."""


class AuditBuffer:
    """What is kept of one engine, or of the part of it where requests enter."""

    def __init__(self, *, seed: int = 0, most_samples: int = MOST_SAMPLES, most_bytes: int = MOST_BYTES) -> None:
        """Nothing yet.

        Args:
            seed: of the draws that say which requests are kept.
            most_samples: that are kept.
            most_bytes: of all inputs and outputs together that are kept.
        """
        self._seed, self._most_samples, self._most_bytes = seed, most_samples, most_bytes
        self._kept: deque[AuditSample] = deque()
        self._bytes = 0
        self._dropped = 0
        self._answered: defaultdict[str, int] = defaultdict(int)

    def record(
        self,
        query: str,
        share: float,
        item_key: str,
        configuration: str,
        value: Payload | None,
        outputs: Mapping[str, Payload],
    ) -> None:
        """A request was answered; it is kept if it is drawn.

        Args:
            query: whose.
            share: of its requests that are kept.
            item_key: of its item.
            configuration: label of the one that answered.
            value: packed input; None in a replay.
            outputs: by sink, packed.
        """
        number = self._answered[query]
        self._answered[query] += 1
        if share <= 0 or not is_sampled(self._seed, query, number, share):
            return
        sample = AuditSample(
            query=query,
            item_key=item_key,
            configuration=configuration,
            value=None if value is None else bytes(value),
            outputs={sink: bytes(output) for sink, output in outputs.items()},
        )
        self._kept.append(sample)
        self._bytes += sample.size_bytes
        while self._kept and (len(self._kept) > self._most_samples or self._bytes > self._most_bytes):
            self._bytes -= self._kept.popleft().size_bytes
            self._dropped += 1

    def drain(self) -> AuditBatch:
        """Everything that is kept, which is forgotten here."""
        found = AuditBatch(tuple(self._kept), self._dropped)
        self._kept.clear()
        self._bytes = self._dropped = 0
        return found


def is_sampled(seed: int, query: str, number: int, share: float) -> bool:
    """Whether a request is kept: the same for the same numbers, and otherwise as if by chance.

    Args:
        seed: of all draws.
        query: whose request.
        number: of the request among those of its query.
        share: how likely it is.
    """
    digest = hashlib.blake2b(f"{seed}/{query}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def merge_audits(parts: Iterable[AuditBatch]) -> AuditBatch:
    """What several parts of an engine handed over."""
    found = list(parts)
    return AuditBatch(tuple(sample for part in found for sample in part.samples), sum(part.dropped for part in found))
