"""Random applications with a profile store, planned through `circinus.Workspace` as those of a user are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import circinus as c
from benchmarks.harness.results import ROOT
from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.items import SyntheticItems
from benchmarks.workloads.synthetic.pipeline_model import Effect, OperatorModel, SyntheticModel
from circinus.profiling import LocalBackend, Machine
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Knob, configurations
from circinus.testing.random_instances import GIB, random_infrastructure

_CODE = "benchmarks.promises.operators"
_ITEMS = 100
_BEST_SCORE = 0.93
SHARING = 2
"""Number of applications with the same pipelines and measurements."""


class ApplicationSource(SyntheticSource):
    """Simulated measurements that the store keeps for the code of `operators`, so that plans need no source."""

    def addresses(self, pipeline: c.Pipeline, machine: Machine | None) -> MeasurementKeys:
        """Return the keys of the operators' code."""
        return LocalBackend(()).addresses(pipeline, machine)


@dataclass(frozen=True)
class Application:
    """Specification with simulated sources of its measurements."""

    specification: c.Specification
    sources: Mapping[str, ApplicationSource]
    store: Path

    @classmethod
    def random(cls, seed: int, folder: Path, *, queries: int = 8, budget_s: float | None = None) -> Application:
        """Draw two measured pipelines, three sites, and queries whose SLOs are near the limits of what is possible.

        Args:
            seed: of all numbers; some consecutive seeds (`SHARING`) share their pipelines and measurements.
            folder: of the profile stores.
            queries: number of queries.
            budget_s: simulated seconds of profiling each pipeline; by default all is measured.
        """
        rng = np.random.default_rng([seed // SHARING, 23])
        sources = {name: ApplicationSource(_model(rng, name, seed // SHARING)) for name in ("a", "b")}
        rng = np.random.default_rng([seed, 24])
        models, infrastructure = [source.model for source in sources.values()], _infrastructure(rng)
        drawn = [random_query(rng, models, infrastructure, f"q{index}") for index in range(queries)]
        specification = c.Specification.of([model.pipeline for model in models], infrastructure, drawn)
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / (f"all-{seed // SHARING}.sqlite" if budget_s is None else f"some-{seed}.sqlite")
        application = cls(specification, sources, store)
        if budget_s is not None or not store.is_file():
            for file in folder.glob(f"{store.name}*"):
                file.unlink()
            application.profile(budget_s)
        return application

    def workspace(self, specification: c.Specification | None = None) -> c.Workspace:
        """Return the workspace of a specification with this store; by default that of the application."""
        return c.Workspace(specification or self.specification, store=self.store)

    def profile(self, budget_s: float | None) -> c.ProfileReport:
        """Measure the pipelines, for `budget_s` each on average; without a budget everything."""
        budget_s = None if budget_s is None else budget_s * len(self.specification.pipelines)
        return self.workspace().profile(budget=budget_s, exhaustive=budget_s is None, sources=self.sources)

    @property
    def models(self) -> list[SyntheticModel]:
        """Ground truth of the pipelines."""
        return [source.model for source in self.sources.values()]


def real_application(name: str, state: Path, budget_s: float) -> Application:
    """Return an application whose operators really run: the starter of `circinus init`, or an example; profiled.

    Args:
        name: `starter`, `meeting` or `documents`.
        state: folder of the profile store.
        budget_s: seconds of profiling each pipeline; what an earlier call measured is kept.
    """
    source = ROOT / "examples" / name
    if name == "starter":
        source = state / name
        packaged = Path(c.__file__).parent / "cli" / "starter"
        shutil.copytree(
            packaged, source, ignore=shutil.ignore_patterns("__pycache__", "__init__.py"), dirs_exist_ok=True
        )
        (source / name / "__init__.py").touch()
    application = Application(c.load_specification([source]), {}, state / f"{name}.sqlite")
    application.profile(budget_s)
    return application


def stricter(application: Application, seed: int) -> Application:
    """Return a real application whose queries want more: rates, latencies and accuracies, so that some are rejected."""
    rng = np.random.default_rng([seed, 27])
    specification = application.specification
    for query in specification.queries:
        slos = query.slos
        for kind, slo in slos.by_kind.items():
            share = float(rng.choice([0.0, 0.03, 0.1]) if slo.is_minimum else rng.choice([0.0, 0.3, 0.7, 0.9]))
            slos = slos.replaced(kind, slo.relaxed_by(-share))
        rate = query.rate_per_s * float(rng.choice([1.0, 3.0, 10.0]))
        specification = with_query(specification, query.model_copy(update={"slos": slos, "rate_per_s": rate}))
    return replace(application, specification=specification)


def with_query(specification: c.Specification, query: c.Query) -> c.Specification:
    """Return the specification with another query of the same name, or with one more query."""
    queries = tuple(query if other.name == query.name else other for other in specification.queries)
    return replace(specification, queries=queries if query in queries else (*queries, query))


def with_pool(specification: c.Specification, name: str, **fields: object) -> c.Specification:
    """Return the specification with other fields of a pool."""
    infrastructure = specification.required_infrastructure
    pools = tuple(pool.model_copy(update=fields) if pool.name == name else pool for pool in infrastructure.pools)
    return replace(specification, infrastructure=infrastructure.model_copy(update={"pools": pools}))


def random_query(
    rng: np.random.Generator, models: list[SyntheticModel], infrastructure: c.Infrastructure, name: str
) -> c.Query:
    """Draw a query with SLOs about those that one configuration of a pipeline meets."""
    model = models[int(rng.integers(len(models)))]
    choices = list(configurations(model.pipeline))
    chosen = choices[int(rng.integers(len(choices)))]
    service_s = sum(float(model.service_s(operator, chosen).mean()) for operator in chosen)
    accuracy = model.mean_score(chosen) - float(rng.uniform(-0.02, 0.06))
    limit_s = service_s * float(10 ** rng.uniform(0.1, 1.1)) + 0.02
    return c.Query(
        name=name,
        pipeline=model.pipeline.name,
        source=str(rng.choice([site.name for site in infrastructure.sites])),
        rate_per_s=float(f"{10 ** rng.uniform(0.0, 1.4):.2g}"),
        weight=float(rng.choice([1.0, 1.0, 2.0, 3.0])),
        slos=c.Slos(
            latency=c.LatencySlo(percentile=float(rng.choice([90, 95, 99])), limit_s=float(f"{limit_s:.2g}")),
            accuracy=c.AccuracySlo(threshold=float(f"{accuracy:.3g}")) if rng.random() < 0.8 else None,
            cost=c.CostSlo(limit_usd_per_h=float(f"{10 ** rng.uniform(-1.5, 0):.2g}")) if rng.random() < 0.4 else None,
        ),
    )


def _model(rng: np.random.Generator, name: str, seed: int) -> SyntheticModel:
    operators, models = [], {}
    names = [f"{name}_{place}" for place in ("first", "second", "third")[: 2 + (rng.random() < 0.3)]]
    losses = 0.35 * rng.dirichlet(np.full(len(names), 3.0))
    for index, (operator, loss) in enumerate(zip(names, losses, strict=True)):
        count = int(rng.integers(2, 4))
        operators.append(
            c.OperatorSpec(
                name=operator,
                uses=f"{_CODE}:{operator}",
                after=(names[index - 1],) if index else (),
                knobs=(Knob(name="quality", choices=tuple(range(count)), ordered=True),),
                cpus=(1.0, 2.0) if rng.random() < 0.3 else (1.0,),
                batch_sizes=(1, 4) if rng.random() < 0.3 else (1,),
                allowed_tiers=("edge", "cloud") if rng.random() < 0.2 else None,
            )
        )
        growth = float(rng.uniform(1.5, 3.0))
        effects = tuple(Effect(time=growth**k, loss=loss * (1 - k / (count - 1))) for k in range(count))
        models[operator] = OperatorModel(
            service_s=float(10 ** rng.uniform(-2.3, -1.0)),
            output_bytes=float(10 ** rng.uniform(2.5, 5.0)),
            memory_bytes=float(rng.uniform(0.1, 1.0)) * GIB,
            load_s=1.0,
            fixed=float(rng.uniform(0.0, 0.3)),
            effects={"quality": effects},
        )
    pipeline = c.Pipeline(
        name=name,
        operators=tuple(operators),
        metric=c.MetricSpec(name="score", uses=f"{_CODE}:score"),
        dataset=c.DatasetSpec(uses=f"{_CODE}:items", arguments={"pipeline": name, "seed": seed}),
    )
    drawn = SyntheticItems.drawn(rng, _ITEMS)
    items = replace(drawn, strata=({},) * _ITEMS)  # without strata, bounds take a tenth of the time
    return SyntheticModel(pipeline, models, (), _BEST_SCORE, float(10 ** rng.uniform(4, 5.3)), items, seed)


def _infrastructure(rng: np.random.Generator) -> c.Infrastructure:
    infrastructure = random_infrastructure(rng, sites=3, pools=4)
    pools = tuple(
        pool.model_copy(
            update={
                "nodes": min(pool.nodes, 2),
                "price_usd_per_h": round(pool.price_usd_per_h * free, 3),
                "hardware": pool.hardware.model_copy(update={"relative_speed_bounds": None}),
            }
        )
        for pool, free in zip(infrastructure.pools, (0.0, 0.5, 1.0, 1.0), strict=True)
    )
    return infrastructure.model_copy(update={"pools": pools})
