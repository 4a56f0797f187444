"""Search of Vulcan (Zhang et al., "Vulcan: Automatic Query Planning for Live ML Analytics", NSDI 2024).

Our understanding of the paper and of the public description of its reproduction by two authors of the Circinus paper:
for each placement a Bayesian optimization of a utility, performance over resources. Performance rewards slack, half for
accuracy and half for latency, so that 0 just meets the SLOs. A placement starts with 5 random configurations, is
abandoned after 5 evaluations without positive utility, and ends when 3 in a row do not improve on the best by 10 %. The
evaluated plan with the highest utility is picked.

Our own details: both slacks are relative (to the score's range of 1 and to the latency limit), the resource is the
plan's cost over its limit, and configurations that exceed a placement's memory are not tried on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.baselines.search.gaussian_process import GridProcess, expected_improvement
from benchmarks.baselines.search.knob_encoding import knob_positions
from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import BoolArray, FloatArray, IntArray

_EPSILON = 1e-12


@dataclass(frozen=True)
class VulcanStyle:
    """Search that is charged for each configuration on all items once, for any number of placements.

    Prefixes are not shared. If the pick violates the SLOs, the plan with the highest utility that meets them is used
    instead, over all placements of measured configurations. If no plan meets them, the case is reported as infeasible.
    """

    first_configurations: int = 5
    hopeless: int = 5
    patience: int = 3
    least_gain: float = 0.1
    name: str = "Vulcan-style"
    reuse_prefixes: bool = False

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        process = GridProcess(knob_positions(meter.space.pipeline, meter.space.configurations))
        means = np.full(len(meter.items), np.nan)
        evaluated = np.zeros(meter.space.fits.shape, dtype=bool)

        def evaluate(configuration: int, placement: int) -> float:
            if not meter.items[configuration]:
                means[configuration] = meter.measure(configuration, meter.space.items).mean()
            evaluated[configuration, placement] = True
            return float(self._utilities(case, meter, means)[configuration, placement])

        for placement in range(len(meter.space.placements)):
            candidates = np.flatnonzero(meter.space.fits[:, placement])
            if len(candidates):
                self._optimise(process, candidates, partial(evaluate, placement=placement), rng)
        utilities = self._utilities(case, meter, means)
        feasible = case.accurate(means)[:, None] & case.affordable(meter.latency_s, meter.cost_usd_per_h)
        pick = _greatest(utilities, evaluated)
        return pick if pick and feasible[pick.configuration, pick.placement] else _greatest(utilities, feasible)

    def _optimise(
        self, process: GridProcess, candidates: IntArray, evaluate: Callable[[int], float], rng: np.random.Generator
    ) -> None:
        """Maximize the utility over the candidates of one placement."""
        seen = [int(k) for k in rng.permutation(candidates)[: self.first_configurations]]
        values = [evaluate(k) for k in seen]
        poor, stale = 0, 0
        while len(seen) < len(candidates) and poor < self.hopeless and stale < self.patience:
            best = max(values)
            remaining = np.setdiff1d(candidates, seen)
            mean, std = process.posterior(np.array(seen), np.array(values))
            chosen = int(remaining[expected_improvement(mean[remaining], std[remaining], best).argmax()])
            utility = evaluate(chosen)
            seen.append(chosen)
            values.append(utility)
            poor += utility <= 0
            stale = stale + 1 if utility < best + self.least_gain * abs(best) else 0

    def _utilities(self, case: Case, meter: Meter, means: FloatArray) -> FloatArray:
        """Return (k, p) utilities of measured plans; NaN or infinite for others."""
        accuracy = case.sign * (means - case.threshold)[:, None]
        latency = 1.0 - meter.latency_s / max(case.latency_s, _EPSILON)
        resources = meter.cost_usd_per_h / max(case.cost_usd_per_h, _EPSILON)
        with np.errstate(invalid="ignore"):
            return np.asarray((0.5 * accuracy + 0.5 * latency) / np.maximum(resources, _EPSILON))


def _greatest(utilities: FloatArray, among: BoolArray) -> Answer | None:
    if not among.any():
        return None
    configuration, placement = np.unravel_index(np.where(among, utilities, -np.inf).argmax(), among.shape)
    return Answer(int(configuration), int(placement))
