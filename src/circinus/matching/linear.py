"""A mixed-integer programme in plain arrays; knows no solver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(kw_only=True)
class LpModel:
    """Columns with bounds, and rows over them, collected as lists and handed over as arrays."""

    upper: list[float]
    """Upper bound of every column; lower bounds are 0, all columns are integers."""
    row_columns: list[IntArray] = field(default_factory=list)
    row_values: list[FloatArray] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)

    def add_row(self, columns: IntArray, values: FloatArray, lower: float, upper: float) -> None:
        """lower <= values @ columns <= upper."""
        self.row_columns.append(np.asarray(columns, dtype=np.int32))
        self.row_values.append(np.asarray(values, dtype=np.float64))
        self.row_lower.append(lower)
        self.row_upper.append(upper)

    @contextmanager
    def temporary_row(self, columns: IntArray, values: FloatArray, lower: float, upper: float) -> Iterator[None]:
        """A row for as long as the context lasts."""
        self.add_row(columns, values, lower, upper)
        try:
            yield
        finally:
            self.row_columns.pop()
            self.row_values.pop()
            self.row_lower.pop()
            self.row_upper.pop()
