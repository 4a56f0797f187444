"""Request router of Ray Serve that prefers idle replicas, and reports applications without any."""

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

    def update_replicas(self, replicas: list[Any]) -> None:
        """Extend `RequestRouter.update_replicas`."""
        super().update_replicas(replicas)
        self._report()

    def on_replica_actor_died(self, replica_id: Any) -> None:
        """Extend `RequestRouter.on_replica_actor_died`."""
        super().on_replica_actor_died(replica_id)
        self._report()

    def _report(self) -> None:
        from circinus.serving.ray.replica_presence import observers  # Ray Serve copies this module's globals

        for observe in observers:
            observe(self.app_name, bool(self.curr_replicas))
