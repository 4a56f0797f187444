"""The configurations of a pipeline as rows of small integers, whether they can be listed or not.

Knobs of all operators stand side by side as *columns*. A *code* is one configuration: the position of the choice in
each column, and `ABSENT` where the knob does not exist under the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.specification import Configuration, KnobValues, OperatorSpec, Pipeline, knob_values_count
from circinus.specification.base_model import Scalar

INACTIVE = -1
"""In place of a choice where the knob does not exist under the others."""
LISTED_AT_MOST = 200_000
"""Configurations that `everything` lists unless it is told otherwise."""
_APPEARING_AT_MOST = 64
"""Neighbours by one change of a knob that makes others appear."""


@dataclass(frozen=True)
class KnobDimension:
    """One knob of one operator."""

    operator: int
    """In topological order."""
    operator_name: str
    name: str
    choices: tuple[Scalar, ...]
    ordered: bool
    conditions: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(column, positions of the choices under which this knob exists); all of them must hold."""


@dataclass(frozen=True)
class ConfigurationSpace:
    """All configurations of a pipeline; d columns."""

    operators: tuple[str, ...]
    """In topological order, those without knobs too."""
    columns: tuple[KnobDimension, ...]
    """Operator by operator, in each the order of the specification."""
    specification_order: tuple[int, ...]
    """The operators in the order of the specification, which is that of `configurations`."""
    operator_sizes: tuple[int, ...]
    """How many distinct knob values each operator has, in topological order."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> ConfigurationSpace:
        """The space of `pipeline`."""
        ordered = pipeline.topological_order()
        columns: list[KnobDimension] = []
        for number, operator in enumerate(ordered):
            columns += _columns(number, operator, len(columns))
        names = tuple(operator.name for operator in ordered)
        return cls(
            names,
            tuple(columns),
            tuple(names.index(operator.name) for operator in pipeline.operators),
            tuple(knob_values_count(operator) for operator in ordered),
        )

    @cached_property
    def size(self) -> int:
        """How many configurations there are, exactly and without listing them."""
        return prod(self.operator_sizes)

    def operator_columns(self, operator: int) -> IntArray:
        """The columns of the operator's knobs, ascending."""
        return np.array(sorted(self._columns_of[operator]), dtype=np.int64)

    def ancestor_columns(self, pipeline: Pipeline, operator: str) -> IntArray:
        """The columns that the output of an operator depends on: of its own knobs and of its ancestors'."""
        names = {*pipeline.ancestors(operator), operator}
        return np.array([i for i, knob in enumerate(self.columns) if knob.operator_name in names], dtype=np.int64)

    def operator_codes(self, operator: int) -> IntArray:
        """(its size, columns of the operator) all distinct knob values, in the order of `knob_values`."""
        codes = np.full((1, len(self.columns)), INACTIVE, dtype=np.int64)
        for column in self._columns_of[operator]:
            codes = self._expanded(codes, column, self._exists(codes, column))
        codes = codes[:, self.operator_columns(operator)]
        if not codes.shape[1]:
            return codes
        return codes[np.lexsort(np.maximum(codes, 0).T[::-1])]

    def encode(self, configurations: Sequence[Configuration]) -> IntArray:
        """(n, d) codes of `configurations`.

        Raises:
            ValueError: one of them is not of this space.
        """
        codes = np.full((len(configurations), len(self.columns)), INACTIVE, dtype=np.int64)
        for row, configuration in enumerate(configurations):
            values = {operator: configuration[operator].as_dict() for operator in configuration}
            for column, knob in enumerate(self.columns):
                found = values.get(knob.operator_name, {})
                if knob.name in found:
                    codes[row, column] = self._positions[column].get(found.pop(knob.name), len(knob.choices))
            if sorted(values) != sorted(self.operators) or any(values.values()) or not self.valid(codes[[row]]).all():
                raise ValueError(f"{configuration} is not a configuration of the operators {', '.join(self.operators)}")
        return codes

    def prefix_codes(self, prefixes: Sequence[Configuration]) -> IntArray:
        """(n, d) codes of prefixes of configurations; `ABSENT` in the columns of operators that they lack."""
        codes = np.full((len(prefixes), len(self.columns)), INACTIVE, dtype=np.int64)
        for row, prefix in enumerate(prefixes):
            values = {operator: own.as_dict() for operator, own in prefix.operators}
            for column, knob in enumerate(self.columns):
                found = values.get(knob.operator_name, {})
                if knob.name in found:
                    codes[row, column] = self._positions[column][found[knob.name]]
        return codes

    def decode(self, codes: IntArray) -> tuple[Configuration, ...]:
        """The configurations of (n, d) valid codes."""
        found = []
        for row in codes.tolist():
            values: dict[str, dict[str, Scalar]] = {operator: {} for operator in self.operators}
            for knob, choice in zip(self.columns, row, strict=True):
                if choice != INACTIVE:
                    values[knob.operator_name][knob.name] = knob.choices[choice]
            found.append(Configuration.of({operator: KnobValues.of(those) for operator, those in values.items()}))
        return tuple(found)

    def valid(self, codes: IntArray) -> BoolArray:
        """(n,) whether each code has a choice for exactly those knobs that exist under its others."""
        found: BoolArray = np.all((codes >= INACTIVE) & (codes < self._choices), axis=1)
        inside = np.where(found[:, None], codes, INACTIVE)
        for column in range(len(self.columns)):
            found &= (inside[:, column] != INACTIVE) == self._exists(inside, column)
        return found

    def resolved(self, codes: IntArray) -> IntArray:
        """(n, d) with a choice in every column -> the same without those knobs that do not exist under the others."""
        found = codes.copy()
        for columns in self._columns_of:
            for column in columns:
                found[~self._exists(found, column), column] = INACTIVE
        return found

    def random(self, rng: np.random.Generator, count: int) -> IntArray:
        """(count, d) codes: every knob that exists takes each of its choices alike; repetitions occur."""
        return self.resolved(rng.integers(0, self._choices, size=(count, len(self.columns)), dtype=np.int64))

    def neighbours(self, code: IntArray) -> IntArray:
        """(d,) -> (m, d) all that differ by the choice of one knob, the nearest only where choices are ordered.

        Knobs that vanish by the change are left out, those that appear take each of their choices (only the middle one
        as soon as there would be more than a few dozen by the one change).
        """
        none = np.empty((0, len(self.columns)), dtype=np.int64)
        moves = [self.single_knob_changes(code, i, nearest=knob.ordered) for i, knob in enumerate(self.columns)]
        return np.concatenate([none, *moves])

    def single_knob_changes(self, code: IntArray, column: int, *, nearest: bool = False) -> IntArray:
        """(d,) -> (m, d) those neighbours that differ by this knob, by its next choices only if `nearest`."""
        found = [np.empty((0, len(self.columns)), dtype=np.int64)]
        now = int(code[column])
        for choice in range(len(self.columns[column].choices)) if now != INACTIVE else ():
            if choice != now and (abs(choice - now) == 1 or not nearest):
                changed = code[None, :].copy()
                changed[0, column] = choice
                found.append(self._repaired(changed, column))
        return np.concatenate(found)

    def enumerate(self, limit: int = LISTED_AT_MOST) -> IntArray:
        """(size, d) all codes, in the order of `configurations`.

        Raises:
            ValueError: there are more than `limit`.
        """
        if self.size > limit:
            raise ValueError(f"found {self.size} configurations to list, expected at most {limit}")
        codes = np.full((self.size, len(self.columns)), INACTIVE, dtype=np.int64)
        repeats = self.size
        for operator in self.specification_order:
            own = self.operator_codes(operator)
            repeats //= len(own)
            rows = np.arange(self.size) // repeats % len(own)
            codes[:, self.operator_columns(operator)] = own[rows]
        return codes

    @cached_property
    def _choices(self) -> IntArray:
        return np.array([len(knob.choices) for knob in self.columns], dtype=np.int64)

    @cached_property
    def _positions(self) -> tuple[dict[Scalar, int], ...]:
        return tuple({choice: i for i, choice in enumerate(knob.choices)} for knob in self.columns)

    @cached_property
    def _columns_of(self) -> tuple[tuple[int, ...], ...]:
        """For each operator its columns, each after all that its conditions are on."""
        found = []
        for operator in range(len(self.operators)):
            waiting = [column for column, knob in enumerate(self.columns) if knob.operator == operator]
            done: list[int] = []
            while waiting:
                free = next(c for c in waiting if all(on in done for on, _ in self.columns[c].conditions))
                waiting.remove(free)
                done.append(free)
            found.append(tuple(done))
        return tuple(found)

    @cached_property
    def _dependents(self) -> tuple[tuple[int, ...], ...]:
        """For each column those that exist under it, directly or not, each after all that its conditions are on."""
        found: list[tuple[int, ...]] = []
        for column, knob in enumerate(self.columns):
            reached = {column}
            for other in self._columns_of[knob.operator]:
                if any(on in reached for on, _ in self.columns[other].conditions):
                    reached.add(other)
            found.append(tuple(c for c in self._columns_of[knob.operator] if c in reached and c != column))
        return tuple(found)

    @cached_property
    def _allowed(self) -> tuple[tuple[tuple[int, BoolArray], ...], ...]:
        """For each column its conditions: (column on which, whether each choice and, last, absence allows it)."""
        found = []
        for knob in self.columns:
            tables = []
            for on, positions in knob.conditions:
                table = np.zeros(len(self.columns[on].choices) + 1, dtype=bool)
                table[list(positions)] = True
                tables.append((on, table))
            found.append(tuple(tables))
        return tuple(found)

    def _exists(self, codes: IntArray, column: int) -> BoolArray:
        """(n,) whether the column's knob exists, where all that its conditions are on is decided."""
        found = np.ones(len(codes), dtype=bool)
        for on, allowed in self._allowed[column]:
            found &= allowed[codes[:, on]]  # ABSENT is the last entry
        return found

    def _expanded(self, codes: IntArray, column: int, which: BoolArray) -> IntArray:
        """Every code of `which` once for each choice of the column, the others once."""
        times = np.where(which, self._choices[column], 1)
        found = np.repeat(codes, times, axis=0)
        first = np.repeat(np.cumsum(times) - times, times)
        chosen = np.repeat(which, times)
        found[chosen, column] = (np.arange(len(found)) - first)[chosen]
        return found

    def _repaired(self, codes: IntArray, changed: int) -> IntArray:
        for column in self._dependents[changed]:
            exists = self._exists(codes, column)
            appears = exists & (codes[:, column] == INACTIVE)
            codes[~exists, column] = INACTIVE
            if len(codes) + int(appears.sum()) * (int(self._choices[column]) - 1) <= _APPEARING_AT_MOST:
                codes = self._expanded(codes, column, appears)
            else:
                codes[appears, column] = self._choices[column] // 2
        return codes


def _columns(number: int, operator: OperatorSpec, first: int) -> list[KnobDimension]:
    """The knobs of one operator, the first of which is column `first`."""
    position = {knob.name: i for i, knob in enumerate(operator.knobs)}
    found = []
    for knob in operator.knobs:
        conditions = []
        for other, allowed in knob.only_if.items():
            choices = operator.knobs[position[other]].choices
            positions = tuple(i for i, choice in enumerate(choices) if choice in allowed)
            conditions.append((first + position[other], positions))
        found.append(
            KnobDimension(number, operator.name, knob.name, tuple(knob.choices), knob.ordered, tuple(conditions))
        )
    return found
