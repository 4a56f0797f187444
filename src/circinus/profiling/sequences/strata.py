"""Strata as covariates: their sizes are known before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.profiling.sequences.arrays import FloatArray

_MOST_COLUMNS = 64


def indicators(strata: Sequence[Mapping[str, str]], most: int = _MOST_COLUMNS) -> FloatArray:
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
