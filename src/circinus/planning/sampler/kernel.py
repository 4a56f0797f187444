"""Kernel over configurations, as products of correlations of knobs.

Every knob has a distance between two of its choices: the distance of positions on [0, 1] if the choices are ordered,
otherwise 0 or 1. Its correlation is the Matern function with smoothness 5/2 (Rasmussen & Williams 2006, eq. 4.17) of
the distance times the knob's inverse length scale; for unordered choices this is the overlap kernel. Inactivity is a
choice of its own; for an ordered knob it is in the middle of the range, with an additional correlation between active
and inactive, so that the product remains a kernel.

A *component* multiplies the correlations of some knobs; components are added with their scales. One component of all
knobs is the usual product. One for each operator plus one of all knobs is the additive form for large spaces (Duvenaud,
Nickisch & Rasmussen 2011), which learns each operator separately.
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
    """Kernel of one space; d columns, c components, s *slots*: each choice of each column, and its inactivity."""

    space: ConfigurationSpace
    components: BoolArray
    """(c, d) columns of each component, which are contiguous."""

    @classmethod
    def of(cls, space: ConfigurationSpace, *, additive: bool = False) -> KnobKernel:
        """Build the kernel: one component of all columns, after one for each operator with knobs if `additive`."""
        everything = np.ones((1, len(space.columns)), dtype=bool)
        operators = sorted({knob.operator for knob in space.columns})
        if not additive or len(operators) < 2:
            return cls(space, everything)
        own = np.array([[knob.operator == operator for knob in space.columns] for operator in operators])
        return cls(space, np.concatenate([own, everything]))

    def slots(self, codes: IntArray) -> FloatArray:
        """Return (n, s) one-hot slots of (n, d) codes."""
        one_hot = np.zeros((len(codes), int(self._first[-1])))
        absent_last = np.where(codes < 0, self._first[1:] - 1, self._first[:-1] + codes)
        np.put_along_axis(one_hot, absent_last, 1.0, axis=1)
        return one_hot

    def correlations(self, first: FloatArray, second: FloatArray, inverse_lengthscale: FloatArray) -> FloatArray:
        """Return (c, n, m) correlations for (n, s) and (m, s) slots and (d,) inverse length scales."""
        tables = self.logarithms(inverse_lengthscale)
        return np.exp(np.stack([first[:, own] @ (tables[own, own] @ second[:, own].T) for own in self.component_slots]))

    def cross_covariance(
        self, second: FloatArray, inverse_lengthscale: FloatArray, variances: FloatArray
    ) -> CrossCovariance:
        """Return the covariance with (m, s) slots, for (d,) inverse length scales and (c,) variances."""
        tables = self.logarithms(inverse_lengthscale)
        linear, exponents = np.zeros((second.shape[1], len(second))), []
        for own, component, variance in zip(self.component_slots, self.components, variances.tolist(), strict=True):
            logarithms = tables[own, own] @ second[:, own].T
            if component.sum() == 1:
                linear[own] += variance * np.exp(logarithms)
            else:
                exponents.append((own, logarithms, math.log(variance)))
        return CrossCovariance(linear if linear.any() else None, tuple(exponents))

    def logarithms(self, inverse_lengthscale: FloatArray) -> FloatArray:
        """Return (s, s) log correlations of two choices of one column; 0 between columns."""
        tables = np.zeros((int(self._first[-1]),) * 2)
        scale = inverse_lengthscale[self._pairs.columns]
        tables[self._pairs.first, self._pairs.second] = _log_matern(scale * self._pairs.distances) + _log_matern(
            scale * self._pairs.presences
        )
        return tables

    def slopes(self, inverse_lengthscale: FloatArray, weights: FloatArray) -> FloatArray:
        """Return (d,) derivatives of a weighted sum of log correlations by the log inverse length scales.

        `weights` is (s, s), over pairs of choices.
        """
        pairs = self._pairs
        scale = inverse_lengthscale[pairs.columns]
        slopes = _log_matern_slope(scale * pairs.distances) + _log_matern_slope(scale * pairs.presences)
        derivatives = np.zeros(len(self.space.columns))
        np.add.at(derivatives, pairs.columns, slopes * weights[pairs.first, pairs.second])
        return derivatives

    @cached_property
    def _first(self) -> IntArray:
        """(d + 1,) first slot of each column."""
        return np.cumsum([0] + [len(knob.choices) + 1 for knob in self.space.columns], dtype=np.int64)

    @cached_property
    def component_slots(self) -> tuple[slice, ...]:
        """Slots of each component; the columns of an operator are contiguous."""
        slices = []
        for component in self.components:
            columns = np.flatnonzero(component)
            slices.append(slice(self._first[columns[0]], self._first[columns[-1] + 1]) if len(columns) else slice(0))
        return tuple(slices)

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
            first, second = np.indices((count, count)) + self._first[column]
            columns = np.full((count, count), column)
            parts.append([array.ravel() for array in (columns, first, second, distances, presences)])
        if not parts:
            none, nothing = np.empty(0, dtype=np.int64), np.empty(0)
            return _Pairs(none, none, none, nothing, nothing)
        return _Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class CrossCovariance:
    """Covariances of any codes with m given codes, fast enough for thousands of predictions."""

    linear: FloatArray | None
    """(s, m) covariance of the components of one column, which are tables of choices; None without such components."""
    exponents: tuple[tuple[slice, FloatArray, float], ...]
    """Remaining components: slots, (own slots, m) log correlations, log variance."""

    def add_to(self, total: FloatArray, first: FloatArray) -> None:
        """Add the covariances of (n, s) slots, over all components, to the (n, m) array in place."""
        if self.linear is not None:
            total += first @ self.linear
        for own, logarithms, log_variance in self.exponents:
            part = first[:, own] @ logarithms
            part += log_variance
            total += np.exp(part, out=part)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of choices of every column."""

    columns: IntArray
    first: IntArray
    """Slot of the first choice."""
    second: IntArray
    """Slot of the second choice."""
    distances: FloatArray
    presences: FloatArray
    """1 if exactly one of the two is the inactivity of an ordered knob."""


def _log_matern(distance: FloatArray) -> FloatArray:
    scaled = _ROOT_5 * distance
    return np.asarray(np.log1p(scaled + scaled**2 / 3) - scaled)


def _log_matern_slope(distance: FloatArray) -> FloatArray:
    """Return the derivative of `_log_matern` by the log distance."""
    scaled = _ROOT_5 * distance
    return np.asarray(-(scaled**2) * (1 + scaled) / (3 + 3 * scaled + scaled**2))
