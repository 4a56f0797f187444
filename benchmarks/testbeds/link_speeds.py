"""What the links of a shaped network really do: bytes a second and round trips, measured by an own little sender."""

from __future__ import annotations

import socket
import statistics
import threading
from dataclasses import dataclass
from time import perf_counter

from benchmarks.testbeds.network_namespace import connected, listening
from benchmarks.testbeds.shaped_network import ShapedNetwork

_SECONDS = 1.5
"""Of sending at the full bandwidth, after as much has passed as goes at once."""
_ROUND_TRIPS = 21
_CHUNK = 65_536


@dataclass(frozen=True)
class LinkSpeed:
    """One direction of a link as specified and as measured."""

    link: str
    bytes_per_s: float
    measured_bytes_per_s: float
    """Of payload, in one TCP connection."""
    round_trip_s: float
    measured_round_trip_s: float
    """Median, of a byte."""


def link_speeds(network: ShapedNetwork) -> list[LinkSpeed]:
    """Of both directions of every link, one after the other."""
    site_of = {namespace: site for site, namespace in network.plan.namespaces.items()}
    found = []
    for pair in network.plan.ends:
        round_trip_s = pair[0].link.one_way_s + pair[1].link.one_way_s
        for here, there in (pair, pair[::-1]):
            address = network.plan.addresses[site_of[there.namespace]]
            with listening(there.namespace, address) as server:
                measured_s = _round_trip_s(here.namespace, server)
                speed = _bytes_per_s(here.namespace, server, here.link.bandwidth_bytes_per_s)
            found.append(LinkSpeed(here.link.name, here.link.bandwidth_bytes_per_s, speed, round_trip_s, measured_s))
    return found


def _round_trip_s(namespace: str, server: socket.socket) -> float:
    def echo() -> None:
        peer, _ = server.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while said := peer.recv(1):
                peer.sendall(said)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    seconds = []
    with connected(namespace, server.getsockname()) as client:
        for _ in range(_ROUND_TRIPS):
            begin_s = perf_counter()
            client.sendall(b"x")
            client.recv(1)
            seconds.append(perf_counter() - begin_s)
    thread.join()
    return statistics.median(seconds)


def _bytes_per_s(namespace: str, server: socket.socket, expected_bytes_per_s: float) -> float:
    """As they arrive, from when the connection is at its pace."""
    total = int(expected_bytes_per_s * _SECONDS)
    arrived: list[tuple[float, int]] = []

    def receive() -> None:
        peer, _ = server.accept()
        count = 0
        with peer:
            while said := peer.recv(_CHUNK):
                count += len(said)
                arrived.append((perf_counter(), count))

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    with connected(namespace, server.getsockname()) as client:
        client.sendall(bytes(total))
    thread.join()
    (begin_s, before), (end_s, after) = arrived[len(arrived) // 3], arrived[-1]
    return (after - before) / max(end_s - begin_s, 1e-9)
