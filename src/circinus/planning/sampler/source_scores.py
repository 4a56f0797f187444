"""Scores known from elsewhere: the same pipeline on other data, another version, or one that shares operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.configuration_space import INACTIVE, ConfigurationSpace
from circinus.planning.sampler.surrogate import Surrogate
from circinus.specification import Configuration

_LEARNT_FROM_AT_MOST = 150
"""Configurations of a source from which others are predicted: a Gaussian process takes their number cubed."""
_NOISE_SHARE = 1e-3
"""Standard deviation of a source's scores about a smooth course, as a share of the range."""


@dataclass(frozen=True, eq=False)
class SourceTask:
    """k configurations scored elsewhere, as codes of the target's space."""

    name: str
    space: ConfigurationSpace
    """Of the target."""
    shared: BoolArray
    """(d,) which knobs of the target the source has too."""
    codes: IntArray
    """(k, d) no two alike; `ABSENT` where the knob is not shared."""
    means: FloatArray
    """(k,)"""
    score_range: tuple[float, float] = (0.0, 1.0)
    variances: FloatArray | None = None
    """(k,) of these means about the true ones; None: they are exact."""

    @classmethod
    def of(
        cls,
        name: str,
        space: ConfigurationSpace,
        configurations: Sequence[Configuration],
        means: FloatArray,
        score_range: tuple[float, float] = (0.0, 1.0),
        variances: FloatArray | None = None,
    ) -> SourceTask | None:
        """Scores of configurations of another pipeline: knobs correspond by the names of operator and knob.

        A knob is shared if any configuration has it. Configurations with a choice that the target lacks are left out;
        those that differ only in what the target lacks count with the mean of their scores.

        Returns:
            None where no knob is shared or no configuration is left.
        """
        known = [{o: configuration[o].as_dict() for o in configuration} for configuration in configurations]
        shared = np.array([any(k.name in one.get(k.operator_name, {}) for one in known) for k in space.columns], bool)
        codes = np.full((len(known), len(space.columns)), INACTIVE, dtype=np.int64)
        usable = np.ones(len(known), dtype=bool)
        for row, one in enumerate(known):
            for column, knob in enumerate(space.columns):
                values = one.get(knob.operator_name, {})
                if knob.name not in values:
                    continue
                if values[knob.name] in knob.choices:
                    codes[row, column] = knob.choices.index(values[knob.name])
                else:
                    usable[row] = False
        if not shared.any() or not usable.any():
            return None
        distinct, which = np.unique(codes[usable], axis=0, return_inverse=True)
        which = which.reshape(-1)
        counts = np.bincount(which)
        averages = np.bincount(which, weights=means[usable]) / counts
        errors = None if variances is None else np.bincount(which, weights=variances[usable]) / counts**2
        return cls(name, space, shared, distinct, averages, score_range, errors)

    def at(self, codes: IntArray) -> FloatArray:
        """(m,) scores at (m, d) codes: known where the source has the same shared choices, else predicted."""
        return self._at(codes)[0]

    def variances_at(self, codes: IntArray) -> FloatArray:
        """(m,) of the errors of these scores, as what the source itself would show on all items."""
        return self._at(codes)[1]

    def _at(self, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        projected = np.where(self.shared, codes, INACTIVE)
        rows = np.array([self._rows.get(code.tobytes(), -1) for code in projected], dtype=np.int64)
        means, variances = self.means[rows], self._variances[rows]
        unknown = rows < 0
        if unknown.any():
            belief = self._surrogate.predict(projected[unknown])
            means[unknown], variances[unknown] = belief.mean, belief.deviation**2
        return means, variances

    @property
    def _variances(self) -> FloatArray:
        return np.zeros(len(self.means)) if self.variances is None else self.variances

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {code.tobytes(): row for row, code in enumerate(self.codes)}

    @cached_property
    def _surrogate(self) -> Surrogate:
        count = min(len(self.codes), _LEARNT_FROM_AT_MOST)
        rows = np.unique(np.linspace(0, len(self.codes) - 1, count).astype(np.int64))
        least = (_NOISE_SHARE * (self.score_range[1] - self.score_range[0])) ** 2
        noise = np.maximum(self._variances[rows], least)
        return Surrogate.fit(self.space, self.codes[rows], self.means[rows], noise, score_range=self.score_range)
