"""Five families of pipelines with known optimum, with about 10^3, 10^6, 10^9 and 10^12 configurations.

Each pipeline prepares a sensor stream, searches it and listens to it, and answers from both: a fork and a join over a
device, an edge and a cloud. Numbers are drawn from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.workloads.synthetic.ground_truth import cheapest_plan
from benchmarks.workloads.synthetic.items import SyntheticItems
from benchmarks.workloads.synthetic.knobs import (
    diminishing,
    exclusive_pairs,
    good_or_bad,
    ladder,
    needle,
    no_joints,
    nothing,
    scattered,
    steps,
    variants,
)
from benchmarks.workloads.synthetic.optimum import Optimum, optimum
from benchmarks.workloads.synthetic.pipeline_model import NOTHING, Effect, Joint, OperatorModel, SyntheticModel
from circinus.specification import (
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
"""Distance of the accuracy SLO from the best mean score."""
_KNOBS_LOSS = 0.5
"""Total loss of all knobs at their worst choices."""
_LATENCY_HEADROOM = 1.25
"""Latency limit relative to the latency of the optimum."""
_COST_HEADROOM = 1.5
"""Cost limit relative to the cost of the optimum, in families with a cost limit."""
_GIB = 2.0**30
Choices = Mapping[str, tuple[int, int, int]]
"""Operator -> number of choices of its knobs `quality`, `effort` and `variant`; 1 means no knob."""


@dataclass(frozen=True, eq=False)
class SyntheticCase:
    """A pipeline, its infrastructure, a query, and its optimum."""

    family: str
    exponent: int
    model: SyntheticModel
    specification: Specification
    optimum: Optimum

    @property
    def query(self) -> Query:
        """The only query."""
        return self.specification.queries[0]

    @property
    def network(self) -> Network:
        """Network of the infrastructure."""
        assert self.specification.infrastructure is not None
        return Network(self.specification.infrastructure)

    @property
    def configurations(self) -> int:
        """Number of configurations."""
        return math.prod(len(knob_values(operator)) for operator in self.model.pipeline.operators)


@dataclass(frozen=True)
class Family:
    """Family of pipelines: the number and effect of its knobs' choices."""

    name: str
    choices: Mapping[int, Choices]
    """Choices by exponent."""
    quality_loss: Callable[[int, np.random.Generator], Sequence[float]]
    """(choices, rng) -> shares of the loss, from least to most quality."""
    variant_loss: Callable[[int, np.random.Generator], Sequence[float]]
    joints: Callable[[Mapping[str, int], np.random.Generator], tuple[Joint, ...]]
    """(choices of `variant` by operator, rng) -> joint losses of knobs."""
    knobs_loss: float = _KNOBS_LOSS
    limits_cost: bool = False
    dead: Mapping[int, int] = field(default_factory=dict)
    """Exponent -> number of knobs without effect; none if missing."""


_OPERATORS = {"prepare": (), "find": ("prepare",), "hear": ("prepare",), "answer": ("find", "hear")}
_SERVICE_S = {"prepare": 0.04, "find": 0.12, "hear": 0.08, "answer": 0.05}
_OUTPUT_BYTES = {"prepare": 60e3, "find": 4e3, "hear": 2e3, "answer": 1e3}
_MEMORY = {"prepare": 0.3 * _GIB, "find": 1.5 * _GIB, "hear": 1.0 * _GIB, "answer": 0.8 * _GIB}
_RATE_PER_S = 20.0


def synthetic_case(family: Family, exponent: int, seed: int) -> SyntheticCase:
    """Create the pipeline of a family in one size, with the numbers of one seed."""
    rng = np.random.default_rng([seed, exponent, *family.name.encode()])
    operators = _operators(family, exponent)
    counts = {o.name: len(k.choices) for o in operators for k in o.knobs if k.name == "variant"}
    pipeline = Pipeline(
        name=f"{family.name}-{exponent}".replace(" ", "-"),
        operators=operators,
        metric=MetricSpec(name="score", uses="synthetic:score"),
        # The truth that runs are judged by is the mean over these items.
        dataset=DatasetSpec(uses="synthetic:items", held_out=0.0, population="items"),
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
    return _with_slos(family, exponent, model)


def _with_slos(family: Family, exponent: int, model: SyntheticModel) -> SyntheticCase:
    """Add a query whose optimum is the cheapest configuration of sufficient accuracy.

    Its limits on latency and cost are met by that configuration.
    """
    infrastructure, threshold = _infrastructure(), round(BEST - ALLOWED_LOSS, 4)
    network = Network(infrastructure)
    accuracy_slo = Slos(accuracy=AccuracySlo(threshold=threshold))
    query = Query(name="query", pipeline=model.pipeline.name, source="site", rate_per_s=_RATE_PER_S, slos=accuracy_slo)
    best = optimum(model, query, network, threshold)
    plan = None if best is None else cheapest_plan(model, query, network, [best.configuration])
    if best is None or plan is None:
        raise ValueError(f"{model.pipeline.name}: no configuration is accurate enough and fits")
    slos = Slos(
        accuracy=accuracy_slo.accuracy,
        latency=LatencySlo(percentile=95, limit_s=float(f"{_LATENCY_HEADROOM * plan.estimate.latency_s.upper:.3g}")),
        cost=CostSlo(limit_usd_per_h=float(f"{_COST_HEADROOM * best.cost_usd_per_h:.3g}"))
        if family.limits_cost
        else None,
    )
    query = query.model_copy(update={"slos": slos})
    limited = cheapest_plan(model, query, network, [best.configuration])
    if limited is None or not math.isclose(limited.estimate.cost_usd_per_h.lower, best.cost_usd_per_h, rel_tol=1e-6):
        raise ValueError(f"{model.pipeline.name}: no plan has the computed cost")
    specification = Specification.of((model.pipeline,), infrastructure, (query,))
    return SyntheticCase(family.name, exponent, model, specification, best)


def _operators(family: Family, exponent: int) -> tuple[OperatorSpec, ...]:
    """Create the operators; `hear` has its quality as two back ends, of which the better one has beams."""
    operators, dead = [], family.dead.get(exponent, 0)
    for number, (name, after) in enumerate(_OPERATORS.items()):
        quality, effort, variant = family.choices[exponent][name]
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
        operators.append(
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
    return tuple(operators)


def _models(family: Family, operators: Sequence[OperatorSpec], rng: np.random.Generator) -> Mapping[str, OperatorModel]:
    losing = [
        (o.name, k.name) for o in operators for k in o.knobs if k.name in ("quality", "beam", "effort", "variant")
    ]
    weights = dict(zip(losing, family.knobs_loss * rng.dirichlet(np.full(len(losing), 4.0)), strict=True))
    models = {}
    for spec in operators:
        effects: dict[str, tuple[Effect, ...]] = {}
        for knob in spec.knobs:
            weight, count = weights.get((spec.name, knob.name), 0.0), len(knob.choices)
            if knob.name == "variant":
                effects["variant"] = variants(weight, family.variant_loss(count, rng), rng)
            elif knob.name == "beam":
                fast, *beams = ladder(weight, family.quality_loss(count + 1, rng), rng)
                effects |= {"backend": (fast, Effect(memory=2.0)), "beam": tuple(beams)}
            elif knob.name in ("quality", "effort"):
                shrinks = (spec.name, knob.name) == ("prepare", "quality")
                effects[knob.name] = ladder(weight, family.quality_loss(count, rng), rng, shrinks=shrinks)
            elif knob.name.startswith("idle"):
                effects[knob.name] = (NOTHING,) * count
        models[spec.name] = OperatorModel(
            service_s=_SERVICE_S[spec.name] * float(rng.uniform(0.8, 1.25)),
            output_bytes=_OUTPUT_BYTES[spec.name],
            memory_bytes=_MEMORY[spec.name],
            load_s=2.0,
            fixed=float(rng.uniform(0.0, 0.4)),
            effects=effects,
        )
    return models


def _infrastructure() -> Infrastructure:
    """Create pools that cost USD 0.10, 0.20 and 0.40 for an hour's work of the reference hardware."""
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
        max_utilization=0.7,  # the higher target: one optimum with and without a latency SLO
    )  # fmt: skip


def everywhere(quality: int, effort: int, variant: int) -> Choices:
    """Return the same number of choices for all operators."""
    return dict.fromkeys(_OPERATORS, (quality, effort, variant))


_USUAL = {3: everywhere(3, 1, 2), 6: everywhere(8, 1, 4), 9: everywhere(8, 6, 4), 12: everywhere(10, 10, 10)}
_NEEDLE = {3: everywhere(1, 1, 6), 6: everywhere(6, 1, 6), 9: everywhere(6, 6, 5), 12: everywhere(14, 14, 5)}
_LIVE = {3: everywhere(3, 1, 1), 6: everywhere(6, 1, 1), 9: everywhere(8, 1, 4), 12: everywhere(8, 6, 4)}

FAMILIES = (
    Family("smooth", _USUAL, diminishing, scattered, no_joints),
    Family("plateau", _USUAL, steps, good_or_bad, no_joints, limits_cost=True),
    Family("interacting", _USUAL, diminishing, nothing, exclusive_pairs, limits_cost=True),
    Family("needle", _NEEDLE, diminishing, nothing, needle, knobs_loss=0.4),
    Family("dead knobs", _LIVE, diminishing, scattered, no_joints, dead={3: 4, 6: 10, 9: 10, 12: 10}),
)
"""All families. Of 10^3 configurations four knobs are dead, as ten would leave no others; of the larger ones ten
are."""
