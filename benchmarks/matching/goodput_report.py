"""Figures and curves of goodput over load, for all methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rich.table import Table

from benchmarks.harness.results import Figure
from benchmarks.matching.scaling import OURS

FIRST_COME, NEXT_BEST = "first come first served", "first come, next best plan"
AIM_SHARE, AIM_RATIO = 0.99, 3.0
IN_SHARES, DEPLOYED = "in shares", "as deployed"


@dataclass(frozen=True)
class LoadRun:
    """Result of one method at one load."""

    instance: str
    workload: str
    load: float
    seed: int
    queries: int
    method: str
    offered_weight: float
    weight: float
    weight_bound: float
    own_bound: float
    """Bound that comes with the product's answer, also in rows of baselines, which have none."""
    cost_usd_per_h: float
    wall_s: float

    @property
    def share(self) -> float:
        """Share of the bound."""
        return self.weight / self.weight_bound


def figures(results: Sequence[LoadRun]) -> list[Figure]:
    """Return the figures of both instances."""
    listed = []
    for instance in dict.fromkeys(run.instance for run in results):
        runs = [run for run in results if run.instance == instance]
        ours = [run for run in runs if run.method == OURS]
        case = f"goodput over load, {instance}"
        listed.append(
            Figure(f"{case}: least share of the bound", min(run.share for run in ours), AIM_SHARE, "higher", "share",
                   "; ".join(f"{name} {min(run.share for run in group):.1%} to {max(run.share for run in group):.1%}"
                             for name, group in _by_workload(ours)))
        )  # fmt: skip
        if instance == IN_SHARES:
            loosest = max(run.own_bound / run.weight_bound for run in ours)
            listed.append(
                Figure(f"{case}: bound that comes with the answer over that of the linear programme", loosest, None,
                       "lower", "times", "the loosest")
            )  # fmt: skip
        beyond = [run for run in ours if run.load > 1]
        for what, over in (("smallest", np.min), ("median", np.median)):
            note = "; ".join(
                f"{name} {over([_ratio(run, runs) for run in group]):.2f}, at most possible "
                f"{over([_ratio(run, runs) * run.weight_bound / run.weight for run in group]):.2f}"
                for name, group in _by_workload(beyond)
            )
            listed.append(
                Figure(f"{case}: times first come first served beyond saturation, {what}",
                       float(over([_ratio(run, runs) for run in beyond])), AIM_RATIO, "higher", "times", note)
            )  # fmt: skip
        by_load = "; ".join(
            f"load {load:g}: {np.median([_ratio(run, runs) for run in ours if run.load == load]):.2f}"
            for load in dict.fromkeys(run.load for run in beyond)
        )
        last = [run for run in beyond if run.load == max(run.load for run in beyond)]
        listed.append(
            Figure(f"{case}: times first come first served at load {last[0].load:g}, median",
                   float(np.median([_ratio(run, runs) for run in last])), None, "higher", "times", by_load)
        )  # fmt: skip
        listed.append(
            Figure(f"{case}: times first come with the next best plan beyond saturation, median",
                   float(np.median([_ratio(run, runs, NEXT_BEST) for run in beyond])), None, "higher", "times")
        )  # fmt: skip
        dearer = [(run.cost_usd_per_h / run.weight) / (_other(run, runs, FIRST_COME).cost_usd_per_h
                  / _other(run, runs, FIRST_COME).weight) for run in beyond]  # fmt: skip
        listed.append(
            Figure(f"{case}: cost for each unit of weight over first come's beyond saturation, median",
                   float(np.median(dearer)), None, "lower", "times")
        )  # fmt: skip
    return listed


def _by_workload(runs: Sequence[LoadRun]) -> Iterator[tuple[str, list[LoadRun]]]:
    for name in dict.fromkeys(run.workload for run in runs):
        yield name, [run for run in runs if run.workload == name]


def _other(run: LoadRun, runs: Sequence[LoadRun], method: str) -> LoadRun:
    """Return the run of another method at the same load."""
    key = run.instance, run.workload, run.load, run.seed, method
    return next(r for r in runs if (r.instance, r.workload, r.load, r.seed, r.method) == key)


def _ratio(run: LoadRun, runs: Sequence[LoadRun], method: str = FIRST_COME) -> float:
    return run.weight / _other(run, runs, method).weight


def table(results: Sequence[LoadRun]) -> Table:
    """Return the curves: means over seeds."""
    methods = list(dict.fromkeys(run.method for run in results))
    drawn = Table(
        "workload", "load", "queries", "bound / offered", *(f"{name} / bound" for name in methods),
        "times first come", "$/h", "$/h first come", title="Goodput over load",
    )  # fmt: skip
    ordered = sorted(results, key=lambda run: (run.instance == DEPLOYED, run.workload, run.load))
    for (instance, name, load), group in groupby(ordered, key=lambda run: (run.instance, run.workload, run.load)):
        runs = list(group)
        ours = [run for run in runs if run.method == OURS]
        first = [run for run in runs if run.method == FIRST_COME]
        shares = {method: [run.share for run in runs if run.method == method] for method in methods}
        drawn.add_row(
            f"{name}, {instance}", f"{load:g}", f"{np.mean([run.queries for run in ours]):,.0f}",
            f"{np.mean([run.weight_bound / run.offered_weight for run in ours]):.1%}",
            *(f"{np.mean(shares[method]):.1%}" if shares[method] else "" for method in methods),
            f"{np.mean([_ratio(run, runs) for run in ours]):.2f}",
            f"{np.mean([run.cost_usd_per_h for run in ours]):.4g}",
            f"{np.mean([run.cost_usd_per_h for run in first]):.4g}",
        )  # fmt: skip
    return drawn
