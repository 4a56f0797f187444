"""Request router of Ray Serve that prefers idle replicas."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter


class IdleFirstRequestRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray is untyped
    """Router that considers all replicas, of which Ray Serve picks the one with the shortest queue.

    By default it samples two replicas, which suits long queues. Replicas of this project have no queues: they get one
    batch at a time from the router of their site, and an idle replica that was not sampled would stay idle.
    """

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Implement `RequestRouter.choose_replicas`."""
        return [list(candidate_replicas)]
