"""Time to suggest the next measurement, at 4,800 and 10^12 configurations, of which 60 are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.baselines.synthetic_search import suggested
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.synthetic.backend import SyntheticSource
from benchmarks.workloads.synthetic.families import FAMILIES, SyntheticCase, synthetic_case
from benchmarks.workloads.synthetic.ground_truth import true_profile
from circinus.planning.sampler import PlanCostSampler, StoppingRule
from circinus.planning.sampler.acquisition import QueryBelief, select_next_configuration
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.feasibility import feasibility_probability
from circinus.planning.sampler.mean_estimation import estimate_mean_scores
from circinus.planning.sampler.surrogate import Surrogate
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.profiling.measurement.time_estimator import measurement_cost_model
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.specification import Configuration

AIM_S = 0.02
MEASURED = 60
_CHOICES = {"prepare": (5, 1, 2), "find": (3, 1, 2), "hear": (4, 1, 2), "answer": (5, 1, 2)}
"""Choices for 10 x 6 x 8 x 10 = 4,800 configurations."""
_ITEMS = (8, 8, 8, 8, 16, 24, 32, 64, 128, 300)
"""Numbers of items that configurations are measured on, with equal probability."""
_NEAR = 0.5
"""Share of the measured configurations near the optimum."""


@dataclass(frozen=True)
class Times:
    """Wall and CPU times of n calls."""

    name: str
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @classmethod
    def of(cls, name: str, calls: Sequence[Callable[[], object]]) -> Times:
        """Time the calls, one after the other."""
        wall_s, cpu_s = [], []
        for call in calls:
            start_s, start_cpu_s = perf_counter(), process_time()
            call()
            wall_s.append(perf_counter() - start_s)
            cpu_s.append(process_time() - start_cpu_s)
        return cls(name, tuple(wall_s), tuple(cpu_s))

    def record(self) -> dict[str, Any]:
        """Return a row for a result file."""
        return {
            "name": self.name,
            "calls": len(self.wall_s),
            "wall_s_median": float(np.median(self.wall_s)),
            "wall_s_p90": float(np.percentile(self.wall_s, 90)),
            "cpu_s_median": float(np.median(self.cpu_s)),
        }

    def figure(self, aim_s: float | None) -> Figure:
        """Return a figure of the median."""
        record = self.record()
        note = f"p90 {1e3 * record['wall_s_p90']:.0f} ms; CPU time {1e3 * record['cpu_s_median']:.0f} ms, median"
        return Figure(self.name, record["wall_s_median"], aim_s, "lower", "s", note)


def suggestion(repeats: int, console: Console) -> PartResult:
    """Time suggestions after new configurations and after more items of measured ones, in turns."""
    smooth = FAMILIES[0]
    small = synthetic_case(replace(smooth, choices={0: _CHOICES}), 0, seed=0)
    assert small.configurations == 4_800
    large = synthetic_case(smooth, 12, seed=0)
    jobs: list[tuple[float | None, Callable[[], Times]]] = [
        (AIM_S, lambda: _surrogate("4,800 configurations: surrogate", small, repeats)),
        (AIM_S, lambda: _assessments("4,800 configurations: whole suggestion", small, repeats)),
        (AIM_S, lambda: _assessments("10^12 configurations: whole suggestion", large, repeats)),
        (None, lambda: _optuna("4,800 configurations: Optuna TPE", small, repeats)),
        (None, lambda: _optuna("10^12 configurations: Optuna TPE", large, repeats)),
    ]
    done = [(aim_s, job()) for aim_s, job in track(jobs, "suggestions", console=console)]
    return [times.figure(aim_s) for aim_s, times in done], [times.record() for _, times in done]


class Measured:
    """Measurements of a growing number of configurations of a case."""

    def __init__(self, case: SyntheticCase, rng: np.random.Generator) -> None:
        self.case = case
        self._rng = rng
        self._items: dict[Configuration, int] = {}
        self._space = ConfigurationSpace.of(case.model.pipeline)
        dataset = SyntheticSource(case.model).dataset(case.model.pipeline, 0)
        self._order = np.array(dataset.profiling_items)
        strata = [dataset.items[index].strata for index in dataset.profiling_items]
        metric, count = case.model.pipeline.metric, max_measured_configurations(case.model.pipeline)
        self._confidence = RunConfidence.of_run(metric, strata, case.query.risk, count)
        self._profiles: dict[tuple[Configuration, int], ConfigurationProfile] = {}

    def add(self, configurations: Sequence[Configuration]) -> None:
        """Measure configurations on random numbers of items."""
        for configuration in configurations:
            self._items[configuration] = int(self._rng.choice(_ITEMS))

    def add_some(self, count: int) -> None:
        """Measure `count` more configurations, near the optimum or anywhere."""
        target = len(self._items) + count
        (code,) = self._space.encode([self.case.optimum.configuration])
        while len(self._items) < target:
            if self._rng.random() < _NEAR:
                drawn = code
                for _ in range(int(self._rng.integers(1, 4))):
                    neighbours = self._space.neighbours(drawn)
                    drawn = neighbours[int(self._rng.integers(len(neighbours)))]
            else:
                (drawn,) = self._space.random(self._rng, 1)
            self.add([c for c in self._space.decode(drawn[None]) if c not in self._items])

    def add_items(self) -> None:
        """Measure one configuration on eight more items."""
        more = [c for c, items in self._items.items() if items + 8 <= len(self._order)]
        self._items[more[int(self._rng.integers(len(more)))]] += 8

    def forget_one(self) -> None:
        """Forget one configuration, so that their number stays constant."""
        self._items.pop(list(self._items)[int(self._rng.integers(len(self._items)))])

    def profile(self) -> PipelineProfile:
        """Return the profile that profiling passes to the sampler."""
        measured = tuple(self._profile(configuration, items) for configuration, items in self._items.items())
        whole = true_profile(self.case.model, ())
        unmeasured = self.case.configurations - len(measured)
        return replace(whole, configurations=measured, unmeasured=unmeasured, risk=self.case.query.risk)

    def _profile(self, configuration: Configuration, items: int) -> ConfigurationProfile:
        key = configuration, items
        if key not in self._profiles:
            chosen = self._order[:items]
            (whole,) = true_profile(self.case.model, [configuration]).configurations
            (accuracy,) = self._confidence.bounds(whole.scores[chosen][None])
            self._profiles[key] = replace(
                whole,
                items=chosen,
                scores=whole.scores[chosen],
                accuracy=accuracy,
                input_bytes=whole.input_bytes[chosen],
                operators={name: _beginning(operator, chosen) for name, operator in whole.operators.items()},
            )
        return self._profiles[key]


def _beginning(operator: OperatorProfile, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> OperatorProfile:
    return replace(operator, service_s=operator.service_s[chosen], output_bytes=operator.output_bytes[chosen])


def _growing(case: SyntheticCase, repeats: int) -> list[PipelineProfile]:
    """Return the profile after each step, with about `MEASURED` configurations."""
    explorer = PlanCostSampler(case.specification, case.model.pipeline.name)
    measured = Measured(case, np.random.default_rng(0))
    measured.add(explorer.initial_design())
    measured.add_some(MEASURED - len(explorer.initial_design()))
    profiles = [measured.profile()]
    for step in range(repeats):
        if step % 2:
            measured.forget_one()
            measured.add_some(1)
        else:
            measured.add_items()
        profiles.append(measured.profile())
    return profiles


def _assessments(name: str, case: SyntheticCase, repeats: int) -> Times:
    """Time the sampler, which has seen the profile of the step before."""
    explorer = PlanCostSampler(case.specification, case.model.pipeline.name)
    explorer.initial_design()
    first, *steps = _growing(case, repeats)

    def assess(profile: PipelineProfile) -> object:
        return explorer.suggest(profile, measurement_cost_model(case.model.pipeline, profile))

    assess(first)
    return Times.of(name, [partial(assess, profile) for profile in steps])


def _surrogate(name: str, case: SyntheticCase, repeats: int) -> Times:
    """Time fitting the surrogate, predicting all configurations and choosing by given costs."""
    space, slo = ConfigurationSpace.of(case.model.pipeline), case.query.slos.accuracy
    assert slo is not None
    everything, rng = space.enumerate(case.configurations), np.random.default_rng(0)
    costs = rng.lognormal(size=(len(everything), 2))
    index_of = {configuration: place for place, configuration in enumerate(space.decode(everything))}

    def suggest(profile: PipelineProfile) -> None:
        evidence = estimate_mean_scores([c.scores for c in profile.configurations], profile.dataset_items, 1.0)
        codes = space.encode([c.configuration for c in profile.configurations])
        belief = Surrogate.fit(space, codes, evidence.means, evidence.variances).predict(everything)
        measured = np.zeros(len(everything), dtype=bool)
        measured[[index_of[c.configuration] for c in profile.configurations]] = True
        probability = feasibility_probability(belief.mean, belief.deviation, slo.threshold, at_least=True)
        sure = measured & (probability > 0.95)
        seconds = np.ones(len(everything))
        exact = np.where(sure[:, None], costs, np.inf)
        outlook = QueryBelief(
            probability, sure, measured, seconds, seconds, costs, 0.1 * ~measured, 0 * costs, exact, weight=1.0
        )
        select_next_configuration([outlook], StoppingRule(), saving_s=1.0)

    first, *steps = _growing(case, repeats)
    suggest(first)
    return Times.of(name, [partial(suggest, profile) for profile in steps])


def _optuna(name: str, case: SyntheticCase, repeats: int) -> Times:
    """Time a general library after the same number of trials. Its Gaussian process is left out, as it needs PyTorch."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    rng = np.random.default_rng(0)

    def step() -> Any:
        trial = study.ask()
        suggested(case, trial)
        return trial

    def tell(trial: Any) -> None:
        trial.set_constraint("accuracy", float(rng.normal()))
        study.tell(trial, float(rng.lognormal()))

    for _ in range(MEASURED):
        tell(step())
    return Times.of(name, [lambda: study.tell(step(), 1.0) for _ in range(repeats)])
