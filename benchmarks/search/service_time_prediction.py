"""Prediction of service times of an operator under unmeasured knobs, with uncertainty.

The logarithm of the time (or of the output size) is the sum of a constant, an effect of each knob's choice, an effect
of each pair of choices, and a residual of each configuration. All effects are normal. Their variances are learnt, so
that a knob without effect is recognised after a few measurements. Outlying residuals are downweighted by Student's
distribution (Lange, Little & Taylor, "Robust statistical modeling using the t distribution", J. American Statistical
Association 84, 1989), because first runs are occasionally much slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray

_CONSTANT_VARIANCE = 100.0
"""Prior variance of the constant: practically uninformative."""
_OWN, _OTHER, _PAIR, _REST = 0.5, 0.3, 0.1, 0.2
"""Prior standard deviations of effects (the operator's own knobs, knobs of earlier operators, pairs) and residuals."""
_STRENGTH = 1.0
"""Weight of the prior, in observations."""
_ROUNDS = 12
_MORE_ROUNDS = 3
"""Rounds after a fit on fewer measurements, whose variances are the start."""
_HEAVINESS_ABOVE, _HEAVINESS_BELOW = 2.0, 8.0
"""Degrees of freedom of positive and negative residuals: disturbances make runs slower, rarely faster."""


@dataclass(frozen=True, eq=False)
class Times:
    """Normal beliefs of m logarithms."""

    mean: FloatArray
    """(m,) means."""
    deviation: FloatArray
    """(m,) standard deviations; 0 where measured."""
    variances: FloatArray
    """(c + 1,) learnt variances of effects, residuals last."""


class OperatorTimes:
    """Predictor of one operator under m prefixes, with precomputed kernels."""

    def __init__(self, codes: IntArray, own: NDArray[np.bool_]) -> None:
        """Compute the kernels.

        Args:
            codes: (m, d) choices of the knobs of the operator and of earlier operators, under each prefix.
            own: (d,) whether a knob belongs to the operator.
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
        """Predict the values under every prefix from measured ones.

        Variances are estimated by a few minorisation steps (Zhou, Hu, Zhou & Lange, "MM algorithms for
        variance components models", J. Computational and Graphical Statistics 28, 2019), with inverse gamma priors.

        Args:
            measured: (n,) measured prefixes, n >= 1.
            values: (n,) measured values, greater than 0.
            prior: (m,) logarithms of values measured elsewhere; effects are then those of the ratio.
            earlier: belief on fewer measurements, whose variances are the start.
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
        """Return the (m,) logarithms of values measured under all prefixes, without residuals."""
        logs = np.log(values)
        belief = self.predict(np.arange(len(values)), values)
        whole = np.tensordot(belief.variances[:-1], self._kernels, 1) + _CONSTANT_VARIANCE
        noise = belief.variances[-1] * np.eye(len(logs))
        return np.asarray(whole @ np.linalg.solve(whole + noise, logs))


def _inverse(flat: FloatArray, variances: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the (n, n) inverse of the covariance of measurements."""
    count = len(weights)
    whole = (variances[:-1] @ flat).reshape(count, count) + _CONSTANT_VARIANCE
    whole[np.arange(count), np.arange(count)] += variances[-1] / weights
    return np.asarray(np.linalg.inv(whole))
