"""Complete profiling runs with transfer sources: good sources save measurements, misleading ones cause little harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import (
    MeasurementTrace,
    PipelineProfile,
    TraceBackend,
    load_profile,
)
from circinus.specification import Specification
from planning.sampler.two_operators import PIPELINE, Breaker, Whole, measured, recorded, two_queries

pytestmark = pytest.mark.slow


def earlier(seed: int, *, misleading: bool) -> MeasurementTrace:
    """Return a source on other items: everything is harder and takes three times as long; or the best score least."""
    trace = recorded(seed + 100)
    scores = trace.scores
    if misleading:
        levels = scores.mean(axis=1, keepdims=True)
        scores = scores - levels + levels.max() + levels.min() - levels
    else:
        scores = 0.9 * scores - 0.1
    addresses = tuple(f"elsewhere {address}" for address in trace.item_addresses)
    return replace(
        trace,
        service_s=3.0 * trace.service_s,
        scores=np.clip(scores, 0.0, 1.0),
        item_addresses=addresses,
        dataset_fingerprint="elsewhere",
    )


def least_cost(specification: Specification, profile: PipelineProfile) -> float:
    plans = plan_queries(specification, {PIPELINE.name: profile})
    return sum(min(c.estimate.cost_usd_per_h.upper for c in found.candidates) for found in plans.values())


@dataclass(frozen=True)
class Warm:
    """Profiling run with a source that does not mislead."""

    before: Path
    """Store with the source only; to be copied."""
    profile: PipelineProfile


@pytest.fixture(scope="module")
def after_earlier(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    folder, specification = tmp_path_factory.mktemp("warm"), two_queries()
    measured(earlier(1, misleading=False), specification, folder / "before")
    shutil.copy(folder / "before", folder / "store")
    return Warm(folder / "before", measured(recorded(1), specification, folder / "store")[0])


def test_what_was_measured_elsewhere_saves_measurements(after_earlier: Warm, whole: Callable[[int], Whole]) -> None:
    cold, warm, specification = whole(1).profile, after_earlier.profile, two_queries()
    assert warm.certificate is not None
    assert cold.certificate is not None
    assert warm.certificate.prior.startswith("scores of the same pipeline as traced on ")
    assert cold.certificate.prior == ""
    assert not warm.undecided
    assert len(warm.configurations) < len(cold.configurations)
    assert least_cost(specification, warm) <= 1.06 * least_cost(specification, cold)


def test_what_misleads_is_dropped_and_the_plans_are_as_cheap(tmp_path: Path, whole: Callable[[int], Whole]) -> None:
    trace, specification = recorded(1), two_queries()
    cold = whole(1).profile
    measured(earlier(1, misleading=True), specification, tmp_path / "warm")
    warm, _ = measured(trace, specification, tmp_path / "warm")
    assert warm.certificate is not None
    assert warm.certificate.prior.startswith("dropped scores of the same pipeline as traced on ")
    assert warm.certificate.conclusive
    assert len(warm.configurations) <= len(cold.configurations) + 3
    assert least_cost(specification, warm) <= 1.06 * least_cost(specification, cold)
    again = load_profile(
        specification,
        PIPELINE.name,
        tmp_path / "warm",
        source=TraceBackend(trace),
        with_verdicts=True,
        explorer=make_sampler(specification, PIPELINE.name),
    )
    assert (again.verdicts, again.certificate) == (warm.verdicts, warm.certificate)


@pytest.mark.thorough
def test_who_is_ended_again_and_again_measures_the_same(tmp_path: Path, after_earlier: Warm) -> None:
    trace, specification, through = recorded(1), two_queries(), after_earlier.profile
    shutil.copy(after_earlier.before, tmp_path / "broken")
    for _ in range(200):
        broken, _ = measured(trace, specification, tmp_path / "broken", observer=Breaker(6))
        if not broken.interrupted:
            break
    assert [(c.configuration, len(c.items)) for c in broken.configurations] == [
        (c.configuration, len(c.items)) for c in through.configurations
    ]
    assert (broken.verdicts, broken.certificate) == (through.verdicts, through.certificate)
