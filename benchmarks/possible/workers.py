"""Variants of a model on kinds of workers that are paid whole, and their optimum by a mixed-integer program.

The program divides requests at will, like the matching, and is built from the numbers alone. No latency is limited, so
that replicas are used up to the maximum utilization.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching import Matching, MatchSettings, plan_all_queries
from circinus.matching.solvers.highs import LpModel, solve_milp
from circinus.profiling import ConfigurationProfile, MeasuredSpeed, OperatorProfile, PipelineProfile, Speeds
from circinus.specification import (
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    KnobValues,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Site,
    Specification,
)
from circinus.statistics.interval import Interval

_ITEMS = 30
_LIMIT_S = 60.0
"""Time limit of the program."""
_TARGET = Infrastructure.model_fields["max_utilization"].default
UNFITTED = MatchSettings(fits_targets=False)
"""Settings at which the program's optimum is that of the matching: replicas stay at their targets."""


@dataclass(frozen=True)
class Workers:
    """Variants of a classifier, and maybe a first operator, on kinds of workers that hold one replica each."""

    throughput_per_s: FloatArray
    """(operators, variants, kinds); the first of two operators has one variant only."""
    accuracy: tuple[float, ...]
    """(variants,)"""
    price_usd_per_h: tuple[float, ...]
    """(kinds,)"""
    nodes: tuple[int, ...]
    """(kinds,)"""
    queries: tuple[Query, ...]
    fixed: bool = False
    """Whether the first operator is not divided."""

    @classmethod
    def random(cls, seed: int, *, operators: int = 1, queries: int = 3, fixed: bool = False) -> Workers:
        rng = np.random.default_rng(seed)
        variants, kinds = 4, 3
        accuracy = np.sort(rng.uniform(0.5, 0.9, variants))
        speed = rng.uniform(5, 40, kinds)
        size = np.cumprod(rng.uniform(1.2, 2.2, variants))
        throughput_per_s = (
            speed * np.ones((operators, variants, 1)) * rng.uniform(0.7, 1.3, (operators, variants, kinds))
        )
        throughput_per_s[-1] /= size[:, None]
        price = speed / 40 * rng.uniform(0.6, 1.4, kinds)
        return cls(
            throughput_per_s,
            tuple(accuracy.round(3).tolist()),
            tuple(price.round(3).tolist()),
            tuple(rng.integers(1, 9, kinds).tolist()),
            tuple(
                Query(
                    name=f"q{number}",
                    pipeline="p",
                    source="here",
                    rate_per_s=round(float(rng.uniform(3, 40)), 2),
                    slos=f"accuracy >= {float(rng.uniform(accuracy[0], accuracy[-1])):.3f}",
                    weight=float(rng.integers(1, 5)),
                )
                for number in range(queries)
            ),
            fixed,
        )

    @classmethod
    def published(cls, rate_per_s: float, accuracy: float, queries: int = 1) -> Workers:
        """Return equal queries, together at a rate, for five variants of a classifier on three kinds of workers.

        Made in the manner of settings that other planners publish: throughputs fall by eight from the smallest to the
        largest variant, and kinds of workers differ in which variants they favour.
        """
        throughput_per_s = [[60, 140, 25], [40, 110, 15], [22, 80, 8], [12, 55, 4.5], [7, 38, 2.5]]
        return cls(
            np.array([throughput_per_s], dtype=np.float64),
            (0.56, 0.65, 0.70, 0.74, 0.78),
            (0.17, 0.526, 0.08),
            (12, 8, 20),
            tuple(
                Query(
                    name=f"q{number}",
                    pipeline="p",
                    source="here",
                    rate_per_s=rate_per_s / queries,
                    slos=f"accuracy >= {accuracy}",
                )
                for number in range(queries)
            ),
        )

    @property
    def operators(self) -> tuple[str, ...]:
        return ("first", "classify")[-len(self.throughput_per_s) :]

    def specification(self) -> tuple[Specification, dict[str, PipelineProfile]]:
        knob = Knob(name="variant", choices=tuple(range(len(self.accuracy))))
        operators = [OperatorSpec(name="classify", uses="m:a", knobs=(knob,))]
        if len(self.operators) > 1:
            operators[0] = operators[0].model_copy(update={"after": ("first",)})
            operators.insert(0, OperatorSpec(name="first", uses="m:a", split=not self.fixed))
        pipeline = Pipeline(
            name="p",
            operators=tuple(operators),
            metric=MetricSpec(name="accuracy", uses="m:a"),
            dataset=DatasetSpec(uses="m:a"),
        )
        kinds = zip(self.price_usd_per_h, self.nodes, strict=True)
        pools = tuple(
            Pool(
                name=f"kind{kind}",
                site="here",
                tier="edge",
                nodes=nodes,
                cpus=1,
                memory_bytes=2.0**33,
                price_usd_per_h=price,
                hardware=HardwareClass(name=f"class{kind}", relative_speed=1.0),
            )
            for kind, (price, nodes) in enumerate(kinds)
        )
        profiles = [self._profile(variant, score) for variant, score in enumerate(self.accuracy)]
        profile = PipelineProfile("p", "none", _ITEMS, 0, "local", 0.05, tuple(profiles), 0, 1.0, 0.0)
        infrastructure = Infrastructure(name="i", sites=(Site(name="here"),), pools=pools, links=())
        return Specification({"p": pipeline}, infrastructure, self.queries), {"p": profile}

    def _profile(self, variant: int, score: float) -> ConfigurationProfile:
        knobs = {name: KnobValues() for name in self.operators} | {"classify": KnobValues.of({"variant": variant})}
        operators = {}
        for operator, name in enumerate(self.operators):
            throughput_per_s = self.throughput_per_s[operator, variant if name == "classify" else 0]
            upstream = {other: knobs[other] for other in self.operators[: operator + 1]}
            speeds = {
                f"class{kind}": MeasuredSpeed(Interval.exact(float(rate / throughput_per_s[0])), _ITEMS, None)
                for kind, rate in enumerate(throughput_per_s)
            }
            seconds, size = np.full(_ITEMS, 1 / throughput_per_s[0]), np.full(_ITEMS, 1e3)
            operators[name] = OperatorProfile(
                name, Configuration.of(upstream), seconds, size, 2.0**28, 1.0, {(1.0, 1): 1.0}, speeds=Speeds(speeds)
            )
        accuracy, scores = Interval.exact(score), np.full(_ITEMS, score)
        return ConfigurationProfile(
            Configuration.of(knobs), np.arange(_ITEMS), scores, accuracy, np.full(_ITEMS, 1e3), operators
        )

    def optimum(self) -> tuple[float, float]:
        """Return the maximum weight, and the minimum cost at it."""
        kinds, variants = range(len(self.nodes)), range(len(self.accuracy))
        plans = list(product(variants, *(kinds for _ in self.operators)))
        deployments = [
            (o, v, k)
            for o, name in enumerate(self.operators)
            for v in variants
            for k in kinds
            if v == 0 or name == "classify"
        ]
        shares, served = len(self.queries) * len(plans), len(self.queries)
        fixed = len(self.queries) * len(kinds) if self.fixed else 0
        first_count = shares + served + fixed
        model = LpModel(
            upper=[1.0] * first_count + [float(self.nodes[kind]) for _, _, kind in deployments],
            continuous=list(range(shares)),
        )
        loads: dict[int, list[tuple[int, float]]] = {index: [] for index in range(len(deployments))}
        for q, query in enumerate(self.queries):
            columns = q * len(plans) + np.arange(len(plans))
            model.add_row(np.append(columns, shares + q), np.append(np.ones(len(plans)), -1.0), 0.0, 0.0)
            assert query.slos.accuracy is not None
            margin = np.array([self.accuracy[variant] for variant, *_ in plans]) - query.slos.accuracy.threshold
            model.add_row(columns, margin, 0.0, np.inf)
            for column, (variant, *pools) in zip(columns.tolist(), plans, strict=True):
                for operator, (name, kind) in enumerate(zip(self.operators, pools, strict=True)):
                    own = variant if name == "classify" else 0
                    load = query.rate_per_s / self.throughput_per_s[operator, own, kind] / _TARGET
                    loads[deployments.index((operator, own, kind))].append((column, load))
            for kind in kinds if self.fixed else ():
                on_kind = columns[[pools[0] == kind for _, *pools in plans]]
                here = shares + served + q * len(kinds) + kind
                model.add_row(np.append(on_kind, here), np.append(np.ones(len(on_kind)), -1.0), -np.inf, 0.0)
            if self.fixed:
                one = shares + served + q * len(kinds) + np.arange(len(kinds))
                model.add_row(one, np.ones(len(kinds)), 0.0, 1.0)
        for index, entries in loads.items():
            columns = np.array([*(column for column, _ in entries), first_count + index])
            model.add_row(columns, np.array([*(-load for _, load in entries), 1.0]), 0.0, np.inf)
        for kind in kinds:
            of_kind = np.array([first_count + index for index, (*_, own) in enumerate(deployments) if own == kind])
            model.add_row(of_kind, np.ones(len(of_kind)), 0.0, float(self.nodes[kind]))
        weight, cost = np.zeros(len(model.upper)), np.zeros(len(model.upper))
        weight[shares : shares + served] = [query.weight for query in self.queries]
        cost[first_count:] = [self.price_usd_per_h[kind] for _, _, kind in deployments]
        nothing = np.zeros(len(model.upper))
        best, _ = solve_milp(model, -weight, nothing, time_limit_s=_LIMIT_S, gap=1e-6, seed=0)
        assert best is not None
        columns = np.arange(shares, shares + served)
        model.add_row(columns, weight[columns], round(float(weight @ best)) - 0.5, np.inf)
        values, _ = solve_milp(model, cost, best, time_limit_s=_LIMIT_S, gap=1e-9, seed=0)
        assert values is not None
        return round(float(weight @ best)), float(cost @ values)

    def plan(self, settings: MatchSettings = UNFITTED) -> Matching:
        specification, profiles = self.specification()
        return plan_all_queries(specification, profiles, settings=settings)[0]
