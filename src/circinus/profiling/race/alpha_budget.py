"""Division of a run's error rate among all of its statements."""

from __future__ import annotations

LATENCY_SHARE = 0.1
"""Share of a run's risk for statements about latency SLOs: these are seldom close, and scores need the rest."""


def per_sequence_alpha(risk: float, configurations: int, comparisons: int = 0, *, sides: int = 2) -> float:
    """Return the risk of each side of each sequence, so that a whole run is right with probability `1 - risk`.

    A run has one sequence for each configuration, and one for each compared pair, with two sides each; each side gets
    an equal share (Bonferroni), under any dependence:

    - *Interim analyses* cost nothing: a sequence holds at all of them simultaneously.
    - *Thresholds* cost nothing, nor do queries: one sequence excludes means, and a threshold is decided wrongly only if
    the true mean was excluded (`SequentialThresholdTest`).
    - *Configurations* cost little: items grow as log(2 configurations / risk), a third more for 250 than for 25 at a
    risk of 0.05. All configurations count that may be measured, not only the measured ones, as it depends on the scores
    which are dropped.
    - *Comparisons* must be fixed before the scores are seen, for instance all with one reference. Testing only the most
    promising pair counts as testing all.

    Rejected alternatives: unequal shares, larger for configurations near a threshold, save no items even if the margins
    are known, as those far from it then need more. Holm's stepwise shares gain nothing, as each configuration always
    has a true statement that may be wrongly rejected (its mean is not beyond where it is). Shares only for the side
    that makes a plan (certainly feasible) halve the logarithm's argument, but leave "certainly infeasible" without a
    guarantee: `sides=1` is for runs that never state infeasibility, for instance if a posterior decides what to prune.
    Testing configurations one after the other, each at the full risk, from the most accurate down until one fails,
    needs a ranking in advance.

    Args:
        risk: probability of any wrong verdict in the run, 0 < risk < 1.
        configurations: number of all configurations that may be measured, at least 1.
        comparisons: number of pairs whose difference is bounded.
        sides: number of sides of each sequence with statements.

    Raises:
        ValueError: a risk or a number is out of range.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk must be in (0, 1), got {risk}")
    if configurations < 1 or comparisons < 0:
        raise ValueError(
            f"configurations must be at least 1 and comparisons at least 0, got {configurations} and {comparisons}"
        )
    return risk / (sides * (configurations + comparisons))


def split_alpha(risk: float, configurations: int, latency_percentiles: int) -> tuple[float, float]:
    """Return the risk of all sequences, and the risk of each configuration at each latency percentile.

    Latency limits cost nothing, as thresholds do: an error about any limit that is met implies an error about the
    lowest of these.
    """
    if not latency_percentiles:
        return risk, 0.0
    return risk * (1.0 - LATENCY_SHARE), risk * LATENCY_SHARE / (configurations * latency_percentiles)
