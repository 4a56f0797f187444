"""Ray cluster across the sites of a shaped network, with one node in each namespace.

The head runs at one of the sites, as it would in a cloud, so that messages of Ray and Ray Serve to other nodes cross
the links, too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from benchmarks.testbeds.shaped_network import ROOT, ShapedNetwork
from circinus.errors import ServingError
from circinus.serving.ray.settings import HEAD_SETTINGS, POOL_RESOURCE, SERVE_ENVIRONMENT
from circinus.specification import Infrastructure

_PORT = 6399
_STORE_BYTES = 100 * 2**20
_START_S = 60.0
_END_S = 15.0


@dataclass
class RaySites:
    """Running cluster."""

    network: ShapedNetwork
    infrastructure: Infrastructure
    head: str
    """Site of the head."""
    folder: Path
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Site -> process of its node."""

    @property
    def address(self) -> str:
        """Address, valid in all namespaces."""
        return f"{self.network.plan.addresses[self.head]}:{_PORT}"

    def start(self, site: str) -> None:
        """Start the node of a site.

        Raises:
            ServingError: it fails to start.
        """
        pools = {POOL_RESOURCE + pool.name: 1000 for pool in self.infrastructure.pools if pool.site == site}
        role = [f"--address={self.address}"]
        if site == self.head:
            role = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={self.folder}",
                     f"--system-config={json.dumps(dict(HEAD_SETTINGS))}"]  # fmt: skip
        command = self.network.inside(
            site, str(Path(sys.executable).with_name("ray")), "start", "--block", *role,
            f"--node-ip-address={self.network.plan.addresses[site]}", "--num-cpus=8",
            f"--resources={json.dumps(pools)}", f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats",
        )  # fmt: skip
        with (self.folder / f"{site}.log").open("wb") as log:
            self.nodes[site] = subprocess.Popen(
                command, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        _wait_until_running(self.nodes[site], self.folder / f"{site}.log")

    def restart_ended(self) -> None:
        """Start the nodes again that have ended, as a supervisor does."""
        for site in [site for site, node in self.nodes.items() if node.poll() is not None]:
            self.start(site)


@contextmanager
def ray_sites(network: ShapedNetwork, infrastructure: Infrastructure, head: str) -> Iterator[RaySites]:
    """Start a cluster for the block.

    Args:
        network: an existing network.
        infrastructure: pools of the nodes; all pools of a site share one node.
        head: site of the head.

    Raises:
        ServingError: a node fails to start.
    """
    folder = Path(tempfile.mkdtemp(prefix="cx-"))  # the paths of its sockets must be short
    cluster = RaySites(network, infrastructure, head, folder)
    try:
        for site in sorted(network.plan.namespaces, key=lambda site: site != head):
            cluster.start(site)
        yield cluster
    finally:
        for node in cluster.nodes.values():
            node.send_signal(signal.SIGTERM)
        for node in cluster.nodes.values():
            try:
                node.wait(_END_S)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> Mapping[str, str]:
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Ray lowers the priority of its workers, which here share the machine with all sites.
    # A head requires a token if any program on the machine has created one, which joining nodes do not send.
    serve = {**SERVE_ENVIRONMENT, "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **serve, "PYTHONPATH": ":".join(path for path in paths if path)}


def _wait_until_running(node: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = monotonic() + _START_S
    while b"Ray runtime started" not in (output := log.read_bytes()):
        if node.poll() is not None or monotonic() > deadline_s:
            raise ServingError(f"a Ray node failed to start: {output.decode(errors='replace').strip()[-1000:]}")
        sleep(0.1)
