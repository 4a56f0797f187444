"""How the error rate that was promised of a run is shared by everything that may go wrong in it."""

from __future__ import annotations

LATENCY_SHARE = 0.1
"""Of a run's risk, for what is said of latency objectives: these are seldom close, and scores need the rest."""


def per_sequence_alpha(risk: float, configurations: int, comparisons: int = 0, *, sides: int = 2) -> float:
    """The risk of each side of each sequence, so that with probability `1 - risk` nothing in a whole run is wrong.

    A run has one sequence for each configuration, and one for each pair that is compared, with two sides each; each
    side gets an equal share (Bonferroni), whatever depends on what:

    - *Looks* cost nothing: a sequence holds at all of them at once.
    - *Thresholds* cost nothing, nor do queries: one sequence excludes means, and a threshold is judged wrongly only
      where the true mean was excluded (`threshold_verdicts`).
    - *Configurations* cost little: items grow as log(2 configurations / risk), a third more for 250 than for 25 at a
      risk of 0.05. All configurations count that may be measured, not those that were: which are dropped depends
      on the scores.
    - *Comparisons* must be fixed before the scores are seen, for instance all with one partner. Choosing the pair
      that looks good and testing it only counts as testing all.

    Not chosen: unequal shares, more for configurations near a threshold, save no items even where the margins are
    known, as those far from it then need more. Holm's stepwise shares gain nothing, as each configuration keeps,
    whatever is decided of it, a true statement that may be wrongly rejected (its mean is not beyond where it is).
    Shares only for the side that makes a plan (surely feasible) halve the logarithm's argument, but leave
    "surely infeasible" without a promise: one `sides` is for runs that say nothing to be surely infeasible, as where
    beliefs decide what is not worth pursuing. Testing configurations one after
    the other, each at the full risk, from the most accurate down until one fails, needs to know the ranking
    beforehand.

    Args:
        risk: probability of any wrong verdict in the run, 0 < risk < 1.
        configurations: number of all configurations that may be measured, at least 1.
        comparisons: number of pairs whose difference is bounded too.
        sides: of each sequence on which something is said.

    Raises:
        ValueError: a risk or a number out of range.
    """
    if not 0 < risk < 1:
        raise ValueError(f"found risk {risk}, expected more than 0 and less than 1")
    if configurations < 1 or comparisons < 0:
        raise ValueError(f"found {configurations} configurations and {comparisons} comparisons, expected at least 1, 0")
    return risk / (sides * (configurations + comparisons))


def split_alpha(risk: float, configurations: int, latency_percentiles: int) -> tuple[float, float]:
    """What is left of a run's risk for the sequences, and what each configuration gets for each latency percentile.

    Limits cost nothing, as thresholds do: who wrongly exceeds any limit that is kept exceeds the least of those.

    Args:
        risk: of the run.
        configurations: number of all configurations that may be measured.
        latency_percentiles: number of percentiles at which each of them is held against limits.
    """
    if not latency_percentiles:
        return risk, 0.0
    return risk * (1.0 - LATENCY_SHARE), risk * LATENCY_SHARE / (configurations * latency_percentiles)
