"""Confidence sequences: bounds of means that hold at all sample sizes simultaneously, computed from arrays alone."""

from circinus.profiling.confidence_sequences.alpha_budget import per_sequence_alpha, split_alpha
from circinus.profiling.confidence_sequences.betting import betting_bounds
from circinus.profiling.confidence_sequences.covariates import Covariates, one_hot_strata
from circinus.profiling.confidence_sequences.empirical_bernstein import empirical_bernstein_bounds
from circinus.profiling.confidence_sequences.paired_differences import bounds_via_difference, difference_bounds
from circinus.profiling.confidence_sequences.sequential_test import SequentialThresholdTest
from circinus.profiling.confidence_sequences.thresholds import ThresholdDecisions, threshold_decisions

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
