"""Plain Gaussian process over a finite set of points, as in a general library, for baselines."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import FloatArray, IntArray

LENGTHS = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Candidate correlation lengths of all knobs; the likelihood selects one."""
JITTER = 1e-4
"""Variance of noise over that of the process."""
_MIN_AMPLITUDE = 1e-6


class GridProcess:
    """Matern 5/2, constant mean (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, ch. 2, 4, 5)."""

    def __init__(self, points: FloatArray) -> None:
        """Prepare the kernels of all points (k, d)."""
        distances = np.sqrt(np.maximum(((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2), 0.0))
        scaled = math.sqrt(5) * distances[None] / np.array(LENGTHS)[:, None, None]
        self._kernels: FloatArray = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)

    def posterior(self, seen: IntArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ((k,) means, (k,) standard deviations) given n >= 1 values (n,) at the points `seen` (n,)."""
        centre, scale = float(values.mean()), float(values.std()) or 1.0
        y = (values - centre) / scale
        inner = self._kernels[:, seen[:, None], seen[None, :]] + JITTER * np.eye(len(seen))
        factors = np.linalg.cholesky(inner)
        whitened = np.linalg.solve(factors, np.broadcast_to(y[:, None], (len(LENGTHS), len(y), 1)))[:, :, 0]
        # The maximum-likelihood amplitude of each length has a closed form.
        amplitudes = np.maximum((whitened**2).mean(axis=1), _MIN_AMPLITUDE)
        halves = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        best = int((-0.5 * len(y) * np.log(amplitudes) - halves).argmax())
        across = np.linalg.solve(factors[best], self._kernels[best][seen])
        variance = amplitudes[best] * np.maximum(1.0 - (across**2).sum(axis=0), 0.0)
        return centre + scale * (across.T @ whitened[best]), scale * np.sqrt(variance)


def expected_improvement(mean: FloatArray, std: FloatArray, best: float) -> FloatArray:
    """Return the expected excess over `best` (Jones, Schonlau & Welch, J. Global Optimization 13, 1998)."""
    safe = np.maximum(std, 1e-12)
    z = (mean - best) / safe
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return np.asarray((mean - best) * below + safe * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
