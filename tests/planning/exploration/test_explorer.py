"""Whole measurements with an explorer, on recorded seconds: few configurations, plans as cheap, also after a break."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circinus.matching import plan_all
from circinus.planning import plan_queries
from circinus.planning.exploration import PlanExplorer, explorer_of
from circinus.profiling import (
    Certificate,
    PipelineProfile,
    ProfileProgress,
    Proposal,
    SilentObserver,
    SimulatedClock,
    Trace,
    TraceSource,
    load_profile,
    profile_pipeline,
)
from circinus.spec import (
    AccuracySlo,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    LatencySlo,
    Link,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Slos,
    Specification,
)
from random_traces import random_trace

CHOICES = 5
ITEMS = 120
PIPELINE = Pipeline(
    name="two",
    operators=(
        OperatorSpec(
            name="see",
            uses="no_such_module:see",
            knobs=(Knob(name="size", choices=tuple(range(CHOICES)), ordered=True),),
        ),
        OperatorSpec(
            name="tell",
            uses="no_such_module:tell",
            after=("see",),
            knobs=(Knob(name="width", choices=tuple(range(CHOICES)), ordered=True),),
        ),
    ),
    metric=MetricSpec(name="closeness", uses="no_such_module:closeness"),
    dataset=DatasetSpec(uses="no_such_module:items", held_out=0.0),
)


def _level(configuration: Configuration) -> tuple[int, int]:
    return tuple(int(own.values[0][1]) for _, own in configuration.operators)  # type: ignore[return-value]


def _trace(seed: int) -> Trace:
    """Greater knob values take longer and score higher, with less and less gain."""
    trace = random_trace(PIPELINE, ITEMS, seed=seed)
    rng = np.random.default_rng(seed)
    easiness = rng.normal(0, 0.12, ITEMS)
    levels = np.array([0.55 + 0.3 * (1 - 0.5**a) + 0.15 * (1 - 0.5**b) for a, b in map(_level, trace.configurations)])
    service_s = np.zeros_like(trace.service_s)
    for rows, configuration in zip(trace.rows, trace.configurations, strict=True):
        for row, value in zip(rows, _level(configuration), strict=True):
            service_s[row] = (2.0**value) / 16
    scores = levels[:, None] + easiness + rng.normal(0, 0.05, (len(levels), ITEMS))
    return replace(trace, service_s=service_s, scores=np.clip(scores, 0.0, 1.0))


def _specification(thresholds: tuple[float, ...] = (0.7, 0.8)) -> Specification:
    pools = (
        Pool(
            name="near",
            site="here",
            tier="edge",
            cpus=4,
            memory=2**30,
            price=1.0,
            hardware=HardwareClass(**{"class": "local"}),
        ),
        Pool(
            name="far",
            site="there",
            tier="cloud",
            cpus=64,
            memory=2**33,
            price=20.0,
            hardware=HardwareClass(**{"class": "big"}, relative_speed=4.0),
        ),
    )
    infrastructure = Infrastructure(
        name="all",
        sites=("here", "there"),
        pools=pools,
        links=(Link(**{"from": "here", "to": "there"}, bandwidth=1e6, round_trip=0.01),),
    )
    queries = tuple(
        Query(
            name=f"q{threshold}",
            pipeline=PIPELINE.name,
            source="here",
            rate=0.2,
            slos=Slos(accuracy=AccuracySlo(threshold=threshold), latency=LatencySlo(limit=6.0)),
        )
        for threshold in thresholds
    )
    return Specification({PIPELINE.name: PIPELINE}, infrastructure, queries)


def _profile(
    trace: Trace,
    specification: Specification,
    store: Path,
    *,
    explored: bool,
    budget_s: float | None = None,
    observer: SilentObserver | None = None,
) -> tuple[PipelineProfile, float]:
    clock = SimulatedClock()
    found = profile_pipeline(
        specification,
        PIPELINE.name,
        store,
        budget_s=budget_s,
        observer=observer,
        source=TraceSource(trace, clock),
        explorer=explorer_of(specification, PIPELINE.name) if explored else None,
        exhaustive=not explored,
    )
    return found, clock()


@pytest.mark.parametrize("seed", range(4))
def test_few_configurations_give_plans_that_are_as_cheap(tmp_path: Path, seed: int) -> None:
    trace, specification = _trace(seed), _specification()
    found, explored_s = _profile(trace, specification, tmp_path / "explored", explored=True)
    everything, whole_s = _profile(trace, specification, tmp_path / "everything", explored=False)
    assert len(found.configurations) < len(everything.configurations) == CHOICES**2
    assert explored_s < whole_s / 2
    assert not found.unsettled
    ours = plan_queries(specification, {PIPELINE.name: found})
    best = plan_queries(specification, {PIPELINE.name: everything})
    for name, frontier in best.items():
        for kind in ("lower", "upper"):  # fully shared and alone
            least, bound = (
                min(getattr(c.estimate.cost_usd_per_h, kind) for c in plans.candidates)
                for plans in (ours[name], frontier)
            )
            assert least <= bound * 1.06


def test_what_was_not_measured_has_its_reason_also_when_it_is_read_again(tmp_path: Path) -> None:
    trace, specification = _trace(0), _specification()
    found, _ = _profile(trace, specification, tmp_path / "store", explored=True)
    assert found.unmeasured == CHOICES**2 - len(found.configurations)
    assert found.certificate is not None
    assert (found.certificate.unmeasured, found.certificate.considered) == (found.unmeasured, found.unmeasured)
    assert found.certificate.conclusive
    assert found.certificate.probability <= 0.05
    assert "none of the unmeasured configurations makes any query's plan more than 5%" in str(found.certificate)
    again = load_profile(
        specification,
        PIPELINE.name,
        tmp_path / "store",
        source=TraceSource(trace),
        judged=True,
        explorer=explorer_of(specification, PIPELINE.name),
    )
    assert (again.judgements, again.certificate) == (found.judgements, found.certificate)


def test_who_runs_out_of_time_and_goes_on_ends_the_same(tmp_path: Path) -> None:
    trace, specification = _trace(1), _specification()
    through, whole_s = _profile(trace, specification, tmp_path / "through", explored=True)
    for _ in range(40):
        broken, spent_s = _profile(trace, specification, tmp_path / "broken", explored=True, budget_s=whole_s / 6)
        if not broken.unsettled and spent_s == 0:
            break
    assert not broken.unsettled
    ours, _ = plan_all(specification, {PIPELINE.name: through})
    others, _ = plan_all(specification, {PIPELINE.name: broken})
    assert others.cost_usd_per_h == pytest.approx(ours.cost_usd_per_h, rel=0.06)


class _Breaker(SilentObserver):
    """Ends a measurement after some increments, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self._left = after

    def progressed(self, progress: ProfileProgress) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("seed", "after"), [(0, 1), (1, 3), (2, 7), (4, 1)])
def test_who_is_ended_after_every_few_increments_measures_the_same(tmp_path: Path, seed: int, after: int) -> None:
    trace, specification = _trace(seed), _specification()
    through, _ = _profile(trace, specification, tmp_path / "through", explored=True)
    for _ in range(200):
        broken, _ = _profile(trace, specification, tmp_path / "broken", explored=True, observer=_Breaker(after))
        if not broken.interrupted:
            break
    assert [(c.configuration, len(c.items)) for c in broken.configurations] == [
        (c.configuration, len(c.items)) for c in through.configurations
    ]
    assert broken.judgements == through.judgements


def test_unrecorded_configurations_are_proposed_only_once(tmp_path: Path) -> None:
    """A trace without the configurations that would be best: the measurement ends all the same."""
    trace, specification = _trace(2), _specification()
    recorded = [n for n, c in enumerate(trace.configurations) if sum(_level(c)) % 2 == 0]
    part = replace(
        trace,
        configurations=tuple(trace.configurations[n] for n in recorded),
        rows=trace.rows[recorded],
        scores=trace.scores[recorded],
    )
    found, _ = _profile(part, specification, tmp_path / "store", explored=True)
    assert {c.configuration for c in found.configurations} <= set(part.configurations)
    assert found.configurations


def test_it_says_what_it_proposes_and_when_to_stop(tmp_path: Path) -> None:
    trace, specification = _trace(3), _specification()
    explorer = PlanExplorer(specification, PIPELINE.name)
    listed = trace.configurations
    cover = explorer.cover()
    assert {pair for c in cover for pair in c.operators} == {pair for c in listed for pair in c.operators}
    known, _ = _profile(trace, specification, tmp_path / "everything", explored=False)
    begun = replace(known, configurations=tuple(c for c in known.configurations if c.configuration in cover))
    first = explorer.assess(begun, lambda configuration, items: 1.0)
    again = PlanExplorer(specification, PIPELINE.name)
    assert again.assess(begun, lambda configuration, items: 1.0).next == first.next
    assert isinstance(first.next, Proposal)
    assert first.next.configuration not in cover
    assert first.next.worth_per_s > 0
    assert first.certificate.next == first.next.configuration
    assert not first.certificate.conclusive
    unmeasurable = explorer.assess(begun, lambda configuration, items: math.inf)
    assert unmeasurable.next is None
    assert not unmeasurable.certificate.conclusive
    last = explorer.assess(known, lambda configuration, items: 1.0)
    assert last.next is None
    assert last.certificate == Certificate(0, 0, 0.0, 0.05, conclusive=True)
    assert all(not idle.issuperset(cover) for idle in map(frozenset, first.pointless.values()))


def test_plans_say_nothing_without_machines_or_queries() -> None:
    specification = _specification()
    assert explorer_of(replace(specification, infrastructure=None), PIPELINE.name) is None
    assert explorer_of(replace(specification, queries=()), PIPELINE.name) is None
    with pytest.raises(ValueError, match="expected both"):
        PlanExplorer(replace(specification, queries=()), PIPELINE.name)


def test_a_budget_that_ends_within_the_cover_concludes_nothing(tmp_path: Path) -> None:
    trace, specification = _trace(0), _specification()
    for budget_s in (9.0, 16.0, 28.0):
        found, _ = _profile(trace, specification, tmp_path / f"{budget_s}", explored=True, budget_s=budget_s)
        assert found.unsettled
        assert found.certificate is not None
        assert not found.certificate.conclusive
        assert not found.settled


def test_an_operator_that_fails_does_not_hide_the_one_that_it_was_covered_with(tmp_path: Path) -> None:
    """One size of `see` is not in the trace at all: what it would have shown of `tell` is measured with another."""
    trace, specification = _trace(0), _specification()
    for lost in range(CHOICES):
        kept = [n for n, c in enumerate(trace.configurations) if _level(c)[0] != lost]
        part = replace(
            trace,
            configurations=tuple(trace.configurations[n] for n in kept),
            rows=trace.rows[kept],
            scores=trace.scores[kept],
        )
        found, _ = _profile(part, specification, tmp_path / f"part{lost}", explored=True)
        whole, _ = _profile(part, specification, tmp_path / f"whole{lost}", explored=False)
        ours = plan_queries(specification, {PIPELINE.name: found})
        for name, frontier in plan_queries(specification, {PIPELINE.name: whole}).items():
            assert bool(ours[name].candidates) == bool(frontier.candidates)


def test_one_slow_item_among_the_first_does_not_end_it(tmp_path: Path) -> None:
    trace, specification = _trace(0), _specification((0.7,))
    first = TraceSource(trace).dataset(PIPELINE, 0).profiled[3]
    service_s = trace.service_s.copy()
    service_s[:, first] = 6.5
    found, _ = _profile(replace(trace, service_s=service_s), specification, tmp_path / "store", explored=True)
    (frontier,) = plan_queries(specification, {PIPELINE.name: found}).values()
    assert frontier.candidates
