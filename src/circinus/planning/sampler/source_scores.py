"""Scores of transfer sources: the pipeline on other data, another version, or a pipeline that shares operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.configuration_space import FOREIGN, INACTIVE, ConfigurationSpace
from circinus.planning.sampler.surrogate import Surrogate
from circinus.specification import Configuration

_MAX_FITTED = 150
"""Maximum number of a source's configurations to fit, as a Gaussian process takes cubic time."""
_NOISE_SHARE = 1e-3
"""Standard deviation of a source's scores around a smooth function, as a share of the range."""


@dataclass(frozen=True, eq=False)
class SourceTask:
    """Scores of k configurations of a source, as codes of the target's space."""

    name: str
    space: ConfigurationSpace
    """Space of the target."""
    shared: BoolArray
    """(d,) whether the source has the knob too."""
    codes: IntArray
    """(k, d) distinct codes; `INACTIVE` for knobs that are not shared."""
    means: FloatArray
    """(k,)"""
    score_range: tuple[float, float] = (0.0, 1.0)
    variances: FloatArray | None = None
    """(k,) error variances of the means; None if exact."""

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
        """Build a source from scores of another pipeline; knobs correspond by the names of operator and knob.

        A knob is shared if any configuration has it. Configurations with a choice that the target lacks are left out;
        those that differ only in knobs that the target lacks are averaged.

        Returns:
            None if no knob is shared or no configuration remains.
        """
        codes = space.prefix_codes(configurations)
        shared, usable = (codes != INACTIVE).any(axis=0), (codes != FOREIGN).all(axis=1)
        if not shared.any() or not usable.any():
            return None
        distinct, inverse = np.unique(codes[usable], axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        counts = np.bincount(inverse)
        averages = np.bincount(inverse, weights=means[usable]) / counts
        errors = None if variances is None else np.bincount(inverse, weights=variances[usable]) / counts**2
        return cls(name, space, shared, distinct, averages, score_range, errors)

    def at(self, codes: IntArray) -> FloatArray:
        """Return (m,) scores of (m, d) codes: measured if the source has the shared choices, otherwise predicted."""
        return self._at(codes)[0]

    def variances_at(self, codes: IntArray) -> FloatArray:
        """Return (m,) error variances of these scores relative to the source's own scores on all items."""
        return self._at(codes)[1]

    def _at(self, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        projected = np.where(self.shared, codes, INACTIVE)
        rows = np.array([self._rows.get(code.tobytes(), -1) for code in projected], dtype=np.int64)
        means, variances = self.means[rows], self._variances[rows]
        unmeasured = rows < 0
        if unmeasured.any():
            belief = self._surrogate.predict(projected[unmeasured])
            means[unmeasured], variances[unmeasured] = belief.mean, belief.deviation**2
        return means, variances

    @property
    def _variances(self) -> FloatArray:
        return np.zeros(len(self.means)) if self.variances is None else self.variances

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {code.tobytes(): row for row, code in enumerate(self.codes)}

    @cached_property
    def _surrogate(self) -> Surrogate:
        count = min(len(self.codes), _MAX_FITTED)
        rows = np.unique(np.linspace(0, len(self.codes) - 1, count).astype(np.int64))
        min_variance = (_NOISE_SHARE * (self.score_range[1] - self.score_range[0])) ** 2
        noise = np.maximum(self._variances[rows], min_variance)
        return Surrogate.fit(self.space, self.codes[rows], self.means[rows], noise, score_range=self.score_range)
