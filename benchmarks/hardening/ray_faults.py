"""Faults of a Ray cluster across two sites under load: of a replica, of the node without the head, of their link.

A query is split over both sites, each with room for all of it, so that its requests can be answered by the rest. They
enter at the site of the head over HTTP, each with a deadline. No controller runs; nodes that end are started again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
from rich.console import Console

from benchmarks.hardening.fault_kinds import Healing, signal_all
from benchmarks.hardening.http_load import HttpClients, HttpOutcome
from benchmarks.hardening.ray_fault_outcomes import DEADLINE_S, RayFault, ray_fault, ray_result
from benchmarks.harness.benchmark import PartResult, UnavailableError
from benchmarks.links import site_process
from benchmarks.testbeds.network_namespace import process_in
from benchmarks.testbeds.ray_sites import RaySites, ray_sites
from benchmarks.testbeds.shaped_network import ShapedNetwork, end_processes, why_not
from benchmarks.workloads.operators import with_pauses
from circinus.errors import ServingError
from circinus.serving import DesiredState
from circinus.serving.ray.settings import DEFAULT_HTTP
from circinus.testing.desired_states import StageSpec, infrastructure, split_route, state

_QUERY, _SITE, _OTHER_SITE = "q", "home", "center"
_PAUSE_S, _REPLICAS = 0.1, 2
_RATE_PER_S = 10.0
"""Request rate: half the capacity of one site, so that it catches up soon on what waited for the other."""
_CLIENTS = 250
_BEFORE_S, _AFTER_S = 2.0, 8.0
_WHOLE_S = 60.0
_LOOK_S = 0.5
_END_S = 10.0
"""Time for processes to end that are no child of the testbed."""


@dataclass
class Scene:
    """Running cluster, with a process of the clients at the site of the head."""

    cluster: RaySites
    clients: ProcessPoolExecutor
    seen: set[psutil.Process] = field(default_factory=set)
    """Processes that the cluster had when it was looked at."""

    def strike(self, kind: RayFaultKind, rng: np.random.Generator) -> RayFault:
        """Strike once under load, and wait until every replica is ready again."""
        until_s = _BEFORE_S + kind.lasts_s + _AFTER_S
        load = self.clients.submit(_load, until_s, int(rng.integers(2**32)))
        time.sleep(_BEFORE_S)
        struck_s = time.monotonic()
        heal = kind.strike(self, rng)
        try:
            time.sleep(kind.lasts_s)
        finally:
            heal()
            healed_s = time.monotonic()
        while not load.done():
            with suppress(ServingError):  # a later attempt may succeed
                self.cluster.restart_ended()
            time.sleep(_LOOK_S)
        start_s, outcomes = load.result()
        trouble = self._trouble(healed_s + _WHOLE_S)
        fault = ray_fault(kind.name, outcomes, struck_s - start_s, healed_s - start_s, until_s)
        return replace(fault, trouble=trouble)

    def _trouble(self, end_s: float) -> str:
        """Wait until every replica is ready, at most until a monotonic time; return what is not well by then."""
        while (trouble := self.clients.submit(site_process.trouble).result()) and time.monotonic() < end_s:
            with suppress(ServingError):  # a later attempt may succeed
                self.cluster.restart_ended()
            time.sleep(_LOOK_S)
        return trouble

    def processes(self, *sites: str) -> list[psutil.Process]:
        """Return the processes of the nodes of some sites."""
        found: list[psutil.Process] = []
        for site in sites:
            with suppress(psutil.NoSuchProcess):
                node = psutil.Process(self.cluster.nodes[site].pid)
                found += [node, *node.children(recursive=True)]
        self.seen.update(found)
        return found

    def replicas(self) -> list[int]:
        """Return the ids of the processes of all operator replicas, which Ray Serve gives titles."""
        titles = {}
        for process in self.processes(_SITE, _OTHER_SITE):
            with suppress(psutil.NoSuchProcess):
                titles[process.pid] = " ".join(process.cmdline())
        found = [pid for pid, title in titles.items() if "ServeReplica" in title and "router" not in title]
        if not found:
            raise RuntimeError(f"no replica among {sorted(titles.values())}")
        return found

    def left(self) -> int:
        """Return the number of processes that are left of the cluster, which has ended, and end them."""
        _, left = psutil.wait_procs(self.seen, timeout=_END_S)
        for process in left:  # by its identity: an id may be that of another process by now
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return len(left)


@dataclass(frozen=True)
class RayFaultKind:
    """Kind of fault, and how it strikes."""

    name: str
    lasts_s: float
    strike: Callable[[Scene, np.random.Generator], Healing]


def _kill_replica(scene: Scene, rng: np.random.Generator) -> Healing:
    signal_all([int(rng.choice(scene.replicas()))], signal.SIGKILL)
    return lambda: None


def _suspend_replica(scene: Scene, rng: np.random.Generator) -> Healing:
    return _suspended([int(rng.choice(scene.replicas()))])


def _suspend_node(scene: Scene, rng: np.random.Generator) -> Healing:
    del rng
    return _suspended([process.pid for process in scene.processes(_OTHER_SITE)])


def _suspended(processes: Sequence[int]) -> Healing:
    signal_all(processes, signal.SIGSTOP)
    return lambda: signal_all(processes, signal.SIGCONT)


def _cut_link(scene: Scene, rng: np.random.Generator) -> Healing:
    del rng
    scene.cluster.network.partition()
    return lambda: scene.cluster.network.shape(shaped=True)


_KINDS = (
    RayFaultKind("replica killed", 0.0, _kill_replica),
    RayFaultKind("replica suspended for 10 s", 10.0, _suspend_replica),
    # Ray declares a node dead after 5 s.
    RayFaultKind("node suspended for 3 s", 3.0, _suspend_node),
    RayFaultKind("node suspended for 12 s", 12.0, _suspend_node),
    RayFaultKind("sites apart for 3 s", 3.0, _cut_link),
    RayFaultKind("sites apart for 20 s", 20.0, _cut_link),
)


def ray_faults(strikes: int, seed: int, console: Console) -> PartResult:
    """Strike each kind a number of times, in a seeded order.

    Raises:
        UnavailableError: this machine cannot create network namespaces.
    """
    if missing := why_not():
        raise UnavailableError(missing)
    rng, left = np.random.default_rng(seed), 0
    order = [_KINDS[index] for _ in range(strikes) for index in rng.permutation(len(_KINDS))]
    faults: list[RayFault] = []
    while len(faults) < len(order):
        with ShapedNetwork(infrastructure()) as network:
            with _running(network) as scene:
                scene.clients.submit(site_process.apply, _desired()).result()
                scene.clients.submit(_load, _BEFORE_S, seed).result()  # the first requests connect
                for kind in order[len(faults) :]:
                    faults.append(scene.strike(kind, rng))
                    scene.processes(_SITE, _OTHER_SITE)
                    console.print(str(faults[-1]), highlight=False, markup=False, soft_wrap=True)
                    if faults[-1].trouble:
                        break  # a new cluster takes the others
            left += scene.left()
    return ray_result(faults, left, console)


@contextmanager
def _running(network: ShapedNetwork) -> Iterator[Scene]:
    """Start a cluster for the block."""
    namespace = network.plan.namespaces[_SITE]
    with process_in(namespace) as clients, ray_sites(network, infrastructure(), _SITE) as cluster:
        clients.submit(site_process.connect, cluster.address, network.plan.addresses[_SITE]).result()
        try:
            yield Scene(cluster, clients)
        except BaseException:
            end_processes(namespace)  # its pending calls have no caller any more
            raise
        clients.submit(site_process.disconnect).result()


def _desired() -> DesiredState:
    near, far = (
        StageSpec("slow", "pause", knobs=(("seconds", _PAUSE_S),), pool=pool, replicas=_REPLICAS)
        for pool in ("near", "far")
    )
    return with_pauses(state([split_route(_QUERY, (0.5, [near]), (0.5, [far]))], [near, far]), [near, far], cpus=0.5)


def _load(duration_s: float, seed: int) -> tuple[float, list[HttpOutcome]]:
    """Send requests; return the monotonic time of the start, and their outcomes."""

    async def send() -> tuple[float, list[HttpOutcome]]:
        clients = HttpClients(DEFAULT_HTTP, f"/{_SITE}/{_QUERY}", _CLIENTS)
        start_s = time.monotonic()
        outcomes = await clients.load(_RATE_PER_S, duration_s, DEADLINE_S, seed)
        await clients.close()
        return start_s, outcomes

    return asyncio.run(send())
