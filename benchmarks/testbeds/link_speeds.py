"""Measurement of the bandwidth and round-trip time of a shaped network's links."""

from __future__ import annotations

import socket
import statistics
import threading
from dataclasses import dataclass
from time import perf_counter

from benchmarks.testbeds.network_namespace import connected, listening
from benchmarks.testbeds.shaped_network import ShapedNetwork

_SECONDS = 1.5
"""Duration of sending at full bandwidth, including the burst of the token bucket."""
_ROUND_TRIPS = 21
_CHUNK = 65_536


@dataclass(frozen=True)
class LinkSpeed:
    """Specified and measured speed of one direction of a link."""

    link: str
    bytes_per_s: float
    measured_bytes_per_s: float
    """Payload of one TCP connection."""
    round_trip_s: float
    measured_round_trip_s: float
    """Median round-trip time of one byte."""


def link_speeds(network: ShapedNetwork) -> list[LinkSpeed]:
    """Measure both directions of each link, one after the other."""
    site_of = {namespace: site for site, namespace in network.plan.namespaces.items()}
    speeds = []
    for pair in network.plan.ends:
        round_trip_s = pair[0].link.one_way_s + pair[1].link.one_way_s
        for source, target in (pair, pair[::-1]):
            address = network.plan.addresses[site_of[target.namespace]]
            with listening(target.namespace, address) as server:
                measured_s = _round_trip_s(source.namespace, server)
                speed = _bytes_per_s(source.namespace, server, source.link.bandwidth_bytes_per_s)
            speeds.append(
                LinkSpeed(source.link.name, source.link.bandwidth_bytes_per_s, speed, round_trip_s, measured_s)
            )
    return speeds


def _round_trip_s(namespace: str, server: socket.socket) -> float:
    def echo() -> None:
        peer, _ = server.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while received := peer.recv(1):
                peer.sendall(received)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    seconds = []
    with connected(namespace, server.getsockname()) as client:
        for _ in range(_ROUND_TRIPS):
            start_s = perf_counter()
            client.sendall(b"x")
            client.recv(1)
            seconds.append(perf_counter() - start_s)
    thread.join()
    return statistics.median(seconds)


def _bytes_per_s(namespace: str, server: socket.socket, expected_bytes_per_s: float) -> float:
    """Return the rate of arrivals after the connection has reached its pace."""
    total = int(expected_bytes_per_s * _SECONDS)
    arrived: list[tuple[float, int]] = []

    def receive() -> None:
        peer, _ = server.accept()
        count = 0
        with peer:
            while received := peer.recv(_CHUNK):
                count += len(received)
                arrived.append((perf_counter(), count))

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    with connected(namespace, server.getsockname()) as client:
        client.sendall(bytes(total))
    thread.join()
    (start_s, before), (end_s, after) = arrived[len(arrived) // 3], arrived[-1]
    return (after - before) / max(end_s - start_s, 1e-9)
