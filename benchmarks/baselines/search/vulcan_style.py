"""The way of Vulcan (Zhang et al., "Vulcan: Automatic Query Planning for Live ML Analytics", NSDI 2024).

As we understand it from the paper and from the public description of its reproduction by two authors of the Circinus
paper: placement by placement a Bayesian optimisation of a utility, performance over resources. Performance rewards
slack, half for accuracy and half for latency, so that 0 is what just meets the SLOs. A placement begins with 5
configurations at random, is left after 5 evaluations with no positive utility, and ends when 3 in a row do not
improve on the best by 10 %. The evaluated plan of greatest utility is the pick.

What is ours: both slacks are relative (to the score's range of 1 and to the latency limit), the resource is the plan's
cost over its limit, configurations that do not fit a placement's memory are not tried on it.
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

_LEAST = 1e-12


@dataclass(frozen=True)
class VulcanStyle:
    """Charged: every configuration that it evaluates on all items, once, whatever the placements; no shared prefixes.

    Where the pick does not keep the SLOs, we give it the plan of greatest utility that does, of all placements of what
    it has measured; where none does, the case is called infeasible.
    """

    first_configurations: int = 5
    hopeless: int = 5
    patience: int = 3
    least_gain: float = 0.1
    name: str = "Vulcan-style"
    reuse_prefixes: bool = False

    def search(self, case: Case, meter: Meter, rng: np.random.Generator) -> Answer | None:
        """See `Searcher`."""
        process = GridProcess(knob_positions(meter.space))
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
        keeps = case.accurate(means)[:, None] & case.affordable(meter.latency_s, meter.cost_usd_per_h)
        pick = _greatest(utilities, evaluated)
        return pick if pick and keeps[pick.configuration, pick.placement] else _greatest(utilities, keeps)

    def _optimise(
        self, process: GridProcess, candidates: IntArray, evaluate: Callable[[int], float], rng: np.random.Generator
    ) -> None:
        """Look for the greatest utility among the candidates of one placement."""
        seen = [int(k) for k in rng.permutation(candidates)[: self.first_configurations]]
        values = [evaluate(k) for k in seen]
        poor, stale = 0, 0
        while len(seen) < len(candidates) and poor < self.hopeless and stale < self.patience:
            best = max(values)
            left = np.setdiff1d(candidates, seen)
            mean, std = process.posterior(np.array(seen), np.array(values))
            chosen = int(left[expected_improvement(mean[left], std[left], best).argmax()])
            utility = evaluate(chosen)
            seen.append(chosen)
            values.append(utility)
            poor += utility <= 0
            stale = stale + 1 if utility < best + self.least_gain * abs(best) else 0

    def _utilities(self, case: Case, meter: Meter, means: FloatArray) -> FloatArray:
        """(k, p) of what was measured; NaN or infinite of what was not or does not fit."""
        accuracy = case.sign * (means - case.threshold)[:, None]
        latency = 1.0 - meter.latency_s / max(case.latency_s, _LEAST)
        resources = meter.cost_usd_per_h / max(case.cost_usd_per_h, _LEAST)
        with np.errstate(invalid="ignore"):
            return np.asarray((0.5 * accuracy + 0.5 * latency) / np.maximum(resources, _LEAST))


def _greatest(utilities: FloatArray, among: BoolArray) -> Answer | None:
    if not among.any():
        return None
    configuration, placement = np.unravel_index(np.where(among, utilities, -np.inf).argmax(), among.shape)
    return Answer(int(configuration), int(placement))
