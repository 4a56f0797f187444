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


@contextmanager
def ray_sites(network: ShapedNetwork, infrastructure: Infrastructure, head: str) -> Iterator[str]:
    """Start a cluster for the block; yield its address, valid in all namespaces.

    Args:
        network: an existing network.
        infrastructure: pools of the nodes; all pools of a site share one node.
        head: site of the head.

    Raises:
        ServingError: a node fails to start.
    """
    address = f"{network.plan.addresses[head]}:{_PORT}"
    nodes: list[subprocess.Popen[bytes]] = []
    folder = Path(tempfile.mkdtemp(prefix="cx-"))  # the paths of its sockets must be short
    try:
        for site in sorted(network.plan.namespaces, key=lambda site: site != head):
            pools = {POOL_RESOURCE + pool.name: 1000 for pool in infrastructure.pools if pool.site == site}
            ip = network.plan.addresses[site]
            role = [f"--address={address}"]
            if site == head:
                role = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={folder}",
                         f"--system-config={json.dumps(dict(HEAD_SETTINGS))}"]  # fmt: skip
            command = network.inside(site, str(Path(sys.executable).with_name("ray")), "start", "--block", *role,
                                     f"--node-ip-address={ip}", "--num-cpus=8", f"--resources={json.dumps(pools)}",
                                     f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats")  # fmt: skip
            with (folder / f"{site}.log").open("wb") as log:
                nodes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip
            _wait_until_running(nodes[-1], folder / f"{site}.log")
        yield address
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
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
