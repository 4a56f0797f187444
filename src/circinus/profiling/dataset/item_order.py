"""The order in which items are measured: held-out items, balanced over the strata, last; the others at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray

_COMBINATION_WEIGHT = 0.1
"""Of a combination of conditions, against 1 for each single condition."""
_TIE = 1e-9
_MOST_VALUES = 128


def measurement_order(strata: Sequence[Mapping[str, str]], held_out: int, rng: np.random.Generator) -> IntArray:
    """The one order for all configurations of a data set.

    The held-out items are chosen so that they hold each condition in proportion, and so do the others. These come in a
    uniformly random order, for which the bounds of their mean are proved (`circinus.profiling.confidence_sequences`); strata
    tighten those bounds without being in the order.

    Args:
        strata: for each of N items, its conditions by name.
        held_out: how many items come last.
        rng: decides everything that is random.

    Returns:
        (N,) indexes of the items.
    """
    balanced = stratified_order(strata, rng)
    profiled = len(balanced) - held_out
    return np.concatenate([rng.permutation(balanced[:profiled]), balanced[profiled:]])


def stratified_order(strata: Sequence[Mapping[str, str]], rng: np.random.Generator) -> IntArray:
    """A random permutation in which every beginning holds each condition, and each combination, in proportion.

    Item by item the stratum (combination of conditions) is taken that leaves the smallest sum of squared distances
    between counts and their proportional shares (minimisation, Pocock & Simon, Biometrics 31, 1975); ties, and which
    item of the stratum it is, are random. Within a stratum the order is a uniformly random permutation.

    Args:
        strata: for each of N items, its conditions by name.
        rng: decides everything that is random.

    Returns:
        (N,) indexes of the items.
    """
    stratum, conditions = _strata(strata)
    sizes = np.bincount(stratum)
    shares, size_shares = sizes @ conditions / max(1, len(stratum)), sizes / max(1, len(stratum))
    # Adding stratum s after m items changes the sum of squares by 2 d.c_s + |c_s|^2 (d: distances before), so that
    # one product of matrix and vector ranks all strata.
    own = conditions.sum(axis=1)
    distance, own_distance = np.zeros(len(shares)), np.zeros(len(sizes))
    left = sizes.copy()
    sequence = np.empty(len(stratum), dtype=np.int64)
    for step in range(len(stratum)):
        distance -= shares
        own_distance -= size_shares
        change = 2 * (conditions @ distance) + own + 2 * _COMBINATION_WEIGHT * own_distance
        change[left == 0] = np.inf
        sequence[step] = chosen = rng.choice(np.flatnonzero(change <= change.min() + _TIE))
        distance += conditions[chosen]
        own_distance[chosen] += 1
        left[chosen] -= 1
    return _fill(sequence, stratum, rng)


def _strata(strata: Sequence[Mapping[str, str]]) -> tuple[IntArray, NDArray[np.float64]]:
    """(N,) stratum of each item, and (strata, conditions) whether a stratum has a condition.

    Names with nearly as many values as items (a file name, a speaker heard once) say nothing of proportions and
    are left out.
    """
    values: dict[str, set[str]] = {}
    for conditions in strata:
        for name, value in conditions.items():
            values.setdefault(name, set()).add(value)
    telling = {name for name, found in values.items() if len(found) <= max(1, min(_MOST_VALUES, len(strata) // 2))}
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    stratum = [
        numbers.setdefault(tuple(sorted((n, v) for n, v in conditions.items() if n in telling)), len(numbers))
        for conditions in strata
    ]
    columns: dict[tuple[str, str], int] = {}
    held = [[columns.setdefault(condition, len(columns)) for condition in combination] for combination in numbers]
    found = np.zeros((len(numbers), len(columns)))
    for row, its_columns in enumerate(held):
        found[row, its_columns] = 1.0
    return np.array(stratum, dtype=np.int64), found


def _fill(sequence: IntArray, stratum: IntArray, rng: np.random.Generator) -> IntArray:
    """Put the items of each stratum, shuffled, into its places of `sequence`."""
    shuffled = rng.permutation(len(stratum))
    order = np.empty(len(stratum), dtype=np.int64)
    order[np.argsort(sequence, kind="stable")] = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    return order
