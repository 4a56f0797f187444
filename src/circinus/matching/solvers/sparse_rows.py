"""Sparse matrix by rows, with fast sums of rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray

_DENSE_ENTRIES = 2_000_000
"""Maximum number of entries for which sums use a dense copy, which is many times faster."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A sparse matrix by rows: usage of each column (deployment or link) by each candidate."""

    start: IntArray
    """(rows + 1,) start of each row's entries."""
    column: IntArray
    """(entries,)"""
    value: FloatArray
    """(entries,)"""
    columns: int

    def row(self, index: int) -> tuple[IntArray, FloatArray]:
        """Return columns and values of one row."""
        entries = slice(self.start[index], self.start[index + 1])
        return self.column[entries], self.value[entries]

    @cached_property
    def _dense(self) -> tuple[FloatArray, BoolArray] | None:
        """Dense values and the mask of entries, or None if the matrix is too large."""
        rows = len(self.start) - 1
        if rows * self.columns > _DENSE_ENTRIES:
            return None
        values, entries = np.zeros((rows, self.columns)), np.zeros((rows, self.columns), dtype=bool)
        row, column, value = self.entries(0, rows)
        values[row, column] = value
        entries[row, column] = True
        return values, entries

    def has(self, rows: IntArray, column: int) -> BoolArray:
        """Return (rows,) whether each of the given rows has an entry in a column."""
        if self._dense is not None:
            return np.asarray(self._dense[1][rows, column])
        return np.array([column in self.row(int(index))[0] for index in rows], dtype=bool)

    def to_dense(self, first: int, last: int) -> tuple[IntArray, FloatArray, BoolArray]:
        """Return the rows `first` to `last` - 1 as dense arrays: columns with entries, values, mask of entries."""
        row, column, value = self.entries(first, last)
        columns, position = np.unique(column, return_inverse=True)
        values, entries = np.zeros((last - first, len(columns))), np.zeros((last - first, len(columns)), dtype=bool)
        values[row, position] = value
        entries[row, position] = True
        return columns, values, entries

    def entries(self, first: int, last: int) -> tuple[IntArray, IntArray, FloatArray]:
        """Return row (counted from `first`), column and value of all entries from row `first` to before `last`."""
        span = slice(self.start[first], self.start[last])
        row = np.repeat(np.arange(last - first), np.diff(self.start[first : last + 1]))
        return row, self.column[span], self.value[span]

    def total(self, rows: IntArray) -> tuple[FloatArray, BoolArray]:
        """Return the sum of the given rows for each column, and whether any of them has an entry there."""
        if self._dense is not None:
            values, entries = self._dense
            return values[rows].sum(axis=0), np.logical_or.reduce(entries[rows], axis=0)
        sums: FloatArray = np.zeros(self.columns, dtype=np.float64)
        used = np.full(self.columns, fill_value=False)
        for index in rows:
            columns, values = self.row(int(index))
            sums[columns] += values
            used[columns] = True
        return sums, used
