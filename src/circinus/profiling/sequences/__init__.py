"""Confidence sequences: bounds of a mean that hold however often one looks, from arrays alone."""

from circinus.profiling.sequences.betting import betting_bounds
from circinus.profiling.sequences.covariates import Covariates
from circinus.profiling.sequences.empirical_bernstein import empirical_bernstein_bounds
from circinus.profiling.sequences.multiplicity import per_sequence_alpha, split_alpha
from circinus.profiling.sequences.paired import bounds_via_difference, difference_bounds
from circinus.profiling.sequences.running import SequentialThresholdTest
from circinus.profiling.sequences.strata import one_hot_strata
from circinus.profiling.sequences.thresholds import ThresholdDecisions, threshold_decisions

__all__ = [
    "Covariates",
    "SequentialThresholdTest",
    "ThresholdDecisions",
    "betting_bounds",
    "bounds_via_difference",
    "difference_bounds",
    "empirical_bernstein_bounds",
    "one_hot_strata",
    "per_sequence_alpha",
    "split_alpha",
    "threshold_decisions",
]
