"""The very requests of a run of traffic, simulated: what the rules of a plan come to for these, without an engine."""

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
    """The requests of one query, in order."""

    time_s: FloatArray
    """(n,) when each is due, after the traffic began."""
    items: IntArray
    """(n,) which of the items it carries."""


def sent(query: Query, items: int, traffic: LoadSpec) -> Sent:
    """What `run_load` sends to the only query it serves: its arrivals, and items in turns of random order.

    Args:
        query: with its arrivals.
        items: how many there are to send.
        traffic: without a trace.
    """
    process = arrival_process(query).scaled(traffic.rate_factor)
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
    """(n,) the latencies of the requests that are due after the warm-up.

    Args:
        planned: a query alone, with the profile of the items as they are numbered in `requests`.
        replicas: of its plan's deployments.
        network: where they run.
        requests: what is sent.
        warm_up_s: what comes before is simulated and left out.
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
