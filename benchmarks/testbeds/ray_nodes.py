"""Ray cluster of several nodes on this machine, which can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil

if TYPE_CHECKING:
    from circinus.serving.ray.settings import RaySettings

_PORT = 18_313
_NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


@dataclass(frozen=True)
class RayNodes:
    """A head and other nodes."""

    cluster: Any
    others: Sequence[tuple[str, Any]]
    """(pool, node) of all nodes except the head."""

    @property
    def settings(self) -> RaySettings:
        """Settings for an engine."""
        from circinus.serving.ray.settings import RaySettings

        return RaySettings(address=self.cluster.address, http=("127.0.0.1", _PORT))

    def kill(self, pool: str, *, router: bool) -> int:
        """Kill a node of a pool, with or without the router of its site: its raylet, then its workers.

        Returns:
            The number of operator replicas on the node.
        """
        raylets = [_raylet(node) for node_pool, node in self.others if node_pool == pool]
        victim = next(
            raylet for raylet in raylets if any("router" in title for title in _replica_titles(raylet)) == router
        )
        replicas = sum("router" not in title for title in _replica_titles(victim))
        for process in [victim, *victim.children(recursive=True)]:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return replicas


def _raylet(node: Any) -> psutil.Process:
    (process,) = node.all_processes["raylet"]
    return psutil.Process(process.process.pid)


def _replica_titles(raylet: psutil.Process) -> list[str]:
    """Return the titles of the processes of a node's replicas, as set by Ray Serve."""
    titles = []
    for process in raylet.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            titles.append(" ".join(process.cmdline()))
    return [title for title in titles if "ServeReplica" in title]


@contextmanager
def ray_nodes(head: str, others: Sequence[str]) -> Iterator[RayNodes]:
    """Start a cluster that ends with the block.

    Args:
        head: pool of the head.
        others: pools of the other nodes.
    """
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from circinus.serving.ray.settings import HEAD_SETTINGS, POOL_RESOURCE, SERVE_ENVIRONMENT

    def node_arguments(pool: str) -> dict[str, Any]:
        return {**_NODE, "resources": {f"{POOL_RESOURCE}{pool}": 1000}}

    with mock.patch.dict(os.environ, SERVE_ENVIRONMENT):
        head_arguments = {**node_arguments(head), "include_dashboard": False, "_system_config": dict(HEAD_SETTINGS)}
        cluster = Cluster(initialize_head=True, head_node_args=head_arguments)
        nodes = RayNodes(cluster, [(pool, cluster.add_node(**node_arguments(pool))) for pool in others])
    try:
        yield nodes
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
