"""Other planners in a contest, by their published descriptions; each module says what was simplified."""

from __future__ import annotations

from benchmarks.baselines.planners.by_hand import BY_HAND
from benchmarks.baselines.planners.vulcan import VULCAN
from benchmarks.evaluation.contest import Planner

PUBLISHED: tuple[Planner, ...] = (VULCAN,)
"""Planners of the literature, by their published descriptions."""
BASELINES: tuple[Planner, ...] = (*PUBLISHED, *BY_HAND)
