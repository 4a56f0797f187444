"""Hypothesis strategies of valid specifications."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from circinus.specification import (
    AccuracySlo,
    Billing,
    BurstyArrivals,
    CostSlo,
    DatasetSpec,
    GpuMemoryCase,
    HardwareClass,
    Infrastructure,
    Knob,
    LatencySlo,
    LatePolicy,
    Link,
    MetricSpec,
    OperatorSpec,
    PeriodicArrivals,
    PinnedKnob,
    PinnedOperator,
    Pipeline,
    PoissonArrivals,
    Pool,
    Query,
    Site,
    Slos,
    Specification,
    Tenant,
)
from circinus.specification.infrastructure import Spot
from circinus.specification.limits import MAX_INTEGER, MIN_RISK

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
TIERS = ("device", "edge", "cloud", "moon")

# Include names such as `no`, `null`, `1e5` and `0x1`, which YAML could misread.
names = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True, alphabet=f"{_LETTERS}_.-"),
    st.sampled_from(["no", "yes", "null", "true", "1", "1e5", "0x1", "1.5", "2024-01-01", "on", "0o7", "nan"]),
)
references = st.one_of(
    names,
    st.from_regex(r"[a-z_][a-z0-9_]{0,5}(\.[a-z]{1,3})?:[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True),
)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"], include_characters="\t\n"), max_size=12)
scalars = st.one_of(
    st.booleans(), st.integers(-MAX_INTEGER, MAX_INTEGER), st.floats(allow_nan=False, allow_infinity=False), texts
)
positive = st.floats(min_value=1e-6, max_value=1e6)
amounts = st.one_of(st.just(0.0), st.integers(1, 10**6).map(float), positive)


def some(values: st.SearchStrategy[Any], max_size: int = 3, min_size: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return a strategy of tuples of distinct values."""
    return st.lists(values, min_size=min_size, max_size=max_size, unique=True).map(tuple)


def subset(values: tuple[Any, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return a strategy of non-empty subsets of `values`, in any order."""
    return st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True).map(tuple)


@st.composite
def knobs(draw: st.DrawFn) -> tuple[Knob, ...]:
    """Draw the knobs of an operator; conditions refer to preceding knobs."""
    made: list[Knob] = []
    for name in draw(some(names.filter(lambda name: name != "cpus"), min_size=0)):
        condition = {}
        if made and draw(st.booleans()):
            other = draw(st.sampled_from(made))
            condition = {other.name: draw(subset(other.choices))}
        made.append(Knob(name=name, choices=draw(some(scalars)), ordered=draw(st.booleans()), only_if=condition))
    return tuple(made)


@st.composite
def operators(draw: st.DrawFn) -> tuple[OperatorSpec, ...]:
    """Draw a DAG of operators that fit the nodes of `infrastructures`, in any order."""
    made: list[OperatorSpec] = []
    for name in draw(some(names, max_size=4)):
        own_knobs = draw(knobs())
        preceding = tuple(operator.name for operator in made)
        after = draw(subset(preceding)) if preceding and draw(st.booleans()) else ()
        made.append(
            OperatorSpec(
                name=name,
                uses=draw(references),
                after=after,
                knobs=own_knobs,
                cpus=draw(some(st.floats(min_value=0.01, max_value=64))),
                gpus=draw(st.sampled_from([0.0, 0.5, 1.0])),
                gpu_memory_bytes=draw(st.floats(min_value=0, max_value=2**34)),
                gpu_memory_cases=[
                    GpuMemoryCase(only_if={k.name: draw(subset(k.choices))}, size_bytes=draw(amounts))
                    for k in own_knobs
                    if draw(st.booleans())
                ],
                batch_sizes=draw(some(st.integers(1, 64))),
                batch_wait_s=draw(st.just(0.0) | st.floats(min_value=0, max_value=3600)),
                allowed_tiers=draw(st.none() | subset(TIERS)),
            )
        )
    return tuple(draw(st.permutations(made)))


@st.composite
def pipelines(draw: st.DrawFn, name: str) -> Pipeline:
    """Draw a pipeline `name` of random operators."""
    lowest, highest = sorted(draw(some(st.floats(-1e6, 1e6), max_size=2, min_size=2)))
    return Pipeline(
        name=name,
        operators=draw(operators()),
        metric=MetricSpec(
            name=draw(names),
            uses=draw(references),
            direction=draw(st.sampled_from(["maximize", "minimize"])),
            range=(lowest, highest),
        ),
        dataset=DatasetSpec(
            uses=draw(references),
            arguments=draw(st.dictionaries(texts, scalars, max_size=2)),
        ),
    )


@st.composite
def infrastructures(draw: st.DrawFn) -> Infrastructure:
    """Draw sites around a hub with links to all sites and a large public pool on every tier."""
    hub, *spokes = draw(some(names, max_size=4))
    sites = draw(st.permutations([hub, *spokes]))
    pool_names = draw(some(names, max_size=len(TIERS) + 2, min_size=len(TIERS)))
    pools = [
        Pool(
            name=name,
            site=hub if position < len(TIERS) else draw(st.sampled_from(sites)),
            tier=TIERS[position] if position < len(TIERS) else draw(st.sampled_from(TIERS)),
            nodes=(nodes := draw(st.integers(0, 1000))),
            min_nodes=draw(st.none() | st.integers(0, nodes)),
            billing=draw(st.sampled_from(Billing)),
            node_startup_s=draw(positive),
            price_usd_per_h=(price := draw(amounts)),
            spot=draw(st.none() | st.builds(Spot, price_usd_per_h=st.floats(0.0, price), interruptions_per_h=positive)),
            cpus=64 if position < len(TIERS) else draw(positive),
            memory_bytes=draw(positive),
            gpus=1 if position < len(TIERS) else draw(amounts),
            gpu_memory_bytes=2.0**34 if position < len(TIERS) else draw(amounts),
            hardware=HardwareClass(name=draw(names), relative_speed=draw(positive)),
            private=False if position < len(TIERS) else draw(st.none() | st.booleans()),
        )
        for position, name in enumerate(pool_names)
    ]
    links = [
        Link(
            source=ends[0],
            target=ends[1],
            bandwidth_bytes_per_s=draw(positive),
            reverse_bandwidth_bytes_per_s=draw(st.none() | positive),
            round_trip_s=draw(amounts),
            price_usd_per_gb=draw(amounts),
            reverse_price_usd_per_gb=draw(st.none() | amounts),
            allowed_traffic=draw(st.sampled_from(["all", "results"])) if ends[0] == hub else "all",
            reverse_allowed_traffic=draw(st.sampled_from(["all", "results"])) if ends[1] == hub else "all",
        )
        for ends in (draw(st.permutations([hub, spoke])) for spoke in spokes)
    ]
    return Infrastructure(
        name=draw(names),
        tiers=draw(st.permutations(TIERS)),
        sites=[Site(name=site) for site in sites],
        pools=draw(st.permutations(pools)),
        links=links,
        utilization_targets=draw(some(st.floats(0.01, 0.99))),
        usable_link_share=draw(st.floats(0.01, 0.99)),
        tenants=[Tenant(name=name, at_least=draw(st.floats(0, 1))) for name in draw(some(names, min_size=0))],
    )


@st.composite
def objectives(draw: st.DrawFn, metric: MetricSpec) -> Slos:
    """Draw SLOs, with an accuracy threshold in the range of `metric`."""
    accuracy = AccuracySlo(
        threshold=draw(st.floats(*metric.range)), comparison=">=" if metric.direction == "maximize" else "<="
    )
    percentile = st.floats(0, 100, exclude_min=True, exclude_max=True)
    latency = st.builds(lambda p, limit_s: LatencySlo(percentile=p, limit_s=limit_s), percentile, positive)
    return Slos(
        latency=draw(st.none() | latency),
        accuracy=draw(st.none() | st.just(accuracy)),
        cost=draw(st.none() | amounts.map(lambda limit: CostSlo(limit_usd_per_h=limit))),
    )


@st.composite
def pins(draw: st.DrawFn, pipeline: Pipeline) -> tuple[PinnedOperator, ...]:
    """Draw pinned operators of `pipeline`, with values for some of their knobs."""
    pinned = draw(st.lists(st.sampled_from(pipeline.operators), unique_by=lambda operator: operator.name))
    pinned_operators = []
    for operator in pinned:
        knobs = [knob for knob in operator.knobs if draw(st.booleans())]
        values = [PinnedKnob(name=knob.name, value=draw(st.sampled_from(knob.choices))) for knob in knobs]
        pinned_operators.append(PinnedOperator(name=operator.name, knobs=values))
    return tuple(pinned_operators)


@st.composite
def arrivals(draw: st.DrawFn, rate_per_s: float) -> PoissonArrivals | PeriodicArrivals | BurstyArrivals:
    """Draw arrivals of any kind that needs no file."""
    kind = draw(st.sampled_from(["poisson", "periodic", "bursty"]))
    if kind == "poisson":
        return PoissonArrivals()
    if kind == "periodic":
        return PeriodicArrivals(jitter_s=draw(st.floats(0, 0.5 / rate_per_s)))
    burst_s, share = draw(positive), draw(st.floats(0.01, 0.9))
    peak = draw(st.floats(1.05, 1 / share))
    return BurstyArrivals(peak=peak, burst_s=burst_s, every_s=burst_s / share)


@st.composite
def specifications(draw: st.DrawFn) -> Specification:
    """Draw pipelines, a sufficient infrastructure, and queries."""
    infrastructure = draw(infrastructures())
    made = [draw(pipelines(name)) for name in draw(some(names, max_size=2))]
    queries = []
    for name in draw(some(names, min_size=0)):
        pipeline = draw(st.sampled_from(made))
        rate_per_s, slos = draw(positive), draw(objectives(pipeline.metric))
        queries.append(
            Query(
                name=name,
                pipeline=pipeline.name,
                source=draw(st.sampled_from(infrastructure.sites)).name,
                rate_per_s=rate_per_s,
                arrivals=draw(arrivals(rate_per_s)),
                slos=slos,
                late=draw(st.sampled_from(LatePolicy)) if slos.latency else LatePolicy.ANSWER,
                weight=draw(positive),
                risk=draw(st.floats(MIN_RISK, 1, exclude_max=True)),
                priority=draw(st.integers(-3, 3)),
                tenant=draw(st.sampled_from([None, *(tenant.name for tenant in infrastructure.tenants)])),
                pin=draw(st.none() | pins(pipeline)),
            )
        )
    return Specification.of(made, infrastructure, queries)
