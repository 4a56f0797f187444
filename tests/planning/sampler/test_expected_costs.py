"""Expected costs do not depend on the number of items that each configuration is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from budget import seeds
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.expected_costs import ExpectedCost, ExpectedCosts
from circinus.planning.sampler.initial_design import covering_array
from circinus.planning.sampler.profile_prediction import ProfilePredictor
from circinus.profiling import (
    FailedConfiguration,
    PipelineProfile,
    SimulatedClock,
    TraceBackend,
    profile_pipeline,
)
from circinus.specification import Configuration, Network
from planning.sampler.two_operators import ITEMS, PIPELINE, beginning, recorded, two_queries

SPACE = ConfigurationSpace.of(PIPELINE)
FEW = 8


@pytest.fixture(scope="module", params=seeds(3))
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PipelineProfile:
    """Profile of all configurations on all items, with varying work."""
    trace = recorded(request.param)
    work = np.random.default_rng(request.param).gamma(4.0, 0.25, ITEMS)
    trace = replace(trace, service_s=trace.service_s * work)
    source, store = TraceBackend(trace, SimulatedClock()), tmp_path_factory.mktemp("store") / "store"
    return profile_pipeline(two_queries(), PIPELINE.name, store, source=source, exhaustive=True)


def _known_on(everything: PipelineProfile, items: Mapping[Configuration, int]) -> PipelineProfile:
    found = {known.configuration: known for known in everything.configurations}
    return replace(everything, configurations=tuple(beginning(found[c], n) for c, n in items.items()))


def _expected(known: PipelineProfile) -> ExpectedCost:
    specification = two_queries()
    assert specification.infrastructure is not None
    predictor = ProfilePredictor(PIPELINE, SPACE)
    assert predictor.learn(known)
    costs = ExpectedCosts(PIPELINE, specification.queries[:1], [Network(specification.infrastructure)], predictor)
    return costs.of(known, SPACE.decode(SPACE.enumerate()))


def _costs(expected: ExpectedCost) -> np.ndarray:
    return np.maximum(expected.usd_per_h[0], expected.floor_usd_per_h[0])


def test_one_that_is_known_on_all_items_tells_of_the_others(everything: PipelineProfile) -> None:
    cover = SPACE.decode(covering_array(SPACE))
    known = _known_on(everything, dict.fromkeys(cover, FEW) | {cover[0]: ITEMS})
    truth, found = (_costs(_expected(profile)) for profile in (everything, known))
    both = np.isfinite(truth) & np.isfinite(found)
    assert both.sum() > truth.size / 3
    off = np.log(np.where(both, found, 1.0) / np.where(both, truth, 1.0))
    begun = np.array([c in cover for c in SPACE.decode(SPACE.enumerate())])
    assert abs(off[both]).max() < 0.2
    # Measured and unmeasured configurations need equal bias, otherwise one kind would always seem better.
    assert abs(off[begun][both[begun]].mean() - off[~begun][both[~begun]].mean()) < 0.03


def test_one_slow_run_of_eight_leaves_every_plan(everything: PipelineProfile) -> None:
    """A configuration without a plan would not be measured on more items, which show that slow runs are rare."""
    cover = SPACE.decode(covering_array(SPACE))
    known = _known_on(everything, dict.fromkeys(cover, FEW) | {cover[0]: ITEMS})
    usual = np.isfinite(_costs(_expected(known)))
    for operator in ("see", "tell"):
        times_s = known.configurations[1].operators[operator].service_s
        slow_s = times_s.copy()
        slow_s[3] *= 100.0
        prefix = known.configurations[1].operators[operator].prefix
        slow = known.with_operators(
            lambda o, prefix=prefix, slow_s=slow_s: replace(o, service_s=slow_s) if o.prefix == prefix else o
        )
        assert np.isfinite(_costs(_expected(slow)))[usual].all()


def test_what_failed_has_no_plan_and_nothing_is_computed_again(
    everything: PipelineProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = everything.configurations[3].configuration
    known = replace(
        everything,
        configurations=tuple(c for c in everything.configurations if c.configuration != failed),
        failed=(FailedConfiguration(failed, None, "it failed"),),
    )
    specification = two_queries()
    assert specification.infrastructure is not None
    predictor = ProfilePredictor(PIPELINE, SPACE)
    predictor.learn(known)
    networks = [Network(specification.infrastructure)] * len(specification.queries)
    costs = ExpectedCosts(PIPELINE, specification.queries, networks, predictor)
    first = costs.of(known, [failed, known.configurations[0].configuration])
    assert np.isinf(first.usd_per_h[0][0]).all()
    assert np.isfinite(first.usd_per_h[0][1]).any()
    monkeypatch.setattr(ProfilePredictor, "predict", None)
    again = costs.of(known, [known.configurations[0].configuration])
    np.testing.assert_array_equal(again.usd_per_h[1][0], first.usd_per_h[1][1])


def test_costs_that_were_not_requested_are_computed_later(everything: PipelineProfile) -> None:
    specification, configurations = two_queries(), SPACE.decode(SPACE.enumerate())
    assert specification.infrastructure is not None
    networks = [Network(specification.infrastructure)] * 2
    known = _known_on(everything, dict.fromkeys(SPACE.decode(covering_array(SPACE)), FEW))
    predictor = ProfilePredictor(PIPELINE, SPACE)
    predictor.learn(known)
    at_once, later = (ExpectedCosts(PIPELINE, specification.queries, networks, predictor) for _ in range(2))
    whole = at_once.of(known, configurations)
    requested = np.random.default_rng(0).random((len(configurations), 2)) < 0.5
    part = later.of(known, configurations, requested=requested)
    for q in range(2):
        np.testing.assert_allclose(part.usd_per_h[q][requested[:, q]], whole.usd_per_h[q][requested[:, q]], rtol=1e-5)
        assert np.isinf(part.usd_per_h[q][~requested[:, q]]).all()
    rest = later.of(known, configurations)
    for q in range(2):
        np.testing.assert_allclose(rest.floor_usd_per_h[q], whole.floor_usd_per_h[q], rtol=1e-5)


def test_exact_costs_are_not_below_the_bounds(everything: PipelineProfile) -> None:
    specification = two_queries()
    assert specification.infrastructure is not None
    known = _known_on(everything, dict.fromkeys(SPACE.decode(covering_array(SPACE)), ITEMS))
    measured = [c.configuration for c in known.configurations]
    predictor = ProfilePredictor(PIPELINE, SPACE)
    predictor.learn(known)
    costs = ExpectedCosts(PIPELINE, specification.queries, [Network(specification.infrastructure)] * 2, predictor)
    bounds = costs.of(known, measured)
    first = np.array([True, False])
    for configuration in measured:
        assert costs.refine(known, configuration, first)
        assert not costs.refine(known, configuration, first)
    exact = costs.of(known, measured)
    with_plan = np.isfinite(bounds.usd_per_h[0])
    assert with_plan.any()
    assert (exact.usd_per_h[0] >= bounds.usd_per_h[0] * (1 - 1e-6))[with_plan].all()
    np.testing.assert_array_equal(exact.usd_per_h[1], bounds.usd_per_h[1])
    np.testing.assert_array_equal(costs.without_plan(measured)[:, 0], ~with_plan.any(axis=1))


def test_without_a_plan_those_count_that_are_improbably_fast(everything: PipelineProfile) -> None:
    known = _known_on(everything, dict.fromkeys(SPACE.decode(covering_array(SPACE)), ITEMS))
    specification, configurations = two_queries(), SPACE.decode(SPACE.enumerate())
    query = specification.queries[0]
    assert specification.infrastructure is not None
    assert query.slos.latency is not None
    predictor = ProfilePredictor(PIPELINE, SPACE)
    predictor.learn(known)
    more = []
    for factor in np.linspace(0.2, 1.0, 9):
        latency = query.slos.latency.model_copy(update={"limit_s": float(factor * query.slos.latency.limit_s)})
        stricter = query.model_copy(update={"slos": query.slos.model_copy(update={"latency": latency})})
        costs = ExpectedCosts(PIPELINE, [stricter], [Network(specification.infrastructure)], predictor)
        usual, fast = (
            np.isfinite(_costs(costs.of(known, configurations, without_plan=without_plan)))
            for without_plan in (False, True)
        )
        assert fast[usual].all()
        more.append(int(fast.sum() - usual.sum()))
    assert max(more) > 0
