"""Simulation of the requests of a load test, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.arrivals import arrival_process
from circinus.serving.loadtest.load_test import LoadSpec
from circinus.serving.loadtest.open_loop import query_rng, sample_arrivals
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model import Requests
from circinus.simulation.model_builder import build_model
from circinus.specification import Deployment, Network, Query


@dataclass(frozen=True, eq=False)
class Sent:
    """Requests of one query, in order."""

    time_s: FloatArray
    """(n,) scheduled times since the start of the traffic."""
    items: IntArray
    """(n,) indexes of the items."""


def sent(query: Query, items: int, traffic: LoadSpec) -> Sent:
    """Return the requests that `run_load_test` sends to its only query: arrivals, and items in turns of random order.

    Args:
        query: query with its arrivals.
        items: number of items to send.
        traffic: specification of traffic without a trace.
    """
    process = arrival_process(query).scaled(traffic.load_factor)
    drawn = sample_arrivals({query.name: process}, traffic.warm_up_s + traffic.duration_s, traffic.seed)
    rng = query_rng(traffic.seed, query.name, "items")
    turns = [rng.permutation(items) for _ in range(-(-len(drawn) // items))]
    return Sent(
        np.array([arrival.time_s for arrival in drawn]),
        np.concatenate([*turns, np.zeros(0, dtype=np.int64)])[: len(drawn)].astype(np.int64),
    )


def traced_s(
    planned: PlannedQuery, replicas: Mapping[Deployment, int], network: Network, requests: Sent, warm_up_s: float
) -> FloatArray:
    """Return the (n,) simulated latencies of the requests after the warm-up.

    Args:
        planned: single query, with the profile of the items as numbered in `requests`.
        replicas: number of replicas per deployment.
        network: network of the deployments.
        requests: requests of the run.
        warm_up_s: duration of the warm-up, which is simulated and left out.
    """
    model = build_model([planned], replicas, network)
    simulation = Simulation(
        model.stations,
        model.queries,
        duration_s=float(requests.time_s[-1]) + 1.0,
        seed=0,
        requests=[Requests(requests.time_s, requests.items)],
    )
    simulation.run()
    run = simulation.runs[0]
    return run.latency_s[run.arrival_s >= warm_up_s]
