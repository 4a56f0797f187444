"""Items with different difficulty and work, distributed as in the published speech trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.search.arena import with_means
from circinus.arrays import FloatArray

ITEMS = 300
EASE = 0.7
"""Mean of the items' ease."""
_BETA = (0.57, 0.25)
"""Parameters of a beta distribution with that mean and standard deviation 0.34, as the scores of one configuration in
the published speech trace."""
_EXPLAINED = 0.78
"""Share of the variance of the rank of an item's ease that its conditions explain, as in the speech trace."""
_WORK_SPREAD = 0.25
"""Standard deviation of the logarithm of an item's work."""
_CONDITIONS = {"room": ("small", "middle", "large", "outside"), "noise": ("none", "music", "voices")}


@dataclass(frozen=True, eq=False)
class SyntheticItems:
    """Ease, work and conditions of N items."""

    ease: FloatArray
    """(N,) in [0, 1], with the mean `EASE`: scores of a configuration with that mean score."""
    work: FloatArray
    """(N,) factors of service times and sizes, with mean 1."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, count: int = ITEMS) -> SyntheticItems:
        """Draw items; combinations of conditions are equally frequent."""
        names = tuple(_CONDITIONS)
        combinations = [dict(zip(names, values, strict=True)) for values in product(*_CONDITIONS.values())]
        strata = tuple(combinations[item % len(combinations)] for item in range(count))
        levels = rng.permutation(np.linspace(-1.0, 1.0, len(combinations)))
        levels /= levels.std()
        explained = levels[np.arange(count) % len(combinations)]
        latent = np.sqrt(_EXPLAINED) * explained + np.sqrt(1 - _EXPLAINED) * rng.normal(size=count)
        ease = np.empty(count)
        ease[np.argsort(latent)] = np.sort(rng.beta(*_BETA, size=count))
        work = rng.lognormal(0.0, _WORK_SPREAD, count)
        return cls(with_means(ease[None], np.array([EASE]))[0], work / work.mean(), strata)

    def with_mean(self, mean: float) -> FloatArray:
        """Return (N,) scores of a configuration with a mean score in [0, 1], without its individual deviations."""
        return np.asarray(with_means(self.ease[None], np.array([mean]))[0])

    def sizes(self, mean_bytes: float) -> FloatArray:
        """Return (N,) integral sizes in bytes with about that mean."""
        return np.asarray(np.floor(mean_bytes * self.work))
