"""Alternative searches for the cheapest deployment of a cell that keeps two limits, and a model's choices.

Random order, Optuna's constrained sampler, and a model of both times whose estimates are off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.workloads.published.deployments import Cell
from circinus.arrays import BoolArray, FloatArray, IntArray

ERROR = 0.3
"""Standard deviation of the logarithms of the model's estimates."""
_STARTUP_TRIALS = 3


@dataclass(frozen=True, eq=False)
class Task:
    """A cell with two limits."""

    cell: Cell
    ttft_s: float
    tpot_s: float

    @property
    def feasible(self) -> BoolArray:
        """(n,) whether both limits hold."""
        return self.cell.feasible(self.ttft_s, self.tpot_s)

    def cheapest(self, measured: Sequence[int]) -> int | None:
        """Return the cheapest measured deployment that keeps both limits."""
        held = [k for k in measured if self.feasible[k]]
        return min(held, key=lambda k: float(self.cell.gpu_seconds[k]), default=None)


@dataclass(frozen=True)
class Choice:
    """Result of a method."""

    deployment: int | None
    measured: int
    certain: bool
    """Whether the method itself can tell that nothing cheaper remains."""


def measured_in(task: Task, order: Sequence[int] | IntArray, trials: int) -> Choice:
    """Return the cheapest of the first deployments of an order; only all of them make certain."""
    measured = [int(k) for k in order[:trials]]
    return Choice(task.cheapest(measured), len(measured), len(measured) == len(task.cell.values))


def tpe_order(task: Task, trials: int, seed: int) -> list[int]:
    """Return the deployments that Optuna's constrained tree-structured Parzen estimator measures, in order.

    It gets logarithms of the cost and of the limits' excess. Of deployments that do not exist it gets the nearest
    unmeasured one. It starts with 3 random trials: with 40 % measured it then chose the cheapest of 59 % of 99 tasks,
    with 5 of 55 %, with 10 (default) of 46 %, and with `multivariate` of 44 % of 66.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
    cell, study, order = task.cell, optuna.create_study(sampler=sampler), list[int]()
    positions = np.array([[cell.knobs[knob].index(v) for knob, v in values.items()] for values in cell.values])
    distance = partial(_distance, positions, [cell.ordered(knob) for knob in cell.knobs])
    excess = np.log(np.stack([cell.ttft_s / task.ttft_s, cell.tpot_s / task.tpot_s]))
    while len(order) < min(trials, len(cell.values)):
        trial = study.ask()
        far = distance(_suggested(cell, trial))
        far[order] = np.inf
        nearest = int(far.argmin())
        if far[nearest] > 0:  # the nearest that exists instead, as a trial of its own
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(dict(zip(cell.knobs, positions[nearest].tolist(), strict=True)))
            trial = study.ask()
            _suggested(cell, trial)
        order.append(nearest)
        for limit, value in zip(("ttft", "tpot"), excess[:, nearest], strict=True):
            trial.set_constraint(limit, float(value))
        study.tell(trial, float(np.log(cell.gpu_seconds[nearest])))
    return order


def _suggested(cell: Cell, trial: Any) -> list[int]:
    """Return the positions of a trial's choices: ordered knobs are numbers, others categories."""
    chosen = []
    for knob, choices in cell.knobs.items():
        if cell.ordered(knob):
            chosen.append(int(trial.suggest_int(knob, 0, len(choices) - 1)))
        else:
            chosen.append(int(trial.suggest_categorical(knob, list(range(len(choices))))))
    return chosen


def _distance(positions: IntArray, ordered: Sequence[bool], point: Sequence[int]) -> FloatArray:
    """Return (n,) distances: 1 for each knob that differs, and a little by how far ordered ones do."""
    apart = np.abs(positions - np.array(point))
    return np.asarray((apart > 0).sum(axis=1) + 0.01 * (apart * np.array(ordered)).sum(axis=1))


def model_order(task: Task, rng: np.random.Generator) -> IntArray:
    """Return (n,) deployments in the order of a model that is `ERROR` off: the cheapest that seem to hold first."""
    cell = task.cell
    ttft_s, tpot_s = (times * rng.lognormal(0.0, ERROR, len(times)) for times in (cell.ttft_s, cell.tpot_s))
    excess = np.maximum(ttft_s / task.ttft_s, tpot_s / task.tpot_s)
    return np.asarray(np.lexsort((cell.gpus_per_stream * tpot_s, np.maximum(excess, 1.0))))
