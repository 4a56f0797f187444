"""Which replica gets the next batch: an idle one, if there is any."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter


class IdleFirstRequestRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """All replicas are candidates, and Ray Serve takes the one with the shortest queue.

    By default it looks at two replicas that it draws, which is good for long queues. Here replicas have none: they take
    one batch at a time from the router of their site, and an idle one that was not drawn would stay idle.
    """

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """As `RequestRouter.choose_replicas`."""
        return [list(candidate_replicas)]
