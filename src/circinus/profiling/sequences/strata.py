"""Strata as covariates: their sizes are known before anything is measured.

In a uniformly random order side bets on the strata do what proportional stratified sampling does: only the variance
within the strata counts once their means are learnt (post-stratification). Orders that are stratified themselves were
considered and not chosen, for the same variance at a higher price:

- In a stratified order the next score has its stratum's mean, which no hypothesis about the mean of all fixes. A
  valid test bets against the worst case over all means that the strata may have (Spertus, Sridhar & Stark,
  "Sequential stratified inference for the mean", 2024), and pays in each stratum for learning how to bet.
- The means of blocks of one item from each stratum are fair draws without replacement, but one bet then waits for
  a whole block and is no safer than a bet on a single item: far more items where few would do.
- Plain bets on a balanced order keep the promise in simulations, unproved, and are not tighter than on a random one:
  what balance takes out of the luck of the draw, the bets do not know of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.profiling.sequences.arrays import FloatArray

_MOST_COLUMNS = 64


def one_hot_strata(strata: Sequence[Mapping[str, str]], most: int = _MOST_COLUMNS) -> FloatArray:
    """Columns that say which condition an item has, and which combination of conditions.

    A name with more than `most` values (a file name, a speaker) predicts nothing within the few items one wants to
    get along with and is left out; so are the combinations, where there are too many.

    Args:
        strata: for each of N items, its conditions by name.
        most: values that a name may have.

    Returns:
        (N, columns) of 0 and 1; no column where nothing tells items apart.
    """
    names = sorted({name for conditions in strata for name in conditions})
    columns = [[conditions.get(name, "") for conditions in strata] for name in names]
    telling = [column for column in columns if 1 < len(set(column)) <= min(most, len(strata) // 2)]
    blocks = [_one_hot(column) for column in telling]
    combined = ["\0".join(values) for values in zip(*telling, strict=True)]
    if len(telling) > 1 and len(set(combined)) <= min(most, len(strata) // 2):
        blocks.append(_one_hot(combined))
    return np.hstack(blocks) if blocks else np.zeros((len(strata), 0))


def _one_hot(column: Sequence[str]) -> FloatArray:
    values = sorted(set(column))
    one_hot: FloatArray = (np.array(column)[:, None] == np.array(values)).astype(np.float64)
    return one_hot
