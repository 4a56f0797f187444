"""General-purpose search: Optuna's tree-structured Parzen estimator with constraints.

Akiba et al., "Optuna", KDD 2019; Bergstra et al., NIPS 2011; constraints after Watanabe & Hutter, "c-TPE", IJCAI 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.baselines.search.measured_plans import cheapest_plan, mean_scores
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.specification import Configuration, KnobValues, Pipeline

_LIMITS = ("accuracy", "latency", "cost")
_WORST = 1e6


@dataclass(frozen=True)
class OptunaConstrained:
    """Search with a fixed number of trials over the knobs; placements are computed, which saves three quarters.

    A trial measures its configuration on all items. Repeated configurations cost nothing, nor do configurations that
    fit nowhere. The objective is the cost of the cheapest placement within the latency limit (of the fastest, if none
    is). The constraints are the violations of score, latency and cost limits. Prefixes are reused. A case is reported
    as infeasible if no trial met the SLOs.
    """

    trials: int = 40
    reuse_prefixes: bool = True

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"Optuna TPE {self.trials}"

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        numbers = {configuration: k for k, configuration in enumerate(meter.space.configurations)}

        def objective(trial: Any) -> float:
            cost, beyond = self._evaluate(case, meter, numbers[suggested(meter.space.pipeline, trial)])
            for limit, value in beyond.items():
                trial.set_constraint(limit, value)
            return cost

        sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)))
        optuna.create_study(sampler=sampler).optimize(objective, n_trials=self.trials)
        return cheapest_plan(case, meter, case.accurate(mean_scores(meter)))

    def _evaluate(self, case: Case, meter: Meter, configuration: int) -> tuple[float, dict[str, float]]:
        """Return (objective, violation of each limit, at most 0 if met)."""
        fits = meter.space.fits[configuration]
        if not fits.any():
            return _WORST, dict.fromkeys(_LIMITS, _WORST)
        meter.measure(configuration, meter.space.items)
        latency_s, cost = meter.latency_s[configuration], meter.cost_usd_per_h[configuration]
        in_time = latency_s <= case.latency_s
        placement = int(np.where(in_time, cost, np.inf).argmin() if in_time.any() else latency_s.argmin())
        beyond = (
            case.sign * (case.threshold - float(meter.scores(configuration).mean())),
            float(latency_s[placement]) - case.latency_s,
            float(cost[placement]) - case.cost_usd_per_h,
        )
        return float(cost[placement]), dict(zip(_LIMITS, beyond, strict=True))


def suggested(pipeline: Pipeline, trial: Any) -> Configuration:
    """Return the configuration of a trial: ordered knobs are numbers, others categories."""
    operators: dict[str, KnobValues] = {}
    for operator in pipeline.operators:
        values: dict[str, Any] = {}
        for knob in operator.knobs:
            if any(values.get(other) not in allowed for other, allowed in knob.only_if.items()):
                continue
            label, numbers = f"{operator.name}.{knob.name}", range(len(knob.choices))
            if knob.ordered:
                index = trial.suggest_int(label, 0, len(numbers) - 1)
            else:
                index = trial.suggest_categorical(label, list(numbers))
            values[knob.name] = knob.choices[index]
        operators[operator.name] = KnobValues.of(values)
    return Configuration.of(operators)
