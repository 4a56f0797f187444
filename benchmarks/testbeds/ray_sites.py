"""A Ray cluster across the sites of a shaped network: one node in each namespace.

The head stands at one of the sites, as people would have it in their cloud: so what Ray and Ray Serve say to nodes
elsewhere crosses the links, too.
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
    """The address of the cluster, from inside any of the namespaces.

    Args:
        network: made.
        infrastructure: whose pools the nodes are of; all pools of a site are one node.
        head: the site where the head is.

    Raises:
        ServingError: a node does not start.
    """
    address = f"{network.plan.addresses[head]}:{_PORT}"
    nodes: list[subprocess.Popen[bytes]] = []
    folder = Path(tempfile.mkdtemp(prefix="cx-"))  # sockets are made in it, whose paths must be short
    try:
        for site in sorted(network.plan.namespaces, key=lambda site: site != head):
            pools = {POOL_RESOURCE + pool.name: 1000 for pool in infrastructure.pools if pool.site == site}
            where = network.plan.addresses[site]
            joins = [f"--address={address}"]
            if site == head:
                joins = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--temp-dir={folder}",
                         f"--system-config={json.dumps(dict(HEAD_SETTINGS))}"]  # fmt: skip
            command = network.inside(site, str(Path(sys.executable).with_name("ray")), "start", "--block", *joins,
                                     f"--node-ip-address={where}", "--num-cpus=8", f"--resources={json.dumps(pools)}",
                                     f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats")  # fmt: skip
            with (folder / f"{site}.log").open("wb") as log:
                nodes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip
            _wait_until_it_runs(nodes[-1], folder / f"{site}.log")
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
    # Ray has its workers wait for everything else on a machine; here a whole site is one of them.
    # And a head asks for a token where any program on the machine ever made one, which nodes that join do not tell.
    serve = {**SERVE_ENVIRONMENT, "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **serve, "PYTHONPATH": ":".join(path for path in paths if path)}


def _wait_until_it_runs(node: subprocess.Popen[bytes], log: Path) -> None:
    until_s = monotonic() + _START_S
    while b"Ray runtime started" not in (said := log.read_bytes()):
        if node.poll() is not None or monotonic() > until_s:
            raise ServingError(f"a Ray node does not start: {said.decode(errors='replace').strip()[-1000:]}")
        sleep(0.1)
