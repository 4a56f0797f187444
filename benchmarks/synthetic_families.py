"""Five kinds of pipelines whose optimum is known, each with about 10^3, 10^6, 10^9 and 10^12 configurations.

Each is a sensor stream that is prepared, searched and listened to, and answered from both: a fork and a join over a
device, an edge and a cloud. Numbers are drawn anew for each seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.synthetic_items import SyntheticItems
from benchmarks.synthetic_model import NOTHING, Effect, Joint, OperatorModel, SyntheticModel
from benchmarks.synthetic_optimum import Optimum, optimum
from benchmarks.synthetic_truth import cheapest_plan
from circinus.spec import (
    AccuracySlo,
    CostSlo,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    LatencySlo,
    Link,
    MetricSpec,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Site,
    Slos,
    Specification,
    knob_values,
)

EXPONENTS = (3, 6, 9, 12)
"""Sizes, as powers of ten."""
BEST = 0.85
ALLOWED_LOSS = 0.12
"""Of the mean score: the accuracy objective lies that much below the best."""
_KNOBS_LOSS = 0.5
"""What all knobs lose together where each loses most."""
_LATENCY_ROOM = 1.25
"""Latency limit over what the optimum takes."""
_COST_ROOM = 1.5
"""Cost limit over the optimum's, in families that have one."""
_GIB = 2.0**30
_MIB = 2.0**20


@dataclass(frozen=True, eq=False)
class SyntheticCase:
    """A pipeline, where it may run, one query, and its optimum."""

    family: str
    exponent: int
    model: SyntheticModel
    specification: Specification
    optimum: Optimum

    @property
    def query(self) -> Query:
        """The one query."""
        return self.specification.queries[0]

    @property
    def network(self) -> Network:
        """Of the infrastructure."""
        assert self.specification.infrastructure is not None
        return Network(self.specification.infrastructure)

    @property
    def configurations(self) -> int:
        """How many there are."""
        return math.prod(len(knob_values(operator)) for operator in self.model.pipeline.operators)


@dataclass(frozen=True)
class Family:
    """One kind of pipeline: how many choices its knobs have, and what these do."""

    name: str
    choices: Mapping[int, tuple[int, int, int, int]]
    """Exponent -> choices of the knobs `quality`, `effort`, `variant`, and number of knobs that change nothing."""
    quality_loss: Callable[[int, np.random.Generator], Sequence[float]]
    """(choices, rng) -> shares of the loss, from least to most quality."""
    variant_loss: Callable[[int, np.random.Generator], Sequence[float]]
    joints: Callable[[Mapping[str, int], np.random.Generator], tuple[Joint, ...]]
    """(choices of `variant` by operator, rng) -> what knobs lose jointly."""
    knobs_loss: float = _KNOBS_LOSS
    limits_cost: bool = False


_OPERATORS = {"prepare": (), "find": ("prepare",), "hear": ("prepare",), "answer": ("find", "hear")}
_SERVICE_S = {"prepare": 0.04, "find": 0.12, "hear": 0.08, "answer": 0.05}
_OUTPUT_BYTES = {"prepare": 60e3, "find": 4e3, "hear": 2e3, "answer": 1e3}
_MEMORY = {"prepare": 0.3 * _GIB, "find": 1.5 * _GIB, "hear": 1.0 * _GIB, "answer": 0.8 * _GIB}
_RATE_PER_S = 20.0


def synthetic_case(family: Family, exponent: int, seed: int) -> SyntheticCase:
    """The pipeline of a family in one size, with the numbers of one seed."""
    rng = np.random.default_rng([seed, exponent, *family.name.encode()])
    operators = _operators(family, exponent)
    counts = {o.name: len(k.choices) for o in operators for k in o.knobs if k.name == "variant"}
    pipeline = Pipeline(
        name=f"{family.name}-{exponent}".replace(" ", "-"),
        operators=operators,
        metric=MetricSpec(name="score", uses="synthetic:score"),
        dataset=DatasetSpec(uses="synthetic:items", held_out=0.0),
    )
    model = SyntheticModel(
        pipeline=pipeline,
        operators=_models(family, operators, rng),
        joints=family.joints(counts, rng),
        best=BEST,
        input_bytes=100e3,
        items=SyntheticItems.drawn(rng),
        seed=seed,
    )
    return _with_objectives(family, exponent, model)


def _with_objectives(family: Family, exponent: int, model: SyntheticModel) -> SyntheticCase:
    """The cheapest configuration that is accurate enough stays so under limits on latency and cost that it keeps."""
    infrastructure, threshold = _infrastructure(), round(BEST - ALLOWED_LOSS, 4)
    network = Network(infrastructure)
    asked = Slos(accuracy=AccuracySlo(threshold=threshold))
    query = Query(name="query", pipeline=model.pipeline.name, source="site", rate_per_s=_RATE_PER_S, slos=asked)
    found = optimum(model, query, network, threshold)
    plan = None if found is None else cheapest_plan(model, query, network, [found.configuration])
    if found is None or plan is None:
        raise ValueError(
            f"{model.pipeline.name}: found no configuration that is accurate enough and fits, expected one"
        )
    slos = Slos(
        accuracy=asked.accuracy,
        latency=LatencySlo(percentile=95, limit_s=float(f"{_LATENCY_ROOM * plan.estimate.latency_s.upper:.3g}")),
        cost=CostSlo(limit_usd_per_h=float(f"{_COST_ROOM * found.cost_usd_per_h:.3g}")) if family.limits_cost else None,
    )
    query = query.model_copy(update={"slos": slos})
    kept = cheapest_plan(model, query, network, [found.configuration])
    if kept is None or not math.isclose(kept.estimate.cost_usd_per_h.lower, found.cost_usd_per_h, rel_tol=1e-6):
        raise ValueError(f"{model.pipeline.name}: found no plan at the cost that was computed, expected one")
    specification = Specification.of((model.pipeline,), infrastructure, (query,))
    return SyntheticCase(family.name, exponent, model, specification, found)


def _operators(family: Family, exponent: int) -> tuple[OperatorSpec, ...]:
    """`hear` has its quality as two back ends, the better one with beams."""
    quality, effort, variant, dead = family.choices[exponent]
    found = []
    for number, (name, after) in enumerate(_OPERATORS.items()):
        knobs = []
        if name == "hear" and quality > 1:
            knobs.append(Knob(name="backend", choices=("fast", "thorough"), ordered=True))
            beams = tuple(range(1, quality))
            knobs.append(Knob(name="beam", choices=beams, ordered=True, only_if={"backend": ("thorough",)}))
        elif quality > 1:
            knobs.append(Knob(name="quality", choices=tuple(range(1, quality + 1)), ordered=True))
        if effort > 1:
            knobs.append(Knob(name="effort", choices=tuple(range(1, effort + 1)), ordered=True))
        if variant > 1:
            knobs.append(Knob(name="variant", choices=tuple(f"v{choice}" for choice in range(variant))))
        knobs += [Knob(name=f"idle{k}", choices=("off", "on")) for k in range(number, dead, len(_OPERATORS))]
        found.append(
            OperatorSpec(
                name=name,
                uses=f"synthetic:{name}",
                after=after,
                knobs=tuple(knobs),
                cpus=(1.0, 2.0) if name == "find" else (1.0,),
                batch_sizes=(1, 4) if name == "hear" else (1,),
                allowed_tiers=None if name == "prepare" else ("edge", "cloud"),
            )
        )
    return tuple(found)


def _models(family: Family, operators: Sequence[OperatorSpec], rng: np.random.Generator) -> Mapping[str, OperatorModel]:
    losing = [
        (o.name, k.name) for o in operators for k in o.knobs if k.name in ("quality", "beam", "effort", "variant")
    ]
    weights = dict(zip(losing, family.knobs_loss * rng.dirichlet(np.full(len(losing), 4.0)), strict=True))
    found = {}
    for spec in operators:
        effects: dict[str, tuple[Effect, ...]] = {}
        for knob in spec.knobs:
            weight, count = weights.get((spec.name, knob.name), 0.0), len(knob.choices)
            if knob.name == "variant":
                effects["variant"] = _variants(weight, family.variant_loss(count, rng), rng)
            elif knob.name == "beam":
                fast, *beams = _ladder(weight, family.quality_loss(count + 1, rng), rng)
                effects |= {"backend": (fast, Effect(memory=2.0)), "beam": tuple(beams)}
            elif knob.name in ("quality", "effort"):
                shrinks = (spec.name, knob.name) == ("prepare", "quality")
                effects[knob.name] = _ladder(weight, family.quality_loss(count, rng), rng, shrinks=shrinks)
            elif knob.name.startswith("idle"):
                effects[knob.name] = (NOTHING,) * count
        found[spec.name] = OperatorModel(
            service_s=_SERVICE_S[spec.name] * float(rng.uniform(0.8, 1.25)),
            output_bytes=_OUTPUT_BYTES[spec.name],
            memory_bytes=_MEMORY[spec.name],
            load_s=2.0,
            effects=effects,
        )
    return found


def _ladder(
    weight: float, shares: Sequence[float], rng: np.random.Generator, *, shrinks: bool = False
) -> tuple[Effect, ...]:
    """More and more time for less and less loss; the lower choices may make outputs smaller, too."""
    growth, places = rng.uniform(0.7, 1.5), np.linspace(0.0, 1.0, len(shares))
    return tuple(
        Effect(
            time=math.exp(growth * at),
            loss=weight * share,
            size=round(0.5 ** (1.0 - at), 6) if shrinks else 1.0,
            memory=1.0 + 0.5 * at,
        )
        for at, share in zip(places.tolist(), shares, strict=True)
    )


def _variants(weight: float, shares: Sequence[float], rng: np.random.Generator) -> tuple[Effect, ...]:
    """In no order. One in four is a large model, which needs much of a node of the edge."""
    return tuple(
        Effect(time=math.exp(rng.uniform(-0.4, 0.4)), loss=weight * share, memory=float(rng.choice([1, 1, 1, 6])))
        for share in shares
    )


def _infrastructure() -> Infrastructure:
    """USD 0.10, 0.20 and 0.40 for an hour's work of the reference hardware."""
    return Infrastructure(
        name="places",
        sites=(Site(name="site"), Site(name="edge"), Site(name="cloud")),
        pools=(
            Pool(
                name="device", site="site", tier="device", nodes=16, cpus=4, memory_bytes=4 * _GIB,
                hardware=HardwareClass(name="board", relative_speed=0.1), price_usd_per_h=0.04,
            ),
            Pool(
                name="edge", site="edge", tier="edge", nodes=8, cpus=32, memory_bytes=96 * _GIB,
                hardware=HardwareClass(name="server", relative_speed=0.5), price_usd_per_h=3.2,
            ),
            Pool(
                name="cloud", site="cloud", tier="cloud", nodes=64, cpus=64, memory_bytes=768 * _GIB,
                hardware=HardwareClass(name="local"), price_usd_per_h=25.6,
            ),
        ),
        links=(
            Link(source="site", target="edge", bandwidth_bytes_per_s=20e6, round_trip_s=0.004),
            Link(source="edge", target="cloud", bandwidth_bytes_per_s=40e6, round_trip_s=0.03, price_usd_per_gb=0.02),
        ),
    )  # fmt: skip


def _diminishing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """1 to 0, the first steps the largest."""
    rate, at = rng.uniform(2.0, 4.0), np.linspace(0.0, 1.0, choices)
    return tuple(((np.exp(-rate * at) - math.exp(-rate)) / (1.0 - math.exp(-rate))).tolist())


def _steps(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """1, then a third, then 0: two steps at random, flat between them."""
    first, second = np.sort(rng.integers(1, choices, 2))
    return [1.0 if at < first else 1 / 3 if at < second else 0.0 for at in range(choices)]


def _scattered(choices: int, rng: np.random.Generator) -> Sequence[float]:
    """One choice loses nothing, one loses most, the others lie anywhere between."""
    return tuple(rng.permutation([0.0, 1.0, *rng.uniform(0.0, 1.0, choices)][:choices]).tolist())


def _good_or_bad(choices: int, rng: np.random.Generator) -> Sequence[float]:
    return tuple(rng.permutation([float(at >= (choices + 1) // 2) for at in range(choices)]).tolist())


def _nothing(choices: int, rng: np.random.Generator) -> Sequence[float]:
    return [0.0] * choices


def _no_joints(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    return ()


def _exclusive_pairs(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """Two pairs of variants, each of two kinds, that lose where both are of one kind and where that is not expected:
    averaged over the other, no choice is better than another."""
    return tuple(
        Joint(
            knobs=((one, "variant"), (other, "variant")),
            kinds=tuple(tuple(rng.permutation(np.arange(counts[each]) % 2).tolist()) for each in (one, other)),
            losses={(a, b): 0.1 if a == b else 0.0 for a in (0, 1) for b in (0, 1)},
        )
        for one, other in (("find", "hear"), ("prepare", "answer"))
    )


NEEDLE_LOSS = 0.3
HINT = 0.02
"""What is lost less by each right choice of a needle, where not all are right."""


def _needle(counts: Mapping[str, int], rng: np.random.Generator) -> tuple[Joint, ...]:
    """One right variant of each of three operators; only all three together are good."""
    names = ("find", "hear", "answer")
    right = [int(rng.integers(counts[name])) for name in names]
    every = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return (
        Joint(
            knobs=tuple((name, "variant") for name in names),
            kinds=tuple(tuple(int(at == r) for at in range(counts[n])) for n, r in zip(names, right, strict=True)),
            losses={kinds: 0.0 if all(kinds) else NEEDLE_LOSS - HINT * sum(kinds) for kinds in every},
        ),
    )


_USUAL = {3: (3, 1, 2, 0), 6: (8, 1, 4, 0), 9: (8, 6, 4, 0), 12: (10, 10, 10, 0)}

FAMILIES = (
    Family("smooth", _USUAL, _diminishing, _scattered, _no_joints),
    Family("plateau", _USUAL, _steps, _good_or_bad, _no_joints, limits_cost=True),
    Family("interacting", _USUAL, _diminishing, _nothing, _exclusive_pairs, limits_cost=True),
    Family(
        "needle",
        {3: (1, 1, 6, 0), 6: (6, 1, 6, 0), 9: (6, 6, 5, 0), 12: (14, 14, 5, 0)},
        _diminishing,
        _nothing,
        _needle,
        knobs_loss=0.4,
    ),
    Family(
        "dead knobs",
        {3: (3, 1, 1, 4), 6: (6, 1, 1, 10), 9: (8, 1, 4, 10), 12: (8, 6, 4, 10)},
        _diminishing,
        _scattered,
        _no_joints,
    ),
)
"""The five. Of 10^3 configurations four knobs are dead, as ten would leave nothing else; of the larger ones ten are."""
