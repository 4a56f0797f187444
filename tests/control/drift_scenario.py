"""Small pipeline that recognizes words in noise, profiled and recorded on quiet items; noisy items follow."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from circinus.control.drift.ground_truth import GroundTruth
from circinus.operators import Item
from circinus.profiling import OperatorProfile, PipelineProfile, profile_pipeline
from circinus.specification import (
    Allocation,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    KnobValues,
    LatencySlo,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    Specification,
)

SOURCE = """
from circinus.operators import Item, operator

@operator
def denoise(signal, *, strength: int):
    return {**signal, "noise": signal["noise"] / strength}

@operator
def hear(signal, *, model: str):
    if signal["word"] < 0:
        raise ValueError("no word")
    return signal["word"] if signal["noise"] < {"small": 0.3, "large": 0.6}[model] else -1

def item(number, noise):
    return Item(f"{noise:.3f}-{number}", {"word": number, "noise": noise}, number)

def quiet(count=40):
    return [item(number, 0.5 * (number * 7 % count) / count) for number in range(count)]

def exact(output, truth):
    return float(output == truth)
"""
MODULE = "listening_operators"


def item(number: int, noise: float) -> Item:
    """Return an item as the data set builds it."""
    return Item(f"{noise:.3f}-{number}", {"word": number, "noise": noise}, number)


def configuration(model: str, strength: int = 1) -> Configuration:
    """Return one of the four configurations."""
    return Configuration.of({"denoise": KnobValues.of({"strength": strength}), "hear": KnobValues.of({"model": model})})


def plan(model: str, strength: int = 1, pool: str = "edge", batch_size: int = 1) -> QueryPlan:
    """Return the plan with all operators in one pool."""
    allocation = Allocation(1.0, batch_size, 0.5)
    return QueryPlan(
        "listen",
        configuration(model, strength),
        (("denoise", pool), ("hear", pool)),
        (("denoise", allocation), ("hear", allocation)),
    )


@dataclass(frozen=True)
class Listening:
    """Specification, profile and profile store of the pipeline."""

    specification: Specification
    profile: PipelineProfile
    store: Path

    @property
    def profiles(self) -> dict[str, PipelineProfile]:
        return {"listen": self.profile}


def specification(folder: Path, **slos: Any) -> Specification:
    """Return the specification of two queries on the pipeline."""
    pipeline = Pipeline(
        name="listen",
        operators=(
            OperatorSpec(
                name="denoise", uses=f"{MODULE}:denoise", knobs=(Knob(name="strength", choices=(1, 2)),), cpus=(1.0,)
            ),
            OperatorSpec(
                name="hear",
                uses=f"{MODULE}:hear",
                after=("denoise",),
                knobs=(Knob(name="model", choices=("small", "large")),),
                cpus=(1.0,),
                batch_sizes=(1, 4),
            ),
        ),
        metric=MetricSpec(name="exact", uses=f"{MODULE}:exact"),
        dataset=DatasetSpec(uses=f"{MODULE}:quiet", held_out=0.0, population="items"),
    )
    pools = [
        Pool(name=name, site="home", tier="edge", cpus=4.0, memory_bytes=2.0**33, hardware=HardwareClass(**hardware))
        for name, hardware in (
            ("edge", {"name": "local"}),
            ("slow", {"name": "half", "relative_speed": 0.5, "relative_speed_bounds": (0.45, 0.55)}),
        )
    ]
    limit = Slos(**(slos or {"latency": LatencySlo(limit_s=0.1, percentile=90.0)}))
    return Specification(
        pipelines={"listen": pipeline},
        infrastructure=Infrastructure(name="i", sites=(Site(name="home"),), pools=tuple(pools), links=()),
        queries=tuple(
            Query(name=name, pipeline="listen", source="home", rate_per_s=1.0, slos=limit) for name in ("one", "other")
        ),
        module_paths=(folder,),
    )


def steady(profile: PipelineProfile) -> PipelineProfile:
    """Return the profile of an idle machine, so that service times are deterministic.

    The configuration with strength 1 and the small model is the fastest, and is planned.
    """

    known: dict[int, OperatorProfile] = {}  # configurations keep sharing operator profiles

    def quiet(found: OperatorProfile, knobs: KnobValues) -> OperatorProfile:
        if id(found) not in known:
            times = sum({1: 1.0, 2: 2.0, "small": 1.0, "large": 2.0}[value] for value in knobs.as_dict().values())
            known[id(found)] = replace(
                found,
                service_s=2e-6 * times * np.random.default_rng(0).lognormal(0.0, 0.1, len(found.service_s)),
                batch_ratio={pair: 1.0 + 0.1 * (pair[1] - 1) for pair in found.batch_ratio},
                peak_memory_bytes=times * 2.0**20,
                load_s=0.1,
                startup_s=0.2,
            )
        return known[id(found)]

    configurations = (
        replace(one, operators={name: quiet(found, one.configuration[name]) for name, found in one.operators.items()})
        for one in profile.configurations
    )
    return replace(profile, configurations=tuple(configurations))


class KnownTruths:
    """Ground truth of given items."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._known = {one.key: GroundTruth(one.truth) for one in items}

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        return self._known.get(item_key) if pipeline == "listen" else None


def listening(folder: Path) -> Iterator[Listening]:
    """Profile the pipeline and yield it."""
    path = list(sys.path)
    (folder / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    found = specification(folder)
    store = folder / "profiles.sqlite"
    try:
        yield Listening(found, profile_pipeline(found, "listen", store, exhaustive=True), store)
    finally:
        sys.path[:] = path
        sys.modules.pop(MODULE, None)
