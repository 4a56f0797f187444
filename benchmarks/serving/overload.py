"""Goodput of a deployment in overload: first come first served, earliest latest start first, and dropped requests."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.traffic import Phase, phased_arrivals, recorded_requests
from circinus.estimation.latest_start import latest_starts_s, remaining_times_s
from circinus.operators import Item
from circinus.profiling import ConfigurationProfile, OperatorProfile, Recordings, record_for_replay
from circinus.serving import DesiredState, Mode
from circinus.serving.desired_state import build_route
from circinus.serving.engine import DesiredDeployment
from circinus.serving.loadtest.open_loop import Arrival, OpenLoop, RequestOutcome
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.routes import Route
from circinus.specification import (
    Allocation,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    KnobValues,
    LatencySlo,
    LatePolicy,
    MetricSpec,
    Network,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    Specification,
    prefix_configuration,
)
from circinus.statistics.interval import Interval

LOADS = (1.1, 1.2, 1.3, 1.5)
"""Arrival rates relative to the rate that keeps the slowest deployment busy."""
_ITEMS = 24
_MODULE = "fixed_time_reader"
_ALLOCATION = Allocation(cpus=0.1, batch_size=1, utilization_target=0.7)
_MIB = 2.0**20
_DRAIN_S = 300.0
_LIMITS_S = {"shared": {"tight": 0.3, "loose": 2.0}, "two-stages": {"staged": 0.5}}
"""Pipeline -> query -> latency limit. The queries of a pipeline share its deployments evenly."""
_POLICIES = ("first come", "latest start", "drop at the least", "drop at the mean", "drop at the percentile")
"""Orders of the queue. Latest starts leave the time that remains for the fastest item, the mean, or the SLO's
percentile; `latest start` is that of the percentile."""


@dataclass(frozen=True, eq=False)
class _Scene:
    specification: Specification
    recordings: Mapping[str, Recordings]
    store: Path

    def state(self, policy: str) -> DesiredState:
        """Return the desired state with one replica of each deployment, with routes according to a policy."""
        infrastructure = self.specification.required_infrastructure
        routes, deployments = [], {}
        for query in self.specification.queries:
            pipeline = self.specification.pipelines[query.pipeline]
            routes.append(self._route(query, pipeline, policy, Network(infrastructure)))
            for stage in routes[-1].stages:
                deployments[stage.deployment] = DesiredDeployment(
                    stage.deployment, pipeline.operator(stage.operator).uses, 1, 0.1, _MIB, 1.0
                )
        return DesiredState(
            mode=Mode.REPLAY,
            infrastructure=infrastructure,
            deployments=tuple(deployments.values()),
            routes=tuple(routes),
            module_paths=self.specification.module_paths,
            recordings=self.store,
        )

    def rates_per_s(self) -> dict[str, float]:
        """Return the rate of each query at which the slowest deployment of its pipeline is always busy."""
        rates = {}
        for query in self.specification.queries:
            profile = self._profile(self.specification.pipelines[query.pipeline])
            slowest_s = max(float(operator.service_s.mean()) for operator in profile.operators.values())
            rates[query.name] = 1 / slowest_s / len(_LIMITS_S[query.pipeline])
        return rates

    def _route(self, query: Query, pipeline: Pipeline, policy: str, network: Network) -> Route:
        profile = self._profile(pipeline)
        names = sorted(operator.name for operator in pipeline.operators)
        plan = QueryPlan(
            pipeline=pipeline.name,
            configuration=profile.configuration,
            placement=tuple((name, "server") for name in names),
            allocations=tuple((name, _ALLOCATION) for name in names),
        )
        if policy.startswith("drop"):
            query = query.model_copy(update={"late": LatePolicy.DROP})
        if policy == "first come":
            return build_route(query, plan, pipeline)
        starts_s = latest_starts_s(query, pipeline, plan, profile, network)
        if policy in ("drop at the least", "drop at the mean"):
            assert query.slos.latency is not None, "every query has a limit"
            remaining = remaining_times_s(query, pipeline, plan, profile, network)
            of = np.min if policy == "drop at the least" else np.mean
            starts_s = {name: query.slos.latency.limit_s - float(of(remaining[name])) for name in names}
        return build_route(query, plan, pipeline, starts_s)

    def _profile(self, pipeline: Pipeline) -> ConfigurationProfile:
        """Return the recorded items as a profile."""
        recordings, configuration = self.recordings[pipeline.name], _configuration(pipeline)
        operators = {}
        for operator in pipeline.operators:
            prefix = prefix_configuration(pipeline, configuration, operator.name)
            runs = [recordings.run(prefix, key) for key in recordings.items]
            operators[operator.name] = OperatorProfile(
                operator=operator.name,
                prefix=prefix,
                service_s=np.array([run.total_s for run in runs]),
                output_bytes=np.array([run.total_bytes for run in runs]),
                peak_memory_bytes=_MIB,
                load_s=0.0,
                batch_ratio={(_ALLOCATION.cpus, 1): 1.0},
            )
        count = len(recordings.items)
        return ConfigurationProfile(
            configuration, np.arange(count), np.ones(count), Interval.exact(1.0), np.zeros(count), operators
        )


def _configuration(pipeline: Pipeline) -> Configuration:
    return Configuration.of(
        {o.name: KnobValues.of({knob.name: knob.choices[0] for knob in o.knobs}) for o in pipeline.operators}
    )


def _prepared(folder: Path) -> _Scene:
    """Record the pipelines in an empty folder."""
    shutil.copy(Path(__file__).parents[1] / "workloads" / f"{_MODULE}.py", folder)
    pipelines = {}
    for name, operators in {"shared": ("read",), "two-stages": ("read", "again")}.items():
        pipelines[name] = Pipeline(
            name=name,
            operators=tuple(
                OperatorSpec(
                    name=operator,
                    uses=f"{_MODULE}:Read",
                    after=operators[:position][-1:],
                    knobs=(Knob(name="model", choices=("large",)),),
                    cpus=(_ALLOCATION.cpus,),
                )
                for position, operator in enumerate(operators)
            ),
            metric=MetricSpec(name="pages read rightly", uses=f"{_MODULE}:equal"),
            dataset=DatasetSpec(uses=f"{_MODULE}:pages", held_out=0.5),
        )
    pool = Pool(
        name="server",
        site="home",
        tier="edge",
        cpus=2.0,
        memory_bytes=1024 * _MIB,
        hardware=HardwareClass(name="local"),
    )
    infrastructure = Infrastructure(name="overloaded", sites=(Site(name="home"),), pools=(pool,), links=())
    queries = tuple(
        Query(
            name=name,
            pipeline=pipeline,
            source="home",
            rate_per_s=1.0,
            slos=Slos(latency=LatencySlo(limit_s=limit_s)),
        )
        for pipeline, limits_s in _LIMITS_S.items()
        for name, limit_s in limits_s.items()
    )
    specification = Specification(pipelines, infrastructure, queries, module_paths=(folder,))
    store = folder / "profiles.sqlite"
    recordings = {
        name: record_for_replay(
            specification, name, store, configurations=[_configuration(pipeline)], items_count=_ITEMS
        )
        for name, pipeline in pipelines.items()
    }
    return _Scene(specification, recordings, store)


def overload(duration_s: float, seed: int, console: Console) -> PartResult:
    """Replay loads beyond the capacity under each policy, and return the shares of requests in time.

    Args:
        duration_s: seconds of traffic of each load.
        seed: seed of the arrivals.
        console: prints the table.
    """
    with tempfile.TemporaryDirectory(prefix="circinus-overload-") as folder:
        scene = _prepared(Path(folder))
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            shares = runner.run(_shares(scene, duration_s, seed))
    table = Table(title="Share of requests answered in time")
    for column in ("pipeline", "policy", *(f"{load:g}x" for load in LOADS)):
        table.add_column(column)
    for pipeline in _LIMITS_S:
        for policy in _POLICIES:
            table.add_row(pipeline, policy, *(f"{shares[load, policy][pipeline]:.1%}" for load in LOADS))
    console.print(table)
    rows = [{"load": load, "policy": policy, "in_time": dict(in_time)} for (load, policy), in_time in shares.items()]
    figures = [
        Figure(
            f"{pipeline}, {load:g}x load, {policy}: in time", shares[load, policy][pipeline], None, "higher", "share"
        )
        for pipeline in _LIMITS_S
        for load in LOADS
        for policy in _POLICIES
    ]
    return figures, rows


async def _shares(scene: _Scene, duration_s: float, seed: int) -> dict[tuple[float, str], dict[str, float]]:
    """Return (load, policy) -> pipeline and query -> share of requests in time. All policies run side by side."""
    engines = {policy: LocalEngine() for policy in _POLICIES}
    keys = set.intersection(*(set(recordings.items) for recordings in scene.recordings.values()))
    items = [Item(key, None, None) for key in sorted(keys)]
    shares = {}
    try:
        await asyncio.gather(*(engine.apply(scene.state(policy)) for policy, engine in engines.items()))
        for load in LOADS:
            arrivals = phased_arrivals(scene.rates_per_s(), [Phase(duration_s, load)], seed)
            outcomes = await asyncio.gather(*(_outcomes(e, items, arrivals, seed) for e in engines.values()))
            for policy, answers in zip(_POLICIES, outcomes, strict=True):
                shares[load, policy] = _in_time(scene.specification, answers)
    finally:
        await asyncio.gather(*(engine.close() for engine in engines.values()))
    return shares


async def _outcomes(
    engine: LocalEngine, items: Sequence[Item], arrivals: Sequence[Arrival], seed: int
) -> list[RequestOutcome]:
    return await OpenLoop(engine, _DRAIN_S).send(arrivals, recorded_requests(arrivals, items, seed))


def _in_time(specification: Specification, answers: Sequence[RequestOutcome]) -> dict[str, float]:
    shares: dict[str, float] = {}
    met: dict[str, list[float]] = {pipeline: [] for pipeline in _LIMITS_S}
    for query in specification.queries:
        mine = [answer for answer in answers if answer.query == query.name]
        latency_s = [answer.latency_s for answer in mine if answer.response is not None]
        assert query.slos.latency is not None, "every query has a limit"
        shares[query.name] = query.slos.latency.fraction_within(latency_s, len(mine) - len(latency_s))
        met[query.pipeline] += [shares[query.name]] * len(mine)
    return shares | {pipeline: float(np.mean(each)) for pipeline, each in met.items()}
