"""How many threads numeric libraries may use in the process of a replica."""

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
    """Environment variables that hold libraries imported later to as many threads as a replica has CPUs.

    The same while profiling and while serving, or measured times would not be those that are served with.
    """
    return dict.fromkeys(_VARIABLES, str(max(1, math.ceil(cpus))))
