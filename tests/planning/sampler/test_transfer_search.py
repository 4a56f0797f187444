"""Complete searches on arrays: a good source saves measurements, a misleading one costs a few and does no harm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budget import half_share_of
from circinus.arrays import FloatArray
from circinus.planning.sampler.acquisition import QueryBelief, select_next_configuration
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.feasibility import feasibility_probability
from circinus.planning.sampler.initial_design import covering_array
from circinus.planning.sampler.reservation_index import StoppingRule
from circinus.planning.sampler.transfer_learning import TransferSources, missing_from_design, warm_start_design
from circinus.profiling.store.transfer_sources import SourceRuns, SourceScores
from circinus.specification import AccuracySlo, Knob, OperatorSpec
from planning.sampler.spaces import pipeline_of

PIPELINE = pipeline_of(
    *(
        OperatorSpec(
            name=name, uses=f"m:{name}", after=after, knobs=[Knob(name="k", choices=[1, 2, 3, 4, 5], ordered=True)]
        )
        for name, after in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    )
)
SPACE = ConfigurationSpace.of(PIPELINE)
CODES = SPACE.enumerate()
LISTED = SPACE.decode(CODES)
DESIGN = SPACE.decode(covering_array(SPACE))
NOISE = 0.01
SLO = AccuracySlo(threshold=0.5, comparison=">=")
NOTHING = SourceRuns((), np.zeros((0, 20)), np.zeros((0, 20)), np.zeros(20), {})


@dataclass(frozen=True)
class Ended:
    measured: int
    cost_over_optimum: float
    used: str | None


def draw(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return (k,) rugged scores with diminishing gains and (k,) costs; a fifth of the scores is feasible."""
    gains = [np.concatenate([[0.0], rng.dirichlet(np.ones(4)).cumsum()]) * rng.uniform(0.1, 0.3) for _ in range(3)]
    truth = np.sum([gain[CODES[:, i]] for i, gain in enumerate(gains)], axis=0) + rng.normal(0, 0.02, len(CODES))
    cost = np.exp(CODES @ rng.uniform(0.1, 0.5, 3))
    return truth - float(np.quantile(truth, 0.8)) + SLO.threshold, np.asarray(cost)


def source_of(means: FloatArray, rng: np.random.Generator) -> SourceScores:
    scores = means[:, None] + rng.normal(0, 0.1, 20) + rng.normal(0, 0.02, (len(means), 20))
    return SourceScores("there", LISTED, scores, NOTHING)


def search(truth: FloatArray, cost: FloatArray, elsewhere: TransferSources, rng: np.random.Generator) -> Ended:
    """Run until no unmeasured configuration is worthwhile; a measured one has a decided accuracy SLO."""
    noise = rng.normal(0, NOISE, len(truth))
    if elsewhere.sources:
        before = elsewhere.initial_scores(CODES)
        assert before is not None
        rows = list(warm_start_design(before, [cost[:, None]], [SLO]))
    else:
        rows = [LISTED.index(configuration) for configuration in DESIGN]
    while True:
        measured = np.isin(np.arange(len(truth)), rows)
        prior = elsewhere.prior(CODES[rows], (truth + noise)[rows], np.full(len(rows), NOISE**2))
        next_owed = missing_from_design(DESIGN, [LISTED[row] for row in rows]) if prior.name is None else None
        if next_owed is not None:
            rows.append(LISTED.index(next_owed))
            continue
        belief = prior.belief(CODES)
        sure = measured & (truth >= SLO.threshold)
        kept = feasibility_probability(belief.mean, belief.deviation, SLO.threshold, at_least=True)
        outlook = QueryBelief(
            feasibility=np.where(measured, 0.0, kept),
            is_certain=sure,
            is_measured=measured,
            look_s=np.where(measured, 0.0, 1.0),
            settle_s=np.zeros(len(cost)),
            log_std=np.zeros(len(cost)),
            usd_per_h=cost[:, None],
            floor_usd_per_h=np.zeros((len(cost), 1)),
            certain_usd_per_h=np.where(sure, cost, np.inf)[:, None],
            weight=1.0,
        )
        choice = select_next_configuration([outlook], StoppingRule(0.01, 0.05, 0.05), saving_s=1.0)
        if not len(choice.ranking):
            best = float(np.where(sure, cost, np.inf).min())
            return Ended(len(rows), best / float(cost[truth >= SLO.threshold].min()), prior.name)
        rows.append(int(choice.ranking[0]))


def compared(seed: int, *, good: bool) -> tuple[Ended, Ended]:
    """Run with a source and without."""
    rng = np.random.default_rng(seed)
    truth, cost = draw(rng)
    if good:
        there = 0.8 * truth - 0.15 + rng.normal(0, 0.01, len(truth))
        ranks = [np.argsort(np.argsort(scores)) for scores in (truth, there)]
        assert np.corrcoef(*ranks)[0, 1] > 0.95
    else:
        there = truth.max() + truth.min() - truth if seed % 2 else rng.permutation(truth)
    elsewhere = TransferSources(PIPELINE, SPACE, (source_of(there, rng),))
    return (
        search(truth, cost, elsewhere, np.random.default_rng(seed)),
        search(truth, cost, TransferSources(PIPELINE, SPACE), np.random.default_rng(seed)),
    )


def test_a_source_that_ranks_alike_at_another_level_saves_measurements() -> None:
    pairs = [compared(seed, good=True) for seed in range(half_share_of(16))]
    assert all(ours.used == "there" for ours, _ in pairs)
    assert sum(ours.measured for ours, _ in pairs) < 0.6 * sum(without.measured for _, without in pairs)
    over = np.array([(ours.cost_over_optimum, without.cost_over_optimum) for ours, without in pairs])
    assert over[:, 0].mean() <= over[:, 1].mean() + 0.02


def test_a_misleading_source_costs_little_and_spoils_nothing() -> None:
    pairs = [compared(seed, good=False) for seed in range(half_share_of(16))]
    over = np.array([(ours.cost_over_optimum, without.cost_over_optimum) for ours, without in pairs])
    assert over[:, 0].mean() <= over[:, 1].mean() + 0.02
    assert sum(ours.measured for ours, _ in pairs) < 1.25 * sum(without.measured for _, without in pairs)
