"""Measurement order of items: profiling items in random order, then held-out items, both balanced over the strata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray

_COMBINATION_WEIGHT = 0.1
"""Weight of a combination of conditions, relative to 1 for each single condition."""
_TIE = 1e-9
_MAX_VALUES = 128


def measurement_order(strata: Sequence[Mapping[str, str]], held_out: int, rng: np.random.Generator) -> IntArray:
    """Return the measurement order of a data set, common to all configurations.

    Both the held-out items and the profiling items contain each condition in proportion. The profiling items come in a
    uniformly random order, which the bounds of their mean are proved for (`circinus.statistics.betting`);
    strata tighten the bounds without affecting the order.

    Args:
        strata: conditions by name, for each of N items.
        held_out: number of held-out items, which come last.
        rng: source of all randomness.

    Returns:
        (N,) indexes of the items.
    """
    balanced = stratified_order(strata, rng)
    profiled = len(balanced) - held_out
    return np.concatenate([rng.permutation(balanced[:profiled]), balanced[profiled:]])


def stratified_order(strata: Sequence[Mapping[str, str]], rng: np.random.Generator) -> IntArray:
    """Return a random permutation whose every prefix holds each condition and combination in proportion.

    Each step takes the stratum (combination of conditions) that minimizes the sum of squared distances between counts
    and their proportional shares (minimisation, Pocock & Simon, Biometrics 31, 1975); ties, and the item within the
    stratum, are random. Within a stratum the order is a uniformly random permutation.

    Args:
        strata: conditions by name, for each of N items.
        rng: source of all randomness.

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
    remaining = sizes.copy()
    sequence = np.empty(len(stratum), dtype=np.int64)
    for step in range(len(stratum)):
        distance -= shares
        own_distance -= size_shares
        change = 2 * (conditions @ distance) + own + 2 * _COMBINATION_WEIGHT * own_distance
        change[remaining == 0] = np.inf
        sequence[step] = selected = rng.choice(np.flatnonzero(change <= change.min() + _TIE))
        distance += conditions[selected]
        own_distance[selected] += 1
        remaining[selected] -= 1
    return _fill(sequence, stratum, rng)


def _strata(strata: Sequence[Mapping[str, str]]) -> tuple[IntArray, FloatArray]:
    """Return (N,) the stratum of each item, and (strata, conditions) whether a stratum has a condition.

    Conditions with nearly as many values as items (file names, speakers heard once) carry no proportions and are
    excluded.
    """
    values: dict[str, set[str]] = {}
    for conditions in strata:
        for name, value in conditions.items():
            values.setdefault(name, set()).add(value)
    max_values = max(1, min(_MAX_VALUES, len(strata) // 2))
    names = {name for name, distinct in values.items() if len(distinct) <= max_values}
    index: dict[tuple[tuple[str, str], ...], int] = {}
    stratum = [
        index.setdefault(tuple(sorted((n, v) for n, v in conditions.items() if n in names)), len(index))
        for conditions in strata
    ]
    columns: dict[tuple[str, str], int] = {}
    rows = [[columns.setdefault(condition, len(columns)) for condition in combination] for combination in index]
    membership = np.zeros((len(index), len(columns)))
    for row, its_columns in enumerate(rows):
        membership[row, its_columns] = 1.0
    return np.array(stratum, dtype=np.int64), membership


def _fill(sequence: IntArray, stratum: IntArray, rng: np.random.Generator) -> IntArray:
    """Put the items of each stratum, shuffled, into its positions of `sequence`."""
    shuffled = rng.permutation(len(stratum))
    order = np.empty(len(stratum), dtype=np.int64)
    order[np.argsort(sequence, kind="stable")] = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    return order
