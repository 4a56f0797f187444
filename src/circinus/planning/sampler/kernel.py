"""How alike two configurations are, knob by knob.

Every knob has a distance between two of its choices: that of their positions on [0, 1] where the choices are ordered,
0 or 1 where they are not. Its correlation is Matern's with smoothness 5/2 (Rasmussen & Williams 2006, eq. 4.17) of the
distance times the knob's *sharpness*, an inverse length scale; on unordered choices that is the overlap kernel. A knob
that does not exist is a choice of its own; of an ordered knob it stands in the middle, times a second correlation of
existing with not existing, so that the product of both remains a kernel.

A *component* multiplies the correlations of some knobs; components add up with their scales. One component of all knobs
is the usual product. One for each operator plus one of all knobs is the additive form for large spaces (Duvenaud,
Nickisch & Rasmussen 2011), which learns each operator apart from the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace

_ROOT_5 = 5.0**0.5


@dataclass(frozen=True, eq=False)
class KnobKernel:
    """The kernel of one space; d columns, c components, s *slots*: each choice of each column, and its absence."""

    space: ConfigurationSpace
    components: BoolArray
    """(c, d) which columns each component multiplies, columns that stand together."""

    @classmethod
    def of(cls, space: ConfigurationSpace, *, additive: bool = False) -> KnobKernel:
        """One component of all columns, last; before it, if `additive`, one for each operator that has knobs."""
        everything = np.ones((1, len(space.columns)), dtype=bool)
        operators = sorted({knob.operator for knob in space.columns})
        if not additive or len(operators) < 2:
            return cls(space, everything)
        own = np.array([[knob.operator == operator for knob in space.columns] for operator in operators])
        return cls(space, np.concatenate([own, everything]))

    def slots(self, codes: IntArray) -> FloatArray:
        """(n, d) codes -> (n, s), 1 in the slot of each column's choice, else 0."""
        found = np.zeros((len(codes), int(self._first[-1])))
        absent_last = np.where(codes < 0, self._first[1:] - 1, self._first[:-1] + codes)
        np.put_along_axis(found, absent_last, 1.0, axis=1)
        return found

    def correlations(self, first: FloatArray, second: FloatArray, sharpness: FloatArray) -> FloatArray:
        """(n, s) and (m, s) slots, (d,) sharpness -> (c, n, m) correlations of each component, 1 for equal codes."""
        tables = self.logarithms(sharpness)
        return np.exp(np.stack([first[:, own] @ (tables[own, own] @ second[:, own].T) for own in self._own]))

    def cross_covariance(self, second: FloatArray, sharpness: FloatArray, variances: FloatArray) -> CrossCovariance:
        """What `Towards` needs to know of (m, s) slots, (d,) sharpness and (c,) variances."""
        tables = self.logarithms(sharpness)
        linear, exponents = np.zeros((second.shape[1], len(second))), []
        for own, component, variance in zip(self._own, self.components, variances.tolist(), strict=True):
            logarithms = tables[own, own] @ second[:, own].T
            if component.sum() == 1:
                linear[own] += variance * np.exp(logarithms)
            else:
                exponents.append((own, logarithms, math.log(variance)))
        return CrossCovariance(linear if linear.any() else None, tuple(exponents))

    def logarithms(self, sharpness: FloatArray) -> FloatArray:
        """(d,) -> (s, s) logarithms of the correlations of two choices of one column; 0 between columns."""
        tables = np.zeros((int(self._first[-1]),) * 2)
        scale = sharpness[self._pairs.columns]
        tables[self._pairs.rows, self._pairs.others] = _log_matern(scale * self._pairs.distances) + _log_matern(
            scale * self._pairs.presences
        )
        return tables

    def slopes(self, sharpness: FloatArray, weights: FloatArray) -> FloatArray:
        """(d,) sum over pairs of choices of `weights` (s, s) times the derivative of `logarithms` by log sharpness."""
        pairs = self._pairs
        scale = sharpness[pairs.columns]
        slopes = _log_matern_slope(scale * pairs.distances) + _log_matern_slope(scale * pairs.presences)
        found = np.zeros(len(self.space.columns))
        np.add.at(found, pairs.columns, slopes * weights[pairs.rows, pairs.others])
        return found

    @cached_property
    def _first(self) -> IntArray:
        """(d + 1,) the first slot of each column."""
        return np.cumsum([0] + [len(knob.choices) + 1 for knob in self.space.columns], dtype=np.int64)

    @cached_property
    def _own(self) -> tuple[slice, ...]:
        """The slots of each component; the columns of an operator stand together."""
        found = []
        for component in self.components:
            columns = np.flatnonzero(component)
            found.append(slice(self._first[columns[0]], self._first[columns[-1] + 1]) if len(columns) else slice(0))
        return tuple(found)

    @cached_property
    def _pairs(self) -> _Pairs:
        parts = []
        for column, knob in enumerate(self.space.columns):
            count = len(knob.choices) + 1
            absent = np.arange(count) == count - 1
            if knob.ordered:
                positions = np.append(np.linspace(0.0, 1.0, count - 1) if count > 2 else [0.5], 0.5)
                distances = abs(positions[:, None] - positions[None, :])
                presences = (absent[:, None] != absent[None, :]).astype(np.float64)
            else:
                distances = 1.0 - np.eye(count)
                presences = np.zeros((count, count))
            rows, others = np.indices((count, count)) + self._first[column]
            columns = np.full((count, count), column)
            parts.append([array.ravel() for array in (columns, rows, others, distances, presences)])
        if not parts:
            none, nothing = np.empty(0, dtype=np.int64), np.empty(0)
            return _Pairs(none, none, none, nothing, nothing)
        return _Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class CrossCovariance:
    """Covariances of any codes with m given ones, as fast as predictions of thousands need them."""

    linear: FloatArray | None
    """(s, m) the part of components of one column, whose covariances are tables of choices; None: no such."""
    exponents: tuple[tuple[slice, FloatArray, float], ...]
    """The other components: slots, (own slots, m) logarithms of correlations, logarithm of the variance."""

    def add_to(self, found: FloatArray, first: FloatArray) -> None:
        """Add to (n, m) `found` those of (n, s) slots, all components."""
        if self.linear is not None:
            found += first @ self.linear
        for own, logarithms, log_variance in self.exponents:
            part = first[:, own] @ logarithms
            part += log_variance
            found += np.exp(part, out=part)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every two choices of every column."""

    columns: IntArray
    rows: IntArray
    """Slot of the first choice."""
    others: IntArray
    """Slot of the second choice."""
    distances: FloatArray
    presences: FloatArray
    """1 where one of the two is the absence of an ordered knob."""


def matern(distance: FloatArray) -> FloatArray:
    """Matern's correlation with smoothness 5/2 and length scale 1."""
    return np.exp(_log_matern(distance))


def _log_matern(distance: FloatArray) -> FloatArray:
    scaled = _ROOT_5 * distance
    return np.asarray(np.log1p(scaled + scaled**2 / 3) - scaled)


def _log_matern_slope(distance: FloatArray) -> FloatArray:
    """Derivative of `_log_matern` by the logarithm of the distance."""
    scaled = _ROOT_5 * distance
    return np.asarray(-(scaled**2) * (1 + scaled) / (3 + 3 * scaled + scaled**2))
