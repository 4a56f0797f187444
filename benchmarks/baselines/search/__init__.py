"""Baseline methods to find one query's plan, implemented from their published descriptions."""

from benchmarks.baselines.search.exhaustive import Exhaustive
from benchmarks.baselines.search.optuna_constrained import OptunaConstrained
from benchmarks.baselines.search.paper_style import PaperStyle
from benchmarks.baselines.search.random_search import RandomSearch
from benchmarks.baselines.search.successive_halving import SuccessiveHalving
from benchmarks.baselines.search.vulcan_style import VulcanStyle

__all__ = ["Exhaustive", "OptunaConstrained", "PaperStyle", "RandomSearch", "SuccessiveHalving", "VulcanStyle"]
