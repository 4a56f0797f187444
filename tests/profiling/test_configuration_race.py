"""Whole measurements on matrices of scores: they end, are seldom wrong, and decide by what is known alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples, share_of
from circinus.profiling.race.configuration_race import ConfigurationRace, look_schedule
from circinus.profiling.race.race_state import ConfigurationVerdict, Verdict
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.settings import PROFILING
from circinus.specification import AccuracySlo, Configuration, KnobValues, LatencySlo, MetricSpec, Query, Slos

OPERATOR = "only"
FIRST_LOOK = 8


@dataclass(frozen=True)
class Case:
    """Scores and CPU seconds of every configuration on every item, in the order of measuring."""

    scores: np.ndarray
    """(k, N)"""
    cpu_s: np.ndarray
    """(k, N)"""
    labels: np.ndarray
    """(N,) strata"""
    objectives: PipelineSlos
    direction: str = "maximize"

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        return tuple(Configuration(((OPERATOR, KnobValues((("number", k),))),)) for k in range(len(self.scores)))

    def standings(self) -> ConfigurationRace:
        metric = MetricSpec(name="close", uses="sample_data:close", direction=self.direction)
        strata = [{"noise": str(label)} for label in self.labels]
        latencies = self.objectives.latency_percentiles
        confidence = RunConfidence.of_run(metric, strata, self.objectives.risk, len(self.scores), latencies)
        return ConfigurationRace(self.configurations, confidence, self.objectives)

    def footprints(self, standings: ConfigurationRace) -> ResourceUsage:
        items = np.array([min(standings.items(c), FIRST_LOOK) for c in self.configurations])
        most = min(FIRST_LOOK, self.scores.shape[1])
        cpu_s = np.where(np.arange(most) < items[:, None], self.cpu_s[:, :most], np.nan)[:, None, :]
        memory = np.where(items[:, None] > 0, 1.0, np.nan)
        return ResourceUsage(
            cpu_s, np.where(np.isnan(cpu_s), np.nan, 1.0), memory, items, np.arange(len(items))[:, None]
        )

    def begin(self, known: Sequence[int], fails: Sequence[int] = ()) -> ConfigurationRace:
        """Everything learnt at once, as somebody does who goes on from what is known."""
        standings = self.standings()
        for configuration, scores, items in zip(self.configurations, self.scores, known, strict=True):
            standings.update_scores(configuration, scores[:items])
        for number in fails:
            standings.mark_failed(self.configurations[number])
        standings.update_usage(self.footprints(standings))
        return standings

    def run(self, standings: ConfigurationRace, stop: Callable[[int], bool] = lambda steps: False) -> int:
        """Go on until nothing is open, or `stop`; the number of steps."""
        pace_s = self.cpu_s.mean(axis=1)

        def seconds(configuration: Configuration, items: int) -> float:
            return float(pace_s[self.configurations.index(configuration)]) * (items - standings.items(configuration))

        steps = 0
        while not stop(steps) and (step := standings.next_step(seconds, math.inf)) is not None:
            configuration = self.configurations[step.configuration]
            assert standings.items(configuration) < step.target <= self.scores.shape[1]
            standings.update_scores(configuration, self.scores[step.configuration, : step.target])
            steps += 1
        return steps

    def known(self, standings: ConfigurationRace) -> list[int]:
        return [standings.items(configuration) for configuration in self.configurations]

    def first(self) -> list[int]:
        return [min(FIRST_LOOK, self.scores.shape[1])] * len(self.scores)

    def truth(self) -> np.ndarray:
        """(k, q)"""
        return np.array(
            [
                [o.accuracy is None or o.accuracy.is_met_by(float(mean)) for o in self.objectives.requirements]
                for mean in self.scores.mean(axis=1)
            ]
        ).reshape(len(self.scores), -1)


def _queries(thresholds: Sequence[float | None], comparison: str = ">=", percentile: float = 60.0) -> list[Query]:
    queries = []
    for threshold in thresholds:
        accuracy = None if threshold is None else AccuracySlo(threshold=threshold, comparison=comparison)
        slos = Slos(accuracy=accuracy, latency=LatencySlo(limit=1.0, percentile=percentile))
        queries.append(Query(name=f"q{threshold}", pipeline="p", source="here", rate_per_s=1.0, slos=slos))
    return queries


def _random(
    rng: np.random.Generator,
    count: int = 6,
    items: int = 150,
    thresholds: Sequence[float | None] = (0.45, 0.6, 0.75),
    direction: str = "maximize",
    risk: float = 0.05,
) -> Case:
    """Better configurations take more on the whole; strata and the items themselves are common to all."""
    labels = rng.integers(0, 3, items)
    easiness = 0.2 * labels + rng.normal(0, 0.15, items)
    skill = np.sort(rng.uniform(0.2, 0.7, count)) + rng.normal(0, 0.05, count)
    scores = np.clip(skill[:, None] + easiness + rng.normal(0, 0.1, (count, items)), 0, 1)
    comparison = ">=" if direction == "maximize" else "<="
    queries = [
        query.model_copy(update={"risk": risk})
        for query in _queries([t if t is None or direction == "maximize" else 1 - t for t in thresholds], comparison)
    ]
    cpu_s = np.linspace(1.0, 2.0, count)[:, None] * rng.uniform(0.8, 1.2, (count, 1)) * rng.uniform(0.9, 1.1, items)
    scores = scores if direction == "maximize" else 1 - scores
    return Case(scores, cpu_s, labels, PipelineSlos.of_queries(queries, "p"), direction)


def _verdicts(judgements: dict[Configuration, ConfigurationVerdict]) -> list[Verdict]:
    return [judgement.verdict for judgement in judgements.values()]


def test_one_looks_again_after_some_items_more() -> None:
    assert look_schedule(200) == (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 200)
    assert look_schedule(96) == (8, 16, 24, 32, 40, 48, 56, 64, 80, 96)
    assert look_schedule(9) == (8, 9)
    assert look_schedule(8) == (8,)
    assert look_schedule(3) == (3,)


@given(items=st.integers(1, 5000))
def test_looks_grow_by_at_most_a_fifth_or_eight_items_and_end_with_all(items: int) -> None:
    found = np.array(look_schedule(items))
    assert found[-1] == items
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps <= np.maximum(8, found[:-1] / 4)).all()


@given(seed=st.integers(0, 10_000), direction=st.sampled_from(["maximize", "minimize"]))
@settings(max_examples=examples(40))
def test_it_ends_with_everything_settled_and_named(seed: int, direction: str) -> None:
    rng = np.random.default_rng(seed)
    case = _random(rng, thresholds=[(0.5,), (None, 0.6), (0.45, 0.6, 0.75), ()][seed % 4], direction=direction)
    standings = case.begin(case.first())
    case.run(standings)
    judgements = standings.verdicts()
    assert Verdict.UNDECIDED not in _verdicts(judgements)
    assert standings.state.settled.all()
    assert standings.target_items.tolist() == [standings.items(c) for c in case.configurations]
    kept = standings.state.certainly_met
    for k, (configuration, judgement) in enumerate(judgements.items()):
        if kept[k].any():
            assert standings.items(configuration) >= case.objectives.latency_items
        assert judgement.reason


@pytest.mark.slow
def test_verdicts_of_whole_runs_are_wrong_at_most_as_often_as_promised() -> None:
    """Orders are all that is random; thresholds just beside means are the ones that are misjudged."""
    runs, promised = share_of(200), 0.2
    rng = np.random.default_rng(12)
    truth_of = _random(np.random.default_rng(2), count=5, items=64, risk=promised)
    means = truth_of.scores.mean(axis=1)
    thresholds = [float(means[1] + 0.004), float(means[3] - 0.004), float(means[4] + 0.004)]
    queries = [query.model_copy(update={"risk": promised}) for query in _queries(thresholds)]
    wrong = lost = measured = 0
    for _ in range(runs):
        order = rng.permutation(64)
        case = Case(
            truth_of.scores[:, order],
            truth_of.cpu_s[:, order],
            truth_of.labels[order],
            PipelineSlos.of_queries(queries, "p"),
        )
        standings = case.begin(case.first())
        case.run(standings)
        truth, standing = case.truth(), standings.state
        wrong += bool((standing.meets & ~truth).any() or (standing.fails & truth).any())
        lost += not _keeps_the_cheapest(case, standings)
        measured += sum(case.known(standings))
    assert wrong / runs <= promised
    assert lost / runs <= promised
    assert measured < 0.9 * runs * truth_of.scores.size


def _keeps_the_cheapest(case: Case, standings: ConfigurationRace) -> bool:
    """Whether for each objective something is kept that truly keeps it and costs hardly more than the cheapest."""
    total_s, truth = case.footprints(standings).total_cpu_s, case.truth()
    kept = standings.state.certainly_met & truth
    for q in range(truth.shape[1]):
        if truth[:, q].any():
            best = total_s[truth[:, q]].min()
            if not kept[:, q].any() or total_s[kept[:, q]].min() > best * (1 + PROFILING.usage_tolerance) + 1e-12:
                return False
        elif kept[:, q].any():
            return False
    return True


@given(seed=st.integers(0, 10_000), closeness=st.sampled_from([0.01, 0.1, 1.0]))
@settings(max_examples=examples(80))
def test_what_is_dropped_never_costs_more_than_the_tolerance(seed: int, closeness: float) -> None:
    """Cost is one number here; many configurations lie within the tolerance, and many scores are equal.

    At a risk of a millionth hardly any of the examples can be wrong by bad luck.
    """
    rng = np.random.default_rng(seed)
    case = _random(rng, count=8, items=80, thresholds=(0.45, 0.55, 0.6, 0.75), risk=1e-6)
    twins = rng.integers(0, 8, 3)
    case.scores[twins] = case.scores[np.roll(twins, 1)]
    case.cpu_s[:] = 1 + closeness * (case.cpu_s / case.cpu_s.mean() - 1)
    standings = case.begin(case.first())
    case.run(standings)
    assert _keeps_the_cheapest(case, standings)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=examples(32))
def test_decisions_follow_from_what_is_known_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = _random(rng, thresholds=(0.45, None, 0.7))
    standings = case.begin(case.first())
    case.run(standings)
    known = case.known(standings)
    at_once = case.begin(known)
    assert at_once.verdicts() == standings.verdicts()
    # The same items in other increments, in another order of configurations, weighed before and after.
    other = case.begin([0] * len(known))
    pieces = [
        (k, int(end)) for k, items in enumerate(known) for end in {*rng.integers(1, items + 1, 3).tolist(), items}
    ]
    for position in rng.permutation(len(pieces)).tolist():
        k, end = pieces[position]
        if end > other.items(case.configurations[k]):
            other.update_scores(case.configurations[k], case.scores[k, :end])
        begun = all(n >= FIRST_LOOK for n in case.known(other))  # partners are chosen at the first weighing
        if begun and rng.random() < 0.3:
            other.update_usage(case.footprints(other))
    other.update_usage(case.footprints(other))
    assert other.verdicts() == standings.verdicts()
    for found in (at_once, other):
        np.testing.assert_array_equal(found.state.certainly_met, standings.state.certainly_met)
        assert case.run(found) == 0


@given(seed=st.integers(0, 10_000), stopped=st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=examples(32))
def test_who_stops_and_begins_again_ends_the_same(seed: int, stopped: list[int]) -> None:
    case = _random(np.random.default_rng(seed))
    through = case.begin(case.first())
    case.run(through)
    known = case.first()
    for after in stopped:
        standings = case.begin(known)
        case.run(standings, lambda steps, after=after: steps >= after)  # type: ignore[misc]
        known = case.known(standings)
    standings = case.begin(known)
    case.run(standings)
    assert case.known(standings) == case.known(through)
    assert standings.verdicts() == through.verdicts()


def test_a_configuration_that_fails_is_out_and_what_it_stood_in_for_is_asked_again() -> None:
    """The first is cheaper and as good; when it fails, the second is needed."""
    rng = np.random.default_rng(0)
    scores = np.clip(0.8 + rng.normal(0, 0.05, (2, 100)), 0, 1)
    cpu_s = np.array([[1.0], [2.0]]) * np.ones(100)
    case = Case(scores, cpu_s, np.zeros(100), PipelineSlos.of_queries(_queries([0.7]), "p"))
    standings = case.begin([100, 8])
    assert _verdicts(standings.verdicts()) == [Verdict.FEASIBLE, Verdict.DOMINATED]
    standings.mark_failed(case.configurations[0])
    assert standings.failed(case.configurations[0])
    assert list(standings.verdicts()) == [case.configurations[1]]
    assert _verdicts(standings.verdicts()) == [Verdict.UNDECIDED]
    assert case.run(standings) > 0
    assert _verdicts(standings.verdicts()) == [Verdict.FEASIBLE]


def test_a_partner_that_fails_outdoes_nobody() -> None:
    rng = np.random.default_rng(0)
    worse = np.clip(0.3 + rng.normal(0, 0.05, 100), 0, 1)
    scores = np.vstack([worse + 0.3, worse])
    case = Case(
        scores, np.array([[1.0], [2.0]]) * np.ones(100), np.zeros(100), PipelineSlos.of_queries(_queries([0.4]), "p")
    )
    standings = case.begin([100, 99])
    assert standings.verdicts()[case.configurations[1]].verdict is Verdict.INFEASIBLE
    near = Case(scores, case.cpu_s, case.labels, PipelineSlos.of_queries(_queries([0.3]), "p"))
    pair = near.begin([60, 60])
    assert pair.state.settled[1]
    pair.mark_failed(near.configurations[0])
    assert not pair.state.settled[1]
    assert len(near.begin([60, 60], fails=[0, 1]).verdicts()) == 0


def test_nothing_is_open_for_what_failed_everywhere() -> None:
    case = _random(np.random.default_rng(3))
    standings = case.begin(case.first(), fails=range(len(case.scores)))
    assert case.run(standings) == 0
    assert standings.verdicts() == {}


def test_nobody_measured_it_so_it_is_undecided_but_no_next_step() -> None:
    """The first look is not a matter of steps."""
    case = _random(np.random.default_rng(3))
    standings = case.begin([0] * len(case.scores))
    assert set(_verdicts(standings.verdicts())) == {Verdict.UNDECIDED}
    assert case.run(standings) == 0


def test_without_queries_all_are_measured_for_planning() -> None:
    case = _random(np.random.default_rng(4), thresholds=())
    standings = case.begin(case.first())
    case.run(standings)
    verdicts = standings.verdicts()
    wanted_items = next(look for look in standings.checkpoints if look >= case.objectives.latency_items)
    for configuration, judgement in verdicts.items():
        wanted = judgement.verdict is Verdict.FEASIBLE
        assert standings.items(configuration) == (wanted_items if wanted else standings.items(configuration))
    assert Verdict.FEASIBLE in _verdicts(verdicts)
    assert Verdict.UNDECIDED not in _verdicts(verdicts)


def test_scores_beyond_the_range_are_refused() -> None:
    case = _random(np.random.default_rng(4))
    standings = case.standings()
    with pytest.raises(ValueError, match=r"outside \[0\.0, 1\.0\]"):
        standings.update_scores(case.configurations[0], np.array([0.5, 1.5]))


def test_pruning_spares_what_plain_sequences_would_measure() -> None:
    """One configuration after the other would be measured until its own bounds leave the thresholds."""
    case = _random(np.random.default_rng(6), count=10, items=400)
    standings = case.begin(case.first())
    case.run(standings)
    alone = 0
    for k in range(10):
        one = Case(case.scores[k : k + 1], case.cpu_s[k : k + 1], case.labels, case.objectives)
        single = one.begin([FIRST_LOOK])
        one.run(single)
        alone += sum(one.known(single))
    assert sum(case.known(standings)) < 0.8 * alone
