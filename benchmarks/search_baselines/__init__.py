"""Earlier methods to find one query's plan, written by us from their published descriptions."""

from benchmarks.search_baselines.exhaustive import Exhaustive
from benchmarks.search_baselines.optuna_constrained import OptunaConstrained
from benchmarks.search_baselines.paper_style import PaperStyle
from benchmarks.search_baselines.random_search import RandomSearch
from benchmarks.search_baselines.successive_halving import SuccessiveHalving
from benchmarks.search_baselines.vulcan_style import VulcanStyle

__all__ = ["Exhaustive", "OptunaConstrained", "PaperStyle", "RandomSearch", "SuccessiveHalving", "VulcanStyle"]
