"""What is measured next, and that the budget is kept: on a clock that the measurements themselves move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_application import Application, sample_pipeline
from sample_application import accuracy_query as bare_accuracy_query

from budget import examples
from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling import load_profile
from circinus.profiling.dataset.items import load_dataset
from circinus.profiling.dataset.scorer import Scorer
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    OperatorRuns,
    ReplicaStats,
)
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator
from circinus.profiling.observer import ProfileProgress, TimeBudget
from circinus.profiling.profile import FailedConfiguration, PipelineProfile, StoppingCertificate
from circinus.profiling.race.configuration_order import prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace, look_schedule
from circinus.profiling.race.profiling_loop import ProfilingLoop
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.sampler import SamplerDecision, Seconds, Suggestion
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.store.profile_loader import build_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_dataset
from circinus.profiling.store.stored_measurements import StoredMeasurements
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, DatasetSpec, Knob, LatencySlo, Query
from golden import check_message
from raised import raises_code

OPERATORS = ("prepare", "left", "right", "joined")
Score = Callable[[Configuration, Item], float]


class TimedRunner:
    """Takes given seconds for each operator or knob value, keeps what a prefix brought, and loads what is new."""

    def __init__(self, application: Application, seconds: Mapping[str, float], load_s: float, score: Score) -> None:
        self.now_s = 0.0
        self.cpus = 2.0
        self.increments: list[tuple[Configuration, tuple[str, ...], float, float]] = []
        self.allocations: list[tuple[str, tuple[tuple[float, int], ...], float]] = []
        self.fails: Callable[[Configuration, Item], bool] = lambda configuration, item: False
        self._addresses = application.addresses()
        self._seconds = seconds
        self._load_s = load_s
        self._score = score
        self._kept: set[tuple[str, str]] = set()
        self._loaded: set[str] = set()

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        began_s, ran_s = self.now_s, 0.0
        for name in OPERATORS:
            replica = self._addresses.replica(name, configuration[name])
            for item in items:
                if self.fails(configuration, item):
                    raise MeasurementError("reason", "p", configuration, item.key, code="operator.failed")
                takes_s = self._takes_s(name, configuration)
                key = self._addresses.output(name, configuration), item.key
                if key not in self._kept:
                    self.now_s += takes_s + (self._load_s if replica not in self._loaded else 0.0)
                    ran_s += takes_s
                    self._kept.add(key)
                    self._loaded.add(replica)
        self.increments.append((configuration, tuple(item.key for item in items), began_s, self.now_s))
        return Measurement(
            runs={
                n: OperatorRuns((self._takes_s(n, configuration),) * len(items), (10,) * len(items)) for n in OPERATORS
            },
            outputs={"joined": tuple(b"" for _ in items)},
            scores=tuple(self._score(configuration, item) for item in items),
            replicas={name: ReplicaStats((1.0,), (1.5,), 1000) for name in OPERATORS},
            compute_s=ran_s,
        )

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        self.allocations.append((operator, tuple(allocations), self.now_s))
        ran_s = sum(size for _, size in allocations) * self._takes_s(operator, configuration)
        self.now_s += ran_s
        return AllocationMeasurement(dict.fromkeys(allocations, 1.25), ReplicaStats((), (), 1000), ran_s)

    def _takes_s(self, operator: str, configuration: Configuration) -> float:
        """Seconds may be those of an operator, or of one of its knob values: `left`, `left-high`."""
        knobs = "-".join(str(value) for value in configuration[operator].as_dict().values())
        return self._seconds.get(f"{operator}-{knobs}", self._seconds[operator])


class Listener:
    def __init__(self) -> None:
        self.told: list[ProfileProgress] = []
        self.failures: list[FailedConfiguration] = []
        self.report: Callable[[], None] = lambda: None

    def progressed(self, progress: ProfileProgress) -> None:
        self.told.append(progress)
        self.report()

    def failed(self, failure: FailedConfiguration) -> None:
        self.failures.append(failure)


LATENCY_ITEMS = 32
"""The first look at or after the 30 items that the objective takes."""


def accuracy_query(threshold: float) -> Query:
    """It also asks for a 95th percentile of latency, which takes 30 items."""
    bare = bare_accuracy_query(threshold)
    return bare.model_copy(update={"slos": bare.slos.model_copy(update={"latency": LatencySlo(limit=100.0)})})


class SlowSampler:
    """Suggests everything that is not measured on all items; each of four parts of a decision moves the clock."""

    def __init__(self, runner: TimedRunner, listed: Sequence[Configuration], decision_s: float) -> None:
        self.spent_s = 0.0
        self.decisions = 0
        self.begins_s: list[float] = []
        self._runner, self._listed, self._decision_s = runner, listed, decision_s

    def initial_design(self, earlier: Sequence[SourceScores] = ()) -> Sequence[Configuration]:
        return self._listed

    def suggest(
        self, profile: PipelineProfile, seconds: Seconds, check_time: Callable[[], None] = lambda: None
    ) -> SamplerDecision:
        self.begins_s.append(self._runner.now_s)
        for _ in range(4):
            self._runner.now_s += self._decision_s / 4
            self.spent_s += self._decision_s / 4
            check_time()
        self.decisions += 1
        items = {measured.configuration: len(measured.items) for measured in profile.configurations}
        left = [Suggestion(c, 1.0) for c in self._listed if items.get(c, 0) < profile.population]
        certificate = StoppingCertificate(profile.unmeasured, 0, 0.5, 0.05, conclusive=not left)
        return SamplerDecision(left, certificate, {})


class Trial:
    """Rounds on the sample pipeline with a data set of 120 items."""

    def __init__(
        self,
        application: Application,
        *,
        budget_s: float | None = None,
        queries: Sequence[Query] = (),
        score: Score = lambda configuration, item: 1.0,
        seconds: Mapping[str, float] | None = None,
        load_s: float = 0.0,
        decision_s: float | None = None,
        start_s: float = 0.0,
        usage_s: float = 0.0,
        initial: int | None = None,
        suggested: slice = slice(None),
    ) -> None:
        self.sampler: SlowSampler | None = None
        self.final: SamplerDecision | None = None
        self.comparisons = 0
        self._usage_s, self._initial, self._suggested = usage_s, initial, suggested
        self._decision_s, self._start_s = decision_s, start_s
        self.runner = TimedRunner(application, seconds or dict.fromkeys(OPERATORS, 0.25), load_s, score)
        self.listener = Listener()
        self._application, self._budget_s, self._queries = application, budget_s, queries
        self.dataset = load_dataset(application.pipeline, [application.folder])

    def run(self) -> ConfigurationRace:
        application, listener = self._application, self.listener
        addresses = application.addresses()
        budget = TimeBudget(self._budget_s, lambda: self.runner.now_s)
        self.runner.now_s += self._start_s
        with ProfileStore(application.store, create=True) as store:
            scorer = Scorer(application.pipeline, [application.folder])
            measurer = Measurer(store, addresses, self.dataset, self.runner, scorer)
            objectives = PipelineSlos.of_queries(self._queries, application.pipeline.name)
            order, listed = np.array(self.dataset.profiling_items), prefix_order(application.pipeline)
            strata = [self.dataset.items[index].strata for index in order]
            confidence = RunConfidence.of_run(
                application.pipeline.metric, strata, objectives.risk, len(listed), objectives.latency_percentiles
            )
            standings = ConfigurationRace(listed[: self._initial], confidence, objectives)
            pace = MeasurementTimeEstimator(addresses)
            allocations = AllocationProfiler(store, addresses, measurer, order, standings, pace, budget, listener)
            stored = read_dataset(store, addresses.dataset(), self.dataset.seed)
            assert stored is not None

            def footprints() -> ResourceUsage:
                self.runner.now_s += self._usage_s
                self.comparisons += 1
                measured = StoredMeasurements(store, addresses, stored, standings.configurations)
                return measured.resource_usage(standings.configurations, objectives.hardware)

            def profile() -> PipelineProfile:
                assert stored is not None
                return build_profile(store, addresses, stored, objectives)

            if self._decision_s is not None:
                self.sampler = SlowSampler(self.runner, listed[self._suggested], self._decision_s)
            loop = ProfilingLoop(
                measurer, order, standings, footprints, allocations, pace, budget, listener, self.sampler, profile
            )
            loop.run()
            self.final, self.spent = loop.final_decision(interrupted=False), loop.spent
            return standings


@pytest.fixture
def large(application: Application) -> Application:
    application.pipeline = sample_pipeline(
        dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 120}, held_out=0.0)
    )
    return application


def _counts(standings: ConfigurationRace) -> list[int]:
    return [standings.items(configuration) for configuration in standings.configurations]


def test_equal_prefixes_are_neighbours(application: Application) -> None:
    ordered = prefix_order(application.pipeline)
    assert sorted(map(str, ordered)) == sorted(map(str, application.configurations))
    gains = [configuration["prepare"] for configuration in ordered]
    assert gains == [gains[0], gains[0], gains[2], gains[2]]


def test_too_many_to_list_is_told(application: Application) -> None:
    knobs = tuple(Knob(name=f"k{i}", choices=tuple(range(10))) for i in range(4))
    many = tuple(
        o.model_copy(update={"knobs": knobs}) if o.name == "right" else o for o in application.pipeline.operators
    )
    with raises_code(ProfileError, "pipeline.too_many_configurations") as caught:
        prefix_order(sample_pipeline(operators=many))
    check_message("profiling/too_many_configurations", str(caught.value))


def _seconds(**others: float) -> dict[str, float]:
    return {**dict.fromkeys(OPERATORS, 0.25), **{name.replace("_", "-"): seconds for name, seconds in others.items()}}


def test_without_a_budget_everything_is_settled(large: Application) -> None:
    """Perfect scores clear a threshold of 0.95 with some 80 items; a threshold of 1 is never cleared but by all.

    What takes as much as another that surely will do is asked no further.
    """
    trial = Trial(large, queries=[accuracy_query(0.95)])
    standings = trial.run()
    assert standings.state.settled.all()
    assert _counts(standings) == [80, 8, 8, 8]
    full = Trial(large, queries=[accuracy_query(1.0)]).run()
    assert _counts(full) == [120, 8, 8, 8]


def test_increments_grow_and_each_prefix_runs_once(large: Application) -> None:
    """Nobody keeps the objective, so that each is measured until it surely does not."""
    trial = Trial(large, queries=[accuracy_query(0.5)], score=lambda *_: 0.48)
    items = trial.run().items(large.configuration(1, "low"))
    assert 32 < items < 120
    for configuration in large.configurations:
        sizes = [len(items) for c, items, _, _ in trial.runner.increments if c == configuration]
        ends = np.cumsum(sizes).tolist()
        assert ends == [look for look in look_schedule(120) if look <= items]
        assert sizes[-1] > sizes[0]
    runs = {"prepare": 2, "left": 4, "right": 2, "joined": 4}
    assert trial.runner.now_s == pytest.approx(items * 0.25 * sum(runs.values()))


def test_increments_go_on_where_their_overhead_is_long(large: Application) -> None:
    """A report takes as long as 100 items, and a tenth of the measurement of all."""
    trial = Trial(large, queries=[accuracy_query(0.5)], score=lambda *_: 0.48)

    def report() -> None:
        trial.runner.now_s += 100.0

    trial.listener.report = report
    standings = trial.run()
    assert standings.state.settled.all()
    assert [len(items) for _, items, _, _ in trial.runner.increments] == [8] * 4 + [112] * 4


def test_what_is_settled_gets_no_more_items(large: Application) -> None:
    """The near miss takes less than the one that surely keeps the objective, and so has to be asked to the end."""
    hopeless, certain, near = (
        large.configuration(20, "low"),
        large.configuration(20, "high"),
        large.configuration(1, "low"),
    )
    means = {hopeless: 0.0, certain: 1.0, near: 0.799, large.configuration(1, "high"): 0.799}
    trial = Trial(
        large,
        queries=[accuracy_query(0.8)],
        score=lambda configuration, item: means[configuration],
        seconds=_seconds(prepare_1=0.1, prepare_20=1.0),
    )
    standings = trial.run()
    assert standings.items(hopeless) == 8
    assert standings.items(certain) == LATENCY_ITEMS
    assert standings.items(near) == 120


def test_what_takes_more_than_one_that_surely_will_do_gets_no_more_items(large: Application) -> None:
    cheap = [large.configuration(gain, "low") for gain in (1, 20)]
    scores = {cheap[0]: 0.0}
    trial = Trial(
        large,
        queries=[accuracy_query(0.8)],
        score=lambda configuration, _: scores.get(configuration, 1.0),
        seconds=_seconds(left_high=1.0),
    )
    standings = trial.run()
    assert standings.items(cheap[1]) == LATENCY_ITEMS
    assert sorted(_counts(standings)) == [8, 8, 8, LATENCY_ITEMS]
    assert [c for c, _, _, _ in trial.runner.increments[4:]] == [cheap[1]] * 3


def test_a_query_without_an_accuracy_objective_needs_items_for_its_latency(large: Application) -> None:
    """Of the cheapest; where nobody asks for anything yet, of all."""
    free = accuracy_query(0.8).model_copy(
        update={"slos": accuracy_query(0.8).slos.model_copy(update={"accuracy": None})}
    )
    cheapest = large.configuration(20, "high")
    standings = Trial(
        large,
        queries=[accuracy_query(0.8), free],
        score=lambda *_: 0.0,
        seconds=_seconds(prepare_20=0.1, left_high=0.1),
    ).run()
    assert sorted(_counts(standings)) == [8, 8, 8, LATENCY_ITEMS]
    assert standings.items(cheapest) == LATENCY_ITEMS
    large.store.unlink()
    assert _counts(Trial(large).run()) == [LATENCY_ITEMS] * 4


def test_with_little_time_one_configuration_is_made_sure_for_each_objective(large: Application) -> None:
    """Breadth first, 100 s would bring 14 items to each of the four: not enough for either objective."""
    means = {("low", 1): 0.7, ("high", 1): 1.0, ("low", 20): 0.5, ("high", 20): 0.97}

    def score(configuration: Configuration, item: Item) -> float:
        values = dict(configuration.operators)
        return means[str(values["left"].as_dict()["quality"]), int(values["prepare"].as_dict()["gain"])]

    seconds = {"prepare": 0.1, "left": 1.5, "right": 0.1, "joined": 0.1}
    trial = Trial(
        large, budget_s=100.0, queries=[accuracy_query(0.8), accuracy_query(0.6)], score=score, seconds=seconds
    )
    standings = trial.run()
    kept = standings.state.certainly_met
    assert kept.any(axis=0).all()
    assert all(standings.items(standings.configurations[k]) >= LATENCY_ITEMS for k in np.flatnonzero(kept.any(axis=1)))
    assert min(_counts(standings)) >= 1


@given(
    budget_s=st.floats(0.1, 400),
    load_s=st.sampled_from([0.0, 3.0]),
    seconds=st.lists(st.sampled_from([0.01, 0.2, 1.5]), min_size=4, max_size=4),
)
@settings(max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_budget_is_exceeded_by_at_most_one_increment(
    large: Application, budget_s: float, load_s: float, seconds: list[float]
) -> None:
    large.store.unlink(missing_ok=True)
    times = dict(zip(OPERATORS, seconds, strict=True))
    trial = Trial(large, budget_s=budget_s, load_s=load_s, seconds=times, queries=[accuracy_query(0.95)])
    standings = trial.run()
    assert all(began_s < budget_s for _, _, began_s, _ in trial.runner.increments)
    # Nothing is begun that is expected to end too late; what is not expected are the loads.
    assert trial.runner.now_s <= budget_s + sum(seconds) + 8 * load_s + 1e-6
    order = [trial.dataset.items[i].key for i in trial.dataset.order]
    for configuration in standings.configurations:
        measured = [key for c, items, _, _ in trial.runner.increments if c == configuration for key in items]
        assert measured == order[: len(measured)]  # a gap-free beginning of the common order
        assert standings.items(configuration) == len(measured)


def test_a_small_budget_is_spread_over_all_configurations(large: Application) -> None:
    """Eight items of everything would take 24 s; 13 s are enough for some of each, the rest goes to one of them."""
    trial = Trial(large, budget_s=13.0)
    assert min(_counts(trial.run())) >= 1
    assert len({configuration for configuration, _, _, _ in trial.runner.increments[:4]}) == 4


def test_a_tiny_budget_still_measures_one_item(large: Application) -> None:
    trial = Trial(large, budget_s=0.5)
    assert _counts(trial.run()) == [1, 0, 0, 0]
    assert [len(items) for _, items, _, _ in trial.runner.increments] == [1]


def test_a_start_that_takes_the_whole_budget_leaves_one_item(large: Application) -> None:
    trial = Trial(large, budget_s=2.0, start_s=3.0)
    assert _counts(trial.run()) == [1, 0, 0, 0]


def test_no_budget_at_all_measures_nothing(large: Application) -> None:
    trial = Trial(large, budget_s=0.0)
    assert _counts(trial.run()) == [0] * 4


def test_a_later_call_goes_on_and_repeats_nothing(large: Application) -> None:
    first = Trial(large, budget_s=20.0, queries=[accuracy_query(0.95)])
    before = _counts(first.run())
    second = Trial(large, queries=[accuracy_query(0.95)])
    second.run()
    seen = [(c, key) for trial in (first, second) for c, items, _, _ in trial.runner.increments for key in items]
    assert len(seen) == len(set(seen))
    assert sum(before) > 0
    third = Trial(large, queries=[accuracy_query(0.95)])
    third.run()
    assert third.runner.increments == []


def test_a_failing_configuration_is_left_and_the_others_go_on(large: Application) -> None:
    bad = large.configuration(1, "high")
    trial = Trial(large)
    trial.runner.fails = lambda configuration, item: configuration == bad
    standings = trial.run()
    assert [failure.configuration for failure in trial.listener.failures] == [bad]
    assert standings.failed(bad)
    assert sorted(_counts(standings)) == [0, LATENCY_ITEMS, LATENCY_ITEMS, LATENCY_ITEMS]


def _with_choices(application: Application, **changes: object) -> None:
    operators = tuple(
        o.model_copy(update=changes) if o.name in ("left", "right") else o for o in application.pipeline.operators
    )
    application.pipeline = application.pipeline.model_copy(update={"operators": operators})


def test_every_allocation_is_measured_once(large: Application) -> None:
    _with_choices(large, cpus=(1.0, 2.0), batch_sizes=(1, 4))
    trial = Trial(large)
    trial.run()
    wanted = ((1.0, 4), (2.0, 1), (2.0, 4))
    assert sorted(name for name, _, _ in trial.runner.allocations) == ["left", "left", "right"]
    assert {allocations for _, allocations, _ in trial.runner.allocations} == {wanted}
    again = Trial(large)
    again.run()
    assert again.runner.allocations == []


def test_allocations_of_more_cpus_than_there_are_stay_unmeasured(large: Application) -> None:
    _with_choices(large, cpus=(1.0, 2.0, 4.0), batch_sizes=(1, 4))
    trial = Trial(large)
    trial.run()
    assert {allocations for _, allocations, _ in trial.runner.allocations} == {((1.0, 4), (2.0, 1), (2.0, 4))}
    profile = load_profile(large.specification, "sample", large.store)
    for left in (found.operators["left"] for found in profile.configurations):
        assert left.measured_allocations == {(1.0, 1), (1.0, 4), (2.0, 1), (2.0, 4)}
        assert (left.batch_ratio[4.0, 1], left.batch_ratio[4.0, 4]) == (1.0, 4.0)


def test_nothing_is_measured_where_there_is_no_choice(large: Application) -> None:
    trial = Trial(large)
    trial.run()
    assert trial.runner.allocations == []


def test_allocations_come_after_the_first_round_and_take_a_share_of_the_budget(large: Application) -> None:
    _with_choices(large, batch_sizes=(1, 2))
    trial = Trial(large, budget_s=80.0, queries=[accuracy_query(0.99)])
    trial.run()
    began = [began_s for _, _, began_s in trial.runner.allocations]
    assert len(began) == 3
    before = [increment for increment in trial.runner.increments if increment[2] < min(began)]
    after = [began_s for _, _, began_s, _ in trial.runner.increments if began_s >= min(began)]
    counts = Counter(configuration for configuration, items, _, _ in before for _ in items)
    assert counts == dict.fromkeys(large.configurations, 8)  # also the one that was tried first, with a single item
    assert min(began) == pytest.approx(max(ended_s for _, _, _, ended_s in before))
    assert max(began) < min(after)
    tight = Trial(large, budget_s=9.0)
    large.store.unlink()
    tight.run()
    assert tight.runner.now_s <= 9.0 + 1.0


def test_the_observer_hears_of_every_increment(large: Application) -> None:
    trial = Trial(large, budget_s=100.0, queries=[accuracy_query(0.9)])
    standings = trial.run()
    told = trial.listener.told
    assert len(told) == len(trial.runner.increments)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert all(progress.done <= progress.total for progress in told)
    assert all(progress.remaining_s <= 100.0 - progress.elapsed_s for progress in told)
    assert told[-1].done == sum(_counts(standings))
    assert told[0].remaining_s > 0


def _searched(large: Application, decision_s: float, budget_s: float | None = None) -> tuple[Trial, SlowSampler]:
    trial = Trial(large, queries=[accuracy_query(0.95)], decision_s=decision_s, budget_s=budget_s)
    trial.run()
    assert trial.sampler is not None
    return trial, trial.sampler


def test_where_decisions_take_no_time_each_increment_has_its_own(large: Application) -> None:
    trial, sampler = _searched(large, 0.0)
    assert len(trial.runner.increments) - 4 <= sampler.decisions <= len(trial.runner.increments)


@pytest.mark.parametrize("decision_s", [4.0, 8.0])
def test_a_decision_is_used_until_measuring_took_four_times_as_long(large: Application, decision_s: float) -> None:
    """Everything takes 360 s: 120 items of 0.25 s with 12 prefixes of operators."""
    trial, sampler = _searched(large, decision_s)
    measuring_s = trial.runner.now_s - sampler.spent_s
    gaps_s = np.diff(sampler.begins_s)[:-2]  # the last two come where nothing else is left
    assert len(gaps_s)
    assert (gaps_s >= 5 * decision_s).all()
    assert (trial.spent.operators_s, trial.spent.deciding_s) == pytest.approx((measuring_s, sampler.spent_s))
    assert trial.final is not None
    assert trial.final.certificate.conclusive


def test_everything_is_measured_where_that_takes_less_than_a_decision(large: Application) -> None:
    """The first decision is given up after its first part, as it exceeds a fifth of 360 s."""
    trial, sampler = _searched(large, 2_000.0)
    assert (sampler.spent_s, sampler.decisions) == (500.0, 0)
    assert trial.runner.now_s == pytest.approx(360.0 + 500.0)
    assert _measured_items(trial) == dict.fromkeys(large.configurations, 120)
    assert trial.final is not None
    assert trial.final.certificate.conclusive
    assert trial.final.certificate.is_computed


def test_a_first_decision_leaves_time_for_a_second_and_the_last_need_not(large: Application) -> None:
    """One decision of 40 s fits into a fifth of 360 s, but none of twice that after it: it is given up after 20 s."""
    trial, sampler = _searched(large, 40.0)
    assert sorted(_measured_items(trial).values()) == [8, 8, 8, 80]
    assert (sampler.spent_s, sampler.decisions) == (20.0 + 40.0, 1)
    assert trial.final is not None
    assert trial.final.certificate.is_computed


def test_suggestions_of_new_configurations_outlast_a_comparison(large: Application) -> None:
    """Only the second configuration is suggested. Usages are compared before the fifth increment, after a decision."""
    trial = Trial(large, decision_s=3.0, usage_s=2.0, initial=1, suggested=slice(1, 2))
    trial.run()
    first, second, *_ = prefix_order(large.pipeline)
    assert [increment[0] for increment in trial.runner.increments[:5]] == [first, second, first, first, second]


@pytest.mark.parametrize(("usage_s", "comparisons"), [(0.0, 5), (10.0, 3)])
def test_several_are_started_where_comparing_takes_long(large: Application, usage_s: float, comparisons: int) -> None:
    """One of four is in the initial design; without a decision the fastest others follow."""
    trial = Trial(large, queries=[accuracy_query(0.95)], decision_s=60.0, usage_s=usage_s, initial=1)
    trial.run()
    assert trial.comparisons == comparisons
    assert sorted(_measured_items(trial).values()) == [8, 8, 8, 80]


@pytest.mark.parametrize("decision_s", [1.0, 4.0, 30.0, 100.0])
def test_decisions_keep_the_budget(large: Application, decision_s: float) -> None:
    trial, sampler = _searched(large, decision_s, budget_s=100.0)
    assert 80.0 < trial.runner.now_s <= 100.0
    assert sampler.spent_s <= max(0.2 * 100.0, decision_s / 4)


def _measured_items(trial: Trial) -> dict[Configuration, int]:
    counts: Counter[Configuration] = Counter()
    for configuration, items, _, _ in trial.runner.increments:
        counts[configuration] += len(items)
    return dict(counts)
