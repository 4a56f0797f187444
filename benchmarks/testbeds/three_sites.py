"""Three sites with a Ray cluster, and requests to it from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.links import site_process as links_inside
from benchmarks.links.site_process import Loaded
from benchmarks.testbeds.network_namespace import process_in
from benchmarks.testbeds.ray_sites import ray_sites
from benchmarks.testbeds.shaped_network import ShapedNetwork, end_processes, run
from benchmarks.workloads.links import HEAD, SOURCE
from circinus.matching import Matching
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.specification import Infrastructure, Specification


@dataclass(frozen=True)
class Sites:
    """A running cluster, with a process at the source site of requests."""

    network: ShapedNetwork
    inside: ProcessPoolExecutor
    store: Path
    items: int | None
    """Number of held-out items of each pipeline in the traffic; None: all."""

    def deploy(self, specification: Specification, matching: Matching) -> float:
        """See `links_inside.deploy`."""
        return self.inside.submit(links_inside.deploy, specification, matching, self.store).result()

    def load(self, specification: Specification, matching: Matching, traffic: LoadSpec) -> Loaded:
        """See `links_inside.load`."""
        future = self.inside.submit(links_inside.load, specification, matching, self.store, self.items, traffic)
        return future.result()

    def sent_bytes(self) -> Mapping[str, int]:
        """Return link -> bytes sent over it since its creation, with headers, of all programs."""
        bytes_by_link = {}
        for pair in self.network.plan.ends:
            for end in pair:
                statistics = json.loads(run("ip", "-n", end.namespace, "-s", "-j", "link", "show", "dev", end.device))
                bytes_by_link[end.link.name] = int(statistics[0]["stats64"]["tx"]["bytes"])
        return bytes_by_link


@contextmanager
def sites(infrastructure: Infrastructure, store: Path, items: int | None) -> Iterator[Sites]:
    """Start the network and the cluster for the block."""
    with ExitStack() as opened:
        network = opened.enter_context(ShapedNetwork(infrastructure))
        cluster = opened.enter_context(ray_sites(network, infrastructure, HEAD))
        inside = opened.enter_context(process_in(network.plan.namespaces[SOURCE]))
        inside.submit(links_inside.connect, cluster.address, network.plan.addresses[SOURCE]).result()
        try:
            yield Sites(network, inside, store, items)
        except BaseException:
            end_processes(network.plan.namespaces[SOURCE])  # its pending calls have no caller any more
            raise
        inside.submit(links_inside.disconnect).result()
