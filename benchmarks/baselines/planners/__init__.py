"""Other planners in a contest, by their published descriptions; each module says what was simplified."""

from __future__ import annotations

from benchmarks.baselines.planners.by_hand import BY_HAND
from benchmarks.baselines.planners.inferline import INFERLINE
from benchmarks.baselines.planners.ipa import IPA
from benchmarks.baselines.planners.jellybean import JellyBean
from benchmarks.baselines.planners.optuna_greedy import OPTUNA_GREEDY
from benchmarks.baselines.planners.paper import PAPER
from benchmarks.baselines.planners.proteus import Proteus
from benchmarks.baselines.planners.videostorm import VideoStorm
from benchmarks.baselines.planners.vulcan import VULCAN
from benchmarks.evaluation.contest import Planner

PUBLISHED: tuple[Planner, ...] = (VULCAN, JellyBean(), VideoStorm(), INFERLINE, IPA, Proteus())
"""Planners of the literature, by their published descriptions."""
BASELINES: tuple[Planner, ...] = (*PUBLISHED, PAPER, OPTUNA_GREEDY, *BY_HAND)
