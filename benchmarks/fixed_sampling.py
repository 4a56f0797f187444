"""Fixed-size sampling with the guarantee that the profiler gives, as somebody would have to size it beforehand."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.sequences import sequence_risk

FloatArray = NDArray[np.float64]


def sizes_with_known_margins(means: FloatArray, thresholds: FloatArray, population: int, risk: float) -> FloatArray:
    """(k,) items of each configuration until an interval of its size excludes every threshold in half of the runs.

    Hoeffding-Serfling intervals (Serfling, Annals of Statistics 2, 1974: without replacement), each side at the risk
    that the profiler's sequences have. It is generous to fixed sampling: the distances of the unknown means from the
    thresholds are given to it, and half of the runs may end undecided.

    Args:
        means: (k,) true mean scores in [0, 1].
        thresholds: (q,)
        population: number of items.
        risk: of the run.
    """
    margins = np.abs(means[:, None] - thresholds[None, :]).min(axis=1)
    sizes = np.arange(1, population + 1)
    log = math.log(1 / sequence_risk(risk, len(means)))
    radii = np.sqrt((1 - (sizes - 1) / population) * log / (2 * sizes))
    found = np.array([np.argmax(radii <= margin) + 1 if (radii <= margin).any() else population for margin in margins])
    return found.astype(np.float64)
