"""One item on its way through a deployment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circinus.serving.replicas.messages import ItemResult, Payload


@dataclass(eq=False)
class QueuedItem:
    """One item that waits for, or is in, a replica."""

    item_key: str
    inputs: Sequence[Payload]
    recording: int | str | None
    due_s: float
    """When the last of its inputs arrived."""
    done: Callable[[ItemResult, Payload | None, float], None]
    """Told when the batch ended, too."""
    failed: Callable[[str], None]
    is_cancelled: Callable[[], bool]
    """Whether nobody waits for it any more."""
    prefix: str = ""
    """Label of the `RouteStage.prefix`."""
    replica_losses: int = 0
    """Replicas that ended while they had it."""
