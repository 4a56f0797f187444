"""What a measurement keeps of each configuration, as arrays that grow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from circinus.profiling.confidence import BoolArray
from circinus.profiling.profile import FloatArray, IntArray


@dataclass(eq=False)
class RaceArrays:
    """Of k configurations and q objectives."""

    latency_items: IntArray
    """(k,) on how many items each is to be known for its latency."""
    failed: BoolArray
    """(k,) in this measurement."""
    ended: BoolArray
    """(k,) there is nothing more to be had of it."""
    meets: BoolArray
    """(k, q) surely accurate enough."""
    fails: BoolArray
    """(k, q) surely not."""
    slow: BoolArray
    """(k, q) surely too slow on any hardware."""
    pointless: BoolArray
    """(k, q) see `Assessment`."""
    means: FloatArray
    """(k,) estimates."""
    variances: FloatArray
    """(k,) of single scores about what is predicted of them."""
    partners: IntArray
    """(k,) see `Footprints.partners`."""
    stands_in: BoolArray
    """(k,) whether its partner may stand in for it."""
    no_more_accurate: BoolArray
    """(k,) whether its partner is surely as accurate."""

    @classmethod
    def blank(
        cls, configurations: int, objectives: int, score_range: tuple[float, float], latency_items: int
    ) -> RaceArrays:
        """Nothing is known."""
        of_each = np.zeros(configurations, dtype=bool)
        of_both = np.zeros((configurations, objectives), dtype=bool)
        low, high = score_range
        return cls(
            latency_items=np.full(configurations, latency_items, dtype=np.int64),
            failed=of_each,
            ended=of_each.copy(),
            meets=of_both,
            fails=of_both.copy(),
            slow=of_both.copy(),
            pointless=of_both.copy(),
            means=np.full(configurations, (low + high) / 2),
            variances=np.full(configurations, (high - low) ** 2 / 4),
            partners=np.full(configurations, -1, dtype=np.int64),
            stands_in=of_each.copy(),
            no_more_accurate=of_each.copy(),
        )

    def followed_by(self, others: RaceArrays) -> RaceArrays:
        """These configurations and then the others."""
        joined: dict[str, Any] = {
            field.name: np.concatenate([getattr(self, field.name), getattr(others, field.name)])
            for field in fields(self)
        }
        return RaceArrays(**joined)
