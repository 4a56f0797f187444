"""Confidence sequences: bounds of a mean that hold however often one looks, from arrays alone."""

from circinus.profiling.sequences.betting import betting_bounds
from circinus.profiling.sequences.covariates import Covariates
from circinus.profiling.sequences.empirical_bernstein import empirical_bernstein_bounds
from circinus.profiling.sequences.multiplicity import sequence_risk, split_risk
from circinus.profiling.sequences.paired import difference_bounds, through_partner
from circinus.profiling.sequences.running import RunningVerdicts
from circinus.profiling.sequences.strata import indicators
from circinus.profiling.sequences.thresholds import Verdicts, threshold_verdicts

__all__ = [
    "Covariates",
    "RunningVerdicts",
    "Verdicts",
    "betting_bounds",
    "difference_bounds",
    "empirical_bernstein_bounds",
    "indicators",
    "sequence_risk",
    "split_risk",
    "threshold_verdicts",
    "through_partner",
]
