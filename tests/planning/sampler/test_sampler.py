"""Complete profiling runs with a sampler on recorded times: few configurations, equally cheap plans, and resumption."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from budget import seeds, share_of
from circinus.operators import Item
from circinus.planning import plan_queries
from circinus.planning.sampler import PlanCostSampler, make_sampler
from circinus.planning.sampler.plan_costs import min_plan_costs
from circinus.planning.settings import DOUBTFUL_EXCESS
from circinus.profiling import (
    MIN_ITEMS,
    FailedConfiguration,
    MeasurementTrace,
    ProfileProgress,
    SilentObserver,
    SimulatedClock,
    StoppingCertificate,
    Suggestion,
    TraceBackend,
    Verdict,
    load_profile,
    profile_pipeline,
)
from circinus.profiling.measurement.runner import Measurement, MeasurementError, Runner
from circinus.profiling.race.sampler import DecisionTimeoutError
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_writer import StoreWriter
from circinus.specification import Configuration, LatencySlo, Network, Specification
from circinus.statistics.interval import Interval
from planning.sampler.two_operators import (
    CHOICES,
    PIPELINE,
    Breaker,
    Whole,
    beginning,
    level,
    measured,
    recorded,
    two_queries,
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(4))
def test_few_configurations_give_plans_that_are_as_cheap(
    tmp_path: Path, whole: Callable[[int], Whole], seed: int
) -> None:
    trace, specification = recorded(seed), two_queries()
    found, explored_s = whole(seed).profile, whole(seed).seconds
    everything, exhaustive_s = measured(trace, specification, tmp_path / "everything", explored=False)
    assert len(found.configurations) < len(everything.configurations) == CHOICES**2
    assert explored_s < exhaustive_s / 2
    assert not found.undecided
    ours = plan_queries(specification, {PIPELINE.name: found})
    best = plan_queries(specification, {PIPELINE.name: everything})
    for name, frontier in best.items():
        for kind in ("lower", "upper"):  # fully shared and dedicated
            least, bound = (
                min(getattr(c.estimate.cost_usd_per_h, kind) for c in plans.candidates)
                for plans in (ours[name], frontier)
            )
            assert least <= bound * 1.06


def test_what_was_not_measured_has_its_reason_also_when_it_is_read_again(whole: Callable[[int], Whole]) -> None:
    trace, specification = recorded(0), two_queries()
    found = whole(0).profile
    assert found.unmeasured == CHOICES**2 - len(found.configurations)
    assert found.certificate is not None
    assert (found.certificate.unmeasured, found.certificate.considered) == (found.unmeasured, found.unmeasured)
    assert found.certificate.conclusive
    assert found.certificate.probability is not None
    assert found.certificate.probability <= 0.05
    assert "most likely no unmeasured configuration" in str(found.certificate)
    again = load_profile(
        specification,
        PIPELINE.name,
        whole(0).store,
        source=TraceBackend(trace),
        with_verdicts=True,
        explorer=make_sampler(specification, PIPELINE.name),
    )
    assert (again.verdicts, again.certificate) == (found.verdicts, found.certificate)


@pytest.mark.thorough
@pytest.mark.parametrize("parts", [2, 6][: share_of(2)])
def test_who_runs_out_of_time_and_goes_on_ends_the_same(
    tmp_path: Path, whole: Callable[[int], Whole], parts: int
) -> None:
    trace, specification = recorded(1), two_queries()
    for _ in range(40):
        broken, spent_s = measured(trace, specification, tmp_path / "broken", budget_s=whole(1).seconds / parts)
        if not broken.undecided and spent_s == 0:
            break
    assert not broken.undecided
    # The total cost may be lower, as two queries may share a deployment.
    ours = plan_queries(specification, {PIPELINE.name: whole(1).profile})
    others = plan_queries(specification, {PIPELINE.name: broken})
    for name in ours:
        least = [min(c.estimate.cost_usd_per_h.upper for c in found[name].candidates) for found in (ours, others)]
        assert least[1] == pytest.approx(least[0], rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "after"), [(1, 7), (2, 3), (0, 1)][: share_of(3)])
def test_who_is_ended_after_every_few_increments_measures_the_same(
    tmp_path: Path, whole: Callable[[int], Whole], seed: int, after: int
) -> None:
    trace, specification = recorded(seed), two_queries()
    through = whole(seed).profile
    for _ in range(200):
        broken, _ = measured(trace, specification, tmp_path / "broken", observer=Breaker(after))
        if not broken.interrupted:
            break
    assert [(c.configuration, len(c.items)) for c in broken.configurations] == [
        (c.configuration, len(c.items)) for c in through.configurations
    ]
    assert broken.verdicts == through.verdicts


def test_unrecorded_configurations_are_proposed_only_once(tmp_path: Path) -> None:
    """The trace lacks the configurations that would be best: profiling ends nevertheless."""
    trace, specification = recorded(2), two_queries((0.7,))
    kept = [n for n, c in enumerate(trace.configurations) if sum(level(c)) % 2 == 0]
    part = replace(
        trace,
        configurations=tuple(trace.configurations[n] for n in kept),
        rows=trace.rows[kept],
        scores=trace.scores[kept],
    )
    found, _ = measured(part, specification, tmp_path / "store")
    assert {c.configuration for c in found.configurations} <= set(part.configurations)
    assert found.configurations


def test_it_says_what_it_proposes_and_when_to_stop(tmp_path: Path) -> None:
    trace, specification = recorded(3), two_queries()
    explorer = PlanCostSampler(specification, PIPELINE.name)
    listed = trace.configurations
    cover = explorer.initial_design()
    assert {pair for c in cover for pair in c.operators} == {pair for c in listed for pair in c.operators}
    known, _ = measured(trace, specification, tmp_path / "everything", explored=False)
    begun = replace(known, configurations=tuple(c for c in known.configurations if c.configuration in cover))
    for checks in (0, 3, 6):
        with pytest.raises(DecisionTimeoutError):
            explorer.suggest(begun, lambda configuration, items: 1.0, _out_of_time_after(checks))
    first = explorer.suggest(begun, lambda configuration, items: 1.0)
    again = PlanCostSampler(specification, PIPELINE.name)
    assert again.suggest(begun, lambda configuration, items: 1.0).suggestions == first.suggestions
    assert isinstance(first.suggestions[0], Suggestion)
    assert first.suggestions[0].configuration not in cover
    assert first.suggestions[0].value_per_s > 0
    assert first.certificate.next == first.suggestions[0].configuration
    assert not first.certificate.conclusive
    unmeasurable = explorer.suggest(begun, lambda configuration, items: math.inf)
    assert not unmeasurable.suggestions
    assert not unmeasurable.certificate.conclusive
    last = explorer.suggest(known, lambda configuration, items: 1.0)
    assert not last.suggestions
    assert last.certificate == StoppingCertificate(0, 0, 0.0, 0.05, conclusive=True)
    assert all(not idle.issuperset(cover) for idle in map(frozenset, first.pruned.values()))


def _out_of_time_after(checks: int) -> Callable[[], None]:
    remaining = iter(range(checks))

    def check_time() -> None:
        if next(remaining, None) is None:
            raise DecisionTimeoutError

    return check_time


def test_a_decision_that_took_too_long_leaves_fewer_candidates(
    monkeypatch: pytest.MonkeyPatch, whole: Callable[[int], Whole]
) -> None:
    monkeypatch.setattr("circinus.planning.sampler.sampler.MAX_ENUMERATED", 1)
    monkeypatch.setattr("circinus.planning.sampler.sampler._CANDIDATES", 8)
    explorer, profile = PlanCostSampler(two_queries(), PIPELINE.name), whole(0).profile
    assert explorer.suggest(profile, lambda configuration, items: 1.0).certificate.considered == 8
    with pytest.raises(DecisionTimeoutError):
        explorer.suggest(profile, lambda configuration, items: 1.0, _out_of_time_after(1))
    assert explorer.suggest(profile, lambda configuration, items: 1.0).certificate.considered == 2


def test_plans_say_nothing_without_machines_or_queries() -> None:
    specification = two_queries()
    assert make_sampler(replace(specification, infrastructure=None), PIPELINE.name) is None
    assert make_sampler(replace(specification, queries=()), PIPELINE.name) is None
    with pytest.raises(ValueError, match="no infrastructure or no query"):
        PlanCostSampler(replace(specification, queries=()), PIPELINE.name)


def test_a_budget_that_ends_within_the_cover_concludes_nothing(tmp_path: Path) -> None:
    trace, specification = recorded(0), two_queries()
    for budget_s in (9.0, 28.0):
        found, _ = measured(trace, specification, tmp_path / f"{budget_s}", budget_s=budget_s)
        assert found.undecided
        assert found.certificate is not None
        assert not found.certificate.conclusive
        assert not found.all_decided


@pytest.mark.slow
@pytest.mark.parametrize("lost", [4, 1, 3, 0][: share_of(4)])
def test_an_operator_that_fails_does_not_hide_the_one_that_it_was_covered_with(tmp_path: Path, lost: int) -> None:
    """The trace lacks one size of `see`: the choice of `tell` that it was to cover is measured with another size."""
    trace, specification = recorded(0), two_queries((0.7,))
    kept = [n for n, c in enumerate(trace.configurations) if level(c)[0] != lost]
    part = replace(
        trace,
        configurations=tuple(trace.configurations[n] for n in kept),
        rows=trace.rows[kept],
        scores=trace.scores[kept],
    )
    found, _ = measured(part, specification, tmp_path / "part")
    everything, _ = measured(part, specification, tmp_path / "everything", explored=False)
    ours = plan_queries(specification, {PIPELINE.name: found})
    for name, frontier in plan_queries(specification, {PIPELINE.name: everything}).items():
        assert frontier.candidates
        assert ours[name].candidates


@pytest.mark.slow
def test_one_slow_item_among_the_first_does_not_end_it(tmp_path: Path) -> None:
    trace, specification = recorded(0), two_queries((0.7,))
    first = TraceBackend(trace).dataset(PIPELINE, 0).profiling_items[3]
    service_s = trace.service_s.copy()
    service_s[:, first] = 6.5
    found, _ = measured(replace(trace, service_s=service_s), specification, tmp_path / "store", budget_s=300.0)
    (frontier,) = plan_queries(specification, {PIPELINE.name: found}).values()
    assert frontier.candidates


class _Failing(TraceBackend):
    """Runner that fails on every configuration, after three seconds each."""

    def __init__(self, trace: MeasurementTrace, clock: SimulatedClock) -> None:
        super().__init__(trace, clock)
        self._now = clock

    @contextmanager
    def runner(self, addresses: MeasurementKeys, *, timeout_s: float) -> Iterator[Runner]:
        with super().runner(addresses, timeout_s=timeout_s) as whole:

            def fail(configuration: Configuration, items: Sequence[Item]) -> Measurement:
                self._now.advance(3.0)
                raise MeasurementError("it always fails", "p", configuration, items[0].key, code="operator.failed")

            whole.measure = fail  # type: ignore[method-assign]
            yield whole


@pytest.mark.parametrize("budget_s", [17.0, None])
def test_it_ends_where_everything_fails(tmp_path: Path, budget_s: float | None) -> None:
    source = _Failing(recorded(0), SimulatedClock())
    found = profile_pipeline(
        two_queries(),
        PIPELINE.name,
        tmp_path / "store",
        budget_s=budget_s,
        source=source,
        explorer=make_sampler(two_queries(), PIPELINE.name),
    )
    assert found.failed
    assert not found.configurations
    assert not found.all_decided


def test_a_failure_that_another_process_records_meanwhile_does_no_harm(tmp_path: Path) -> None:
    trace, specification = recorded(0), two_queries((0.7,))
    source, store = TraceBackend(trace, SimulatedClock()), tmp_path / "store"
    addresses = source.addresses(PIPELINE, source.machine)
    never_begun = trace.configurations[7]

    class Meanwhile(SilentObserver):
        def progressed(self, progress: ProfileProgress) -> None:
            with ProfileStore(store) as opened:
                writer = StoreWriter(opened, addresses, source.dataset(PIPELINE, 0))
                writer.failed(FailedConfiguration(never_begun, None, "elsewhere it failed"))

    found, _ = measured(trace, specification, store, observer=Meanwhile())
    assert found.configurations
    assert not found.undecided


def test_where_nothing_of_the_beginning_was_recorded_others_are_measured(tmp_path: Path) -> None:
    trace, specification = recorded(0), two_queries((0.7,))
    beginning = set(PlanCostSampler(specification, PIPELINE.name).initial_design())
    rows = [row for row, configuration in enumerate(trace.configurations) if configuration not in beginning]
    partial = replace(
        trace,
        configurations=tuple(trace.configurations[row] for row in rows),
        rows=trace.rows[rows],
        scores=trace.scores[rows],
    )
    found, _ = measured(partial, specification, tmp_path / "store")
    assert len(found.configurations) > len(beginning)
    assert all(frontier.candidates for frontier in plan_queries(specification, {PIPELINE.name: found}).values())


@pytest.mark.parametrize("seed", seeds(3))
def test_a_failure_takes_nothing_away_of_what_is_known_on_all_items(tmp_path: Path, seed: int) -> None:
    trace, specification = recorded(seed), two_queries()
    store, source = tmp_path / "store", TraceBackend(trace, SimulatedClock())
    everything, _ = measured(trace, specification, store, explored=False)
    with ProfileStore(store) as opened:
        addresses = source.addresses(PIPELINE, source.machine)
        writer = StoreWriter(opened, addresses, source.dataset(PIPELINE, 0))
        for known in everything.configurations[::2]:
            writer.failed(FailedConfiguration(known.configuration, "an item of other data", "out of memory"))
    found, seconds = measured(trace, specification, store)
    assert (len(found.configurations), found.failed, seconds) == (len(everything.configurations), (), 0.0)


def test_who_has_spent_the_budget_does_not_look_on(
    tmp_path: Path, whole: Callable[[int], Whole], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, specification = recorded(0), two_queries()
    whole_s = whole(0).seconds
    looks, assess = [], PlanCostSampler.suggest
    monkeypatch.setattr(PlanCostSampler, "suggest", lambda *given: (looks.append(1), assess(*given))[1])
    increments = []

    class Counting(SilentObserver):
        def progressed(self, progress: ProfileProgress) -> None:
            increments.append(progress.configuration)

    measured(trace, specification, tmp_path / "part", budget_s=whole_s / 3, observer=Counting())
    assert len(looks) < len(increments) + 2 * CHOICES  # a few exceed the remaining budget


def test_what_is_known_on_few_items_only_is_not_called_unlikely(tmp_path: Path, whole: Callable[[int], Whole]) -> None:
    trace, specification = recorded(1), two_queries()
    for part in (0.02, 0.05, 0.1):
        found, _ = measured(trace, specification, tmp_path / f"{part}", budget_s=whole(1).seconds * part)
        usable = {known.configuration for known in found.usable}
        unlikely = {c for c, judgement in found.verdicts.items() if judgement.verdict is Verdict.UNLIKELY}
        assert unlikely <= usable


def test_without_a_plan_those_count_that_a_simulation_may_still_confirm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specification = two_queries((0.8,))
    profile, _ = measured(recorded(0), specification, tmp_path / "store", explored=False)
    begun = (beginning(own, MIN_ITEMS) for own in profile.configurations)
    undecided = tuple(replace(own, accuracy=Interval(own.scores.mean(), 0.0, 1.0)) for own in begun)
    known = replace(profile, configurations=undecided)
    configurations = [own.configuration for own in known.configurations]
    network = Network(specification.required_infrastructure)

    def with_limit(limit_s: float) -> Specification:
        (query,) = specification.queries
        slos = query.slos.model_copy(update={"latency": LatencySlo(limit=limit_s)})
        return replace(specification, queries=(query.model_copy(update={"slos": slos}),))

    def has_plan(limit_s: float) -> bool:
        (costs,) = min_plan_costs(PIPELINE, with_limit(limit_s).queries, known, [network], configurations)
        return bool(np.isfinite(costs[[own.scores.mean() > 0.8 for own in known.configurations]]).any())

    low_s, high_s = 0.0, 6.0
    while high_s - low_s > 0.01:
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (low_s, middle_s) if has_plan(middle_s) else (middle_s, high_s)
    narrow, far = low_s / (1 + DOUBTFUL_EXCESS / 2), low_s / (1 + DOUBTFUL_EXCESS * 2)

    def is_worthwhile(limit_s: float) -> bool:
        sampler = make_sampler(with_limit(limit_s), PIPELINE.name)
        assert sampler is not None
        return bool(sampler.suggest(known, lambda _, items: 0.1 * items).suggestions)

    assert is_worthwhile(high_s)
    assert is_worthwhile(narrow)
    assert not is_worthwhile(far)
    monkeypatch.setattr("circinus.planning.sampler.sampler.DOUBTFUL_EXCESS", 0.0)
    assert not is_worthwhile(narrow)


@pytest.mark.parametrize("is_begun_worthwhile", [True, False])
def test_where_nothing_begun_is_worthwhile_more_candidates_are_considered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_begun_worthwhile: bool
) -> None:
    module = "circinus.planning.sampler.sampler"
    monkeypatch.setattr(f"{module}.MAX_ENUMERATED", 0)
    monkeypatch.setattr(f"{module}._CANDIDATES", 32)
    monkeypatch.setattr(f"{module}.settling_share", lambda _: 0.0)
    specification = two_queries((0.8,))
    profile, _ = measured(recorded(0), specification, tmp_path / "store", explored=False)
    by_score = sorted(profile.configurations, key=lambda own: own.scores.mean())
    begun = beginning(by_score[-1 if is_begun_worthwhile else 0], MIN_ITEMS)
    mean = begun.scores.mean()
    accuracy = Interval(mean, 0.0, 1.0 if is_begun_worthwhile else mean)
    known = replace(profile, configurations=(replace(begun, accuracy=accuracy),))
    sampler = make_sampler(specification, PIPELINE.name)
    assert sampler is not None
    considered = sampler.suggest(known, lambda _, items: 0.1 * items).certificate.considered
    few = 32 // 16
    assert considered <= few if is_begun_worthwhile else considered > few
