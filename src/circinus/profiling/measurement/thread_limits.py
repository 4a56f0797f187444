"""Thread limits of numeric libraries in a replica's process."""

from __future__ import annotations

import math

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


def thread_limits(cpus: float) -> dict[str, str]:
    """Return environment variables that limit libraries imported later to a replica's number of CPUs.

    Profiling and serving use the same limits, so that measured times match served ones.
    """
    return dict.fromkeys(_VARIABLES, str(max(1, math.ceil(cpus))))
