"""What an operator takes under knobs it was not measured with, and how sure that is.

The logarithm of its time (or of its output's size) is a constant, plus a part of each knob's choice, plus a part of
each two knobs' choices, plus a rest of every configuration by itself. All parts are normal; how much each kind of part
varies is learnt, so that a knob that changes nothing is found to change nothing, after a few measurements. A rest far
from the others counts less (Student's distribution; Lange, Little & Taylor, "Robust statistical modeling using the t
distribution", J. American Statistical Association 84, 1989): first runs are now and then much slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray

_CONSTANT_VARIANCE = 100.0
"""Of the logarithm of what an operator takes at all: anything."""
_OWN, _OTHER, _PAIR, _REST = 0.5, 0.3, 0.1, 0.2
"""Standard deviations expected of the parts: of a knob of the operator itself, of one before it, of two knobs, and of
the rest."""
_STRENGTH = 1.0
"""Observations that these expectations count as much as."""
_ROUNDS = 12
_MORE_ROUNDS = 3
"""Where the variances are known of fewer measurements."""
_HEAVINESS_ABOVE, _HEAVINESS_BELOW = 2.0, 8.0
"""Degrees of freedom of the rests' distribution: what disturbs makes slower, hardly ever faster."""


@dataclass(frozen=True, eq=False)
class Times:
    """Beliefs of m logarithms, each of them normal."""

    mean: FloatArray
    """(m,)"""
    deviation: FloatArray
    """(m,) standard deviations; 0 where measured."""
    variances: FloatArray
    """(c + 1,) of each kind of part, the rest last; as learnt."""


class OperatorTimes:
    """Predicts one operator under m prefixes; what depends on the prefixes alone is computed once."""

    def __init__(self, codes: IntArray, own: NDArray[np.bool_]) -> None:
        """Compile.

        Args:
            codes: (m, d) choices of the knobs of the operator and those before it, under each prefix.
            own: (d,) which of them are the operator's.
        """
        columns = [c for c in range(codes.shape[1]) if (codes[:, c] != codes[:1, c]).any()]
        equal = {c: codes[:, c][:, None] == codes[:, c][None, :] for c in columns}
        parts = [equal[c] for c in columns]
        scales = [_OWN if own[c] else _OTHER for c in columns]
        for place, first in enumerate(columns):
            for second in columns[place + 1 :]:
                parts.append(equal[first] & equal[second])
                scales.append(_PAIR)
        self._kernels = np.array(parts, dtype=np.float64).reshape(len(parts), len(codes), len(codes))
        self._scales = np.array([*scales, _REST])

    def predict(
        self, measured: IntArray, values: FloatArray, prior: FloatArray | None = None, earlier: Times | None = None
    ) -> Times:
        """Predict what the operator takes under every prefix from what it took under some.

        The variances are found by a few rounds of a minorising step each (Zhou, Hu, Zhou & Lange, "MM algorithms for
        variance components models", J. Computational and Graphical Statistics 28, 2019), with inverse gamma priors.

        Args:
            measured: (n,) prefixes that were measured, n >= 1.
            values: (n,) what they took, greater than 0.
            prior: (m,) logarithms of what it takes elsewhere; the parts are then of the ratio to that. None: nothing
                is known.
            earlier: the answer on fewer measurements, to begin with its variances.
        """
        expected = np.zeros(self._kernels.shape[1]) if prior is None else prior
        logs = np.log(values) - expected[measured]
        seen = self._kernels[:, measured[:, None], measured[None, :]]
        flat = seen.reshape(len(seen), len(measured) ** 2)
        expected_variances, weights = self._scales**2, np.ones(len(measured))
        variances = expected_variances if earlier is None else earlier.variances
        for _ in range(_ROUNDS if earlier is None else _MORE_ROUNDS):
            inverse = _inverse(flat, variances, weights)
            pulled = inverse @ logs
            outer = np.outer(pulled, pulled).ravel()
            quadratic = np.append(flat @ outer, pulled**2 @ (1 / weights))
            trace = np.append(flat @ inverse.ravel(), inverse.diagonal() @ (1 / weights))
            drawn = _STRENGTH * expected_variances / variances**2
            variances = variances * np.sqrt((quadratic + drawn) / (trace + _STRENGTH / variances))
            rests = variances[-1] / weights * pulled
            heaviness = np.where(rests > 0, _HEAVINESS_ABOVE, _HEAVINESS_BELOW)
            weights = (heaviness + 1) / (heaviness + rests**2 / variances[-1])
        inverse = _inverse(flat, variances, weights)
        across = np.tensordot(variances[:-1], self._kernels[:, :, measured], 1) + _CONSTANT_VARIANCE
        explained = ((across @ inverse) * across).sum(axis=1)
        spread = np.maximum(_CONSTANT_VARIANCE + variances.sum() - explained, variances[-1])
        mean = expected + across @ (inverse @ logs)
        mean[measured], spread[measured] = np.log(values), 0.0
        return Times(mean, np.sqrt(spread), variances)

    def smoothed(self, values: FloatArray) -> FloatArray:
        """(m,) what was measured under all prefixes -> the logarithms of the same without the rests."""
        logs = np.log(values)
        found = self.predict(np.arange(len(values)), values)
        whole = np.tensordot(found.variances[:-1], self._kernels, 1) + _CONSTANT_VARIANCE
        noise = found.variances[-1] * np.eye(len(logs))
        return np.asarray(whole @ np.linalg.solve(whole + noise, logs))


def _inverse(flat: FloatArray, variances: FloatArray, weights: FloatArray) -> FloatArray:
    """(n, n) inverse of the covariance of what was measured."""
    count = len(weights)
    whole = (variances[:-1] @ flat).reshape(count, count) + _CONSTANT_VARIANCE
    whole[np.arange(count), np.arange(count)] += variances[-1] / weights
    return np.asarray(np.linalg.inv(whole))
