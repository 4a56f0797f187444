"""What one could search with instead: configurations at random, and Optuna's constrained sampler.

Both measure a configuration on all items, with the prefixes that were run kept, and are told its cheapest plan.
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
    """One configuration that was measured."""

    configuration: Configuration
    ended_s: float
    """On the simulated clock."""
    plan: PlanCandidate
    """The cheapest that keeps the latency objective, where there is one; else the cheapest."""
    beyond: tuple[float, float, float]
    """By how much it exceeds accuracy, latency and cost objectives; kept where at most 0."""


class Trials:
    """Measures configurations, each on all items, until simulated seconds are spent; the last trial may take longer."""

    def __init__(self, case: SyntheticCase, seconds: float) -> None:
        """Nothing is measured yet."""
        self.done: list[Trial] = []
        self._case, self._seconds, self._clock = case, seconds, SimulatedClock()
        source = SyntheticSource(case.model, self._clock)
        pipeline = case.model.pipeline
        self._items = source.dataset(pipeline, 0).items
        self._runner = source.runner(source.addresses(pipeline, None), timeout_s=60.0)
        self._known: dict[Configuration, Trial] = {}
        slos = case.query.slos
        self._prompt = _asking(case.query, Slos(latency=slos.latency))
        self._anything = _asking(case.query, Slos())

    @property
    def spent(self) -> bool:
        """Whether no further trial may begin."""
        return self._clock() >= self._seconds

    def measure(self, configuration: Configuration) -> Trial:
        """Measure a configuration; what is known already costs nothing."""
        if configuration in self._known:
            return self._known[configuration]
        with self._runner as runner:
            mean = float(np.mean(runner.measure(configuration, self._items).scores))
        case, slos = self._case, self._case.query.slos
        plan = cheapest_plan(case.model, self._prompt, case.network, [configuration])
        plan = plan or cheapest_plan(case.model, self._anything, case.network, [configuration])
        assert plan is not None, "every configuration fits into the cloud"
        found = plan.estimate
        beyond = (
            0.0 if slos.accuracy is None else slos.accuracy.threshold - mean - 1e-12,
            0.0 if slos.latency is None else found.latency_s.upper - slos.latency.limit_s,
            0.0 if slos.cost is None else found.cost_usd_per_h.lower - slos.cost.limit_usd_per_h,
        )
        trial = self._known[configuration] = Trial(configuration, self._clock(), plan, beyond)
        self.done.append(trial)
        return trial


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Of those that keep everything the cheapest."""
    kept = [trial for trial in trials if max(trial.beyond) <= 0]
    return min(kept, key=lambda trial: trial.plan.estimate.cost_usd_per_h.lower, default=None)


def random_trials(case: SyntheticCase, seconds: float, seed: int) -> list[Trial]:
    """Configurations uniformly at random (Bergstra & Bengio, JMLR 13, 2012)."""
    rng, trials = np.random.default_rng(seed), Trials(case, seconds)
    choices = {operator.name: knob_values(operator) for operator in case.model.pipeline.operators}
    tries = 0
    while not trials.spent and tries < 20 * (len(trials.done) + 1):
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}
        trials.measure(Configuration.of(drawn))
        tries += 1
    return trials.done


def tpe_trials(case: SyntheticCase, seconds: float, seed: int) -> list[Trial]:
    """Optuna's tree-structured Parzen estimator with constraints.

    Akiba et al., "Optuna", KDD 2019; Bergstra et al., NIPS 2011; constraints after Watanabe & Hutter, "c-TPE", 2023.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials, tries = Trials(case, seconds), 0
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    while not trials.spent and tries < 20 * (len(trials.done) + 1):
        trial = study.ask()
        found = trials.measure(suggested(case, trial))
        for limit, value in zip(LIMITS, found.beyond, strict=True):
            trial.set_constraint(limit, value)
        study.tell(trial, found.plan.estimate.cost_usd_per_h.lower)
        tries += 1
    return trials.done


BASELINES: dict[str, Callable[[SyntheticCase, float, int], list[Trial]]] = {
    "random": random_trials,
    "Optuna TPE": tpe_trials,
}


def _asking(query: Query, slos: Slos) -> Query:
    return query.model_copy(update={"slos": slos})


def suggested(case: SyntheticCase, trial: Any) -> Configuration:
    """Ordered knobs as numbers, others as categories; one that does not exist under the others is not asked for."""
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
