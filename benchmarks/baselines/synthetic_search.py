"""Alternative searches: random configurations, and Optuna's constrained sampler.

Both measure a configuration on all items, reusing prefixes that have run, and are given its cheapest plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.families import SyntheticCase
from benchmarks.workloads.synthetic.ground_truth import cheapest_plan
from circinus.estimation import PlanCandidate
from circinus.profiling import SimulatedClock
from circinus.specification import Configuration, Knob, KnobValues, Query, Slos, knob_values

LIMITS = ("accuracy", "latency", "cost")


@dataclass(frozen=True)
class Trial:
    """A measured configuration."""

    configuration: Configuration
    ended_s: float
    """End on the simulated clock."""
    plan: PlanCandidate
    """Cheapest plan that meets the latency SLO, or the cheapest of all if none does."""
    beyond: tuple[float, float, float]
    """Violations of accuracy, latency and cost SLOs; at most 0 if met."""


class Trials:
    """Measures configurations on all items until a simulated time; the last trial may exceed it."""

    def __init__(self, case: SyntheticCase, seconds: float) -> None:
        self.done: list[Trial] = []
        self._case, self._seconds, self._clock = case, seconds, SimulatedClock()
        source = SyntheticSource(case.model, self._clock)
        pipeline = case.model.pipeline
        self._items = source.dataset(pipeline, 0).items
        self._runner = source.runner(source.addresses(pipeline, None), timeout_s=60.0)
        self._trials: dict[Configuration, Trial] = {}
        slos = case.query.slos
        self._latency_query = _with_slos(case.query, Slos(latency=slos.latency))
        self._unconstrained = _with_slos(case.query, Slos())

    @property
    def spent(self) -> bool:
        """True if the time is used up."""
        return self._clock() >= self._seconds

    def measure(self, configuration: Configuration) -> Trial:
        """Measure a configuration; repeated ones cost nothing."""
        if configuration in self._trials:
            return self._trials[configuration]
        with self._runner as runner:
            mean = float(np.mean(runner.measure(configuration, self._items).scores))
        case, slos = self._case, self._case.query.slos
        plan = cheapest_plan(case.model, self._latency_query, case.network, [configuration])
        plan = plan or cheapest_plan(case.model, self._unconstrained, case.network, [configuration])
        assert plan is not None, "every configuration fits into the cloud"
        estimate = plan.estimate
        beyond = (
            0.0 if slos.accuracy is None else slos.accuracy.threshold - mean - 1e-12,
            0.0 if slos.latency is None else estimate.latency_s.upper - slos.latency.limit_s,
            0.0 if slos.cost is None else estimate.cost_usd_per_h.lower - slos.cost.limit_usd_per_h,
        )
        trial = self._trials[configuration] = Trial(configuration, self._clock(), plan, beyond)
        self.done.append(trial)
        return trial


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the cheapest trial that meets all SLOs."""
    feasible = [trial for trial in trials if max(trial.beyond) <= 0]
    return min(feasible, key=lambda trial: trial.plan.estimate.cost_usd_per_h.lower, default=None)


def random_trials(case: SyntheticCase, seconds: float, seed: int) -> list[Trial]:
    """Measure uniformly random configurations (Bergstra & Bengio, JMLR 13, 2012)."""
    rng, trials = np.random.default_rng(seed), Trials(case, seconds)
    choices = {operator.name: knob_values(operator) for operator in case.model.pipeline.operators}
    tries = 0
    while not trials.spent and tries < 20 * (len(trials.done) + 1):
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}
        trials.measure(Configuration.of(drawn))
        tries += 1
    return trials.done


def tpe_trials(case: SyntheticCase, seconds: float, seed: int) -> list[Trial]:
    """Measure configurations of Optuna's tree-structured Parzen estimator with constraints.

    Akiba et al., "Optuna", KDD 2019; Bergstra et al., NIPS 2011; constraints after Watanabe & Hutter, "c-TPE", 2023.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials, tries = Trials(case, seconds), 0
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    while not trials.spent and tries < 20 * (len(trials.done) + 1):
        trial = study.ask()
        measured = trials.measure(suggested(case, trial))
        for limit, value in zip(LIMITS, measured.beyond, strict=True):
            trial.set_constraint(limit, value)
        study.tell(trial, measured.plan.estimate.cost_usd_per_h.lower)
        tries += 1
    return trials.done


BASELINES: dict[str, Callable[[SyntheticCase, float, int], list[Trial]]] = {
    "random": random_trials,
    "Optuna TPE": tpe_trials,
}


def _with_slos(query: Query, slos: Slos) -> Query:
    return query.model_copy(update={"slos": slos})


def suggested(case: SyntheticCase, trial: Any) -> Configuration:
    """Return the configuration of an Optuna trial: ordered knobs are numbers, others categories."""
    operators: dict[str, KnobValues] = {}
    for operator in case.model.pipeline.operators:
        values: dict[str, Any] = {}
        for knob in operator.knobs:
            if all(values.get(other) in allowed for other, allowed in knob.only_if.items()):
                values[knob.name] = knob.choices[_choice(operator.name, knob, trial)]
        operators[operator.name] = KnobValues.of(values)
    return Configuration.of(operators)


def _choice(operator: str, knob: Knob, trial: Any) -> int:
    label, count = f"{operator}.{knob.name}", len(knob.choices)
    if knob.ordered:
        return int(trial.suggest_int(label, 0, count - 1))
    return int(trial.suggest_categorical(label, list(range(count))))
