"""Configurations of a pipeline encoded as rows of small integers, also in spaces too large to enumerate.

The knobs of all operators are *columns*. A *code* is one configuration: the position of the choice in each column, or
`INACTIVE` where a condition of the knob is not met.
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
"""Code of a knob whose conditions are not met."""
FOREIGN = -2
"""Code of a choice that the space lacks."""
ENUMERATION_LIMIT = 200_000
"""Default maximum number of configurations for `enumerate`."""
_MAX_ACTIVATED = 64
"""Maximum number of neighbours by one change of a knob that activates further knobs."""


@dataclass(frozen=True)
class KnobDimension:
    """Knob of an operator."""

    operator: int
    """Index of the operator in topological order."""
    operator_name: str
    name: str
    choices: tuple[Scalar, ...]
    ordered: bool
    conditions: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(column, positions of choices) pairs; the knob is active if every column has one of its positions."""


@dataclass(frozen=True)
class ConfigurationSpace:
    """All configurations of a pipeline; d columns."""

    operators: tuple[str, ...]
    """Operators in topological order, including those without knobs."""
    columns: tuple[KnobDimension, ...]
    """Knobs operator by operator, in the order of the specification."""
    specification_order: tuple[int, ...]
    """Operator indexes in the order of the specification, which `circinus.specification.configurations` follows."""
    operator_sizes: tuple[int, ...]
    """Number of distinct knob values of each operator, in topological order."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> ConfigurationSpace:
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
        """Exact number of configurations, computed without enumeration."""
        return prod(self.operator_sizes)

    def operator_columns(self, operator: int) -> IntArray:
        """Return the columns of the operator's knobs, ascending."""
        return np.array(sorted(self._columns_of[operator]), dtype=np.int64)

    def ancestor_columns(self, pipeline: Pipeline, operator: str) -> IntArray:
        """Return the columns that an operator's output depends on: its own and its ancestors'."""
        names = {*pipeline.ancestors(operator), operator}
        return np.array([i for i, knob in enumerate(self.columns) if knob.operator_name in names], dtype=np.int64)

    def operator_codes(self, operator: int) -> IntArray:
        """Return all distinct knob values, (operator size, columns of the operator), in the order of `knob_values`."""
        codes = np.full((1, len(self.columns)), INACTIVE, dtype=np.int64)
        for column in self._columns_of[operator]:
            codes = self._expanded(codes, column, self._exists(codes, column))
        codes = codes[:, self.operator_columns(operator)]
        if not codes.shape[1]:
            return codes
        return codes[np.lexsort(np.maximum(codes, 0).T[::-1])]

    def encode(self, configurations: Sequence[Configuration]) -> IntArray:
        """Return (n, d) codes of `configurations`.

        Raises:
            ValueError: a configuration is not in this space.
        """
        codes = self.prefix_codes(configurations)
        knobs = [sum(len(own.values) for _, own in configuration.operators) for configuration in configurations]
        complete = self.valid(codes) & ((codes != INACTIVE).sum(axis=1) == knobs)
        for configuration, is_complete in zip(configurations, complete.tolist(), strict=True):
            if not is_complete or sorted(configuration) != sorted(self.operators):
                raise ValueError(f"{configuration} is not a configuration of the operators {', '.join(self.operators)}")
        return codes

    def prefix_codes(self, prefixes: Sequence[Configuration]) -> IntArray:
        """Return (n, d) codes of partial configurations, also of other pipelines, by the names of their knobs.

        Columns of missing knobs are `INACTIVE`, those of choices that this space lacks `FOREIGN`.
        """
        codes = np.full((len(prefixes), len(self.columns)), INACTIVE, dtype=np.int64)
        for row, prefix in enumerate(prefixes):
            values = {operator: own.as_dict() for operator, own in prefix.operators}
            for column, knob in enumerate(self.columns):
                choices = values.get(knob.operator_name, {})
                if knob.name in choices:
                    codes[row, column] = self._positions[column].get(choices[knob.name], FOREIGN)
        return codes

    def decode(self, codes: IntArray) -> tuple[Configuration, ...]:
        """Return the configurations of (n, d) valid codes."""
        configurations = []
        for row in codes.tolist():
            values: dict[str, dict[str, Scalar]] = {operator: {} for operator in self.operators}
            for knob, choice in zip(self.columns, row, strict=True):
                if choice != INACTIVE:
                    values[knob.operator_name][knob.name] = knob.choices[choice]
            configurations.append(
                Configuration.of({operator: KnobValues.of(choices) for operator, choices in values.items()})
            )
        return tuple(configurations)

    def valid(self, codes: IntArray) -> BoolArray:
        """Return (n,) whether each code has a choice for exactly the active knobs."""
        valid: BoolArray = np.all((codes >= INACTIVE) & (codes < self._choices), axis=1)
        inside = np.where(valid[:, None], codes, INACTIVE)
        for column in range(len(self.columns)):
            valid &= (inside[:, column] != INACTIVE) == self._exists(inside, column)
        return valid

    def resolved(self, codes: IntArray) -> IntArray:
        """Return (n, d) codes with `INACTIVE` instead of the choices of inactive knobs."""
        resolved = codes.copy()
        for columns in self._columns_of:
            for column in columns:
                resolved[~self._exists(resolved, column), column] = INACTIVE
        return resolved

    def random(self, rng: np.random.Generator, count: int) -> IntArray:
        """Return (count, d) random codes with uniform choices of the active knobs; codes may repeat."""
        return self.resolved(rng.integers(0, self._choices, size=(count, len(self.columns)), dtype=np.int64))

    def neighbours(self, code: IntArray) -> IntArray:
        """Return (m, d) codes that differ from (d,) `code` in one knob, by adjacent choices if the knob is ordered.

        Knobs that the change deactivates are removed; activated knobs take each of their choices (only the middle one
        if there would be more than a few dozen codes).
        """
        none = np.empty((0, len(self.columns)), dtype=np.int64)
        moves = [self.single_knob_changes(code, i, nearest=knob.ordered) for i, knob in enumerate(self.columns)]
        return np.concatenate([none, *moves])

    def single_knob_changes(self, code: IntArray, column: int, *, nearest: bool = False) -> IntArray:
        """Return (m, d) neighbours of (d,) `code` that differ in this knob, by adjacent choices only if `nearest`."""
        neighbours = [np.empty((0, len(self.columns)), dtype=np.int64)]
        current = int(code[column])
        for choice in range(len(self.columns[column].choices)) if current != INACTIVE else ():
            if choice != current and (abs(choice - current) == 1 or not nearest):
                changed = code[None, :].copy()
                changed[0, column] = choice
                neighbours.append(self._repaired(changed, column))
        return np.concatenate(neighbours)

    def enumerate(self, limit: int = ENUMERATION_LIMIT) -> IntArray:
        """Return (size, d) all codes, in the order of `circinus.specification.configurations`.

        Raises:
            ValueError: there are more than `limit`.
        """
        if self.size > limit:
            raise ValueError(f"{self.size} configurations exceed the limit of {limit}")
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
        """Columns of each operator, each after the columns of its conditions."""
        ordered = []
        for operator in range(len(self.operators)):
            remaining = [column for column, knob in enumerate(self.columns) if knob.operator == operator]
            done: list[int] = []
            while remaining:
                ready = next(c for c in remaining if all(on in done for on, _ in self.columns[c].conditions))
                remaining.remove(ready)
                done.append(ready)
            ordered.append(tuple(done))
        return tuple(ordered)

    @cached_property
    def _dependents(self) -> tuple[tuple[int, ...], ...]:
        """Columns that depend on each column, directly or not, each after the columns of its conditions."""
        dependents: list[tuple[int, ...]] = []
        for column, knob in enumerate(self.columns):
            reached = {column}
            for dependent in self._columns_of[knob.operator]:
                if any(on in reached for on, _ in self.columns[dependent].conditions):
                    reached.add(dependent)
            dependents.append(tuple(c for c in self._columns_of[knob.operator] if c in reached and c != column))
        return tuple(dependents)

    @cached_property
    def _allowed(self) -> tuple[tuple[tuple[int, BoolArray], ...], ...]:
        """Conditions of each column: (column, whether each choice and, last, `INACTIVE` meets the condition)."""
        conditions = []
        for knob in self.columns:
            tables = []
            for on, positions in knob.conditions:
                table = np.zeros(len(self.columns[on].choices) + 1, dtype=bool)
                table[list(positions)] = True
                tables.append((on, table))
            conditions.append(tuple(tables))
        return tuple(conditions)

    def _exists(self, codes: IntArray, column: int) -> BoolArray:
        """Return (n,) whether the column's knob is active; the columns of its conditions must be decided."""
        active = np.ones(len(codes), dtype=bool)
        for on, allowed in self._allowed[column]:
            active &= allowed[codes[:, on]]  # INACTIVE is the last entry
        return active

    def _expanded(self, codes: IntArray, column: int, selected: BoolArray) -> IntArray:
        """Return the codes with each selected one repeated for every choice of the column."""
        repeats = np.where(selected, self._choices[column], 1)
        expanded = np.repeat(codes, repeats, axis=0)
        first = np.repeat(np.cumsum(repeats) - repeats, repeats)
        is_expanded = np.repeat(selected, repeats)
        expanded[is_expanded, column] = (np.arange(len(expanded)) - first)[is_expanded]
        return expanded

    def _repaired(self, codes: IntArray, changed: int) -> IntArray:
        for column in self._dependents[changed]:
            exists = self._exists(codes, column)
            appears = exists & (codes[:, column] == INACTIVE)
            codes[~exists, column] = INACTIVE
            if len(codes) + int(appears.sum()) * (int(self._choices[column]) - 1) <= _MAX_ACTIVATED:
                codes = self._expanded(codes, column, appears)
            else:
                codes[appears, column] = self._choices[column] // 2
        return codes


def _columns(number: int, operator: OperatorSpec, first: int) -> list[KnobDimension]:
    position = {knob.name: i for i, knob in enumerate(operator.knobs)}
    columns = []
    for knob in operator.knobs:
        conditions = []
        for other, allowed in knob.only_if.items():
            choices = operator.knobs[position[other]].choices
            positions = tuple(i for i, choice in enumerate(choices) if choice in allowed)
            conditions.append((first + position[other], positions))
        columns.append(
            KnobDimension(number, operator.name, knob.name, tuple(knob.choices), knob.ordered, tuple(conditions))
        )
    return columns
