"""The words of a plan: configuration, placement, allocation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from circinus.specification.base_model import Scalar


@dataclass(frozen=True)
class KnobValues:
    """The knob values of one operator, sorted by name; knobs that do not exist under the others are absent.

    They are ordered, whatever their kinds: numbers and truth values stand before texts.
    """

    values: tuple[tuple[str, Scalar], ...] = ()

    def __lt__(self, other: KnobValues) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[tuple[str, bool, Scalar], ...]:
        return tuple((name, isinstance(value, str), value) for name, value in self.values)

    @classmethod
    def of(cls, values: Mapping[str, Scalar]) -> KnobValues:
        """From a mapping."""
        return cls(tuple(sorted(values.items())))

    def as_dict(self) -> dict[str, Scalar]:
        """To keyword arguments."""
        return dict(self.values)

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.values)


@dataclass(frozen=True, order=True)
class Configuration:
    """A value for every knob of a pipeline: operator name -> knob values, sorted by operator name."""

    operators: tuple[tuple[str, KnobValues], ...]

    @classmethod
    def of(cls, operators: Mapping[str, KnobValues]) -> Configuration:
        """From a mapping."""
        return cls(tuple(sorted(operators.items())))

    def __getitem__(self, operator: str) -> KnobValues:
        for name, values in self.operators:
            if name == operator:
                return values
        raise KeyError(operator)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.operators)

    def __str__(self) -> str:
        return " ".join(f"{name}({values})" for name, values in self.operators if values.values) or "(no knobs)"


@dataclass(frozen=True, order=True)
class Allocation:
    """What one replica of an operator is given, and how busy its deployment may become."""

    cpus: float
    batch_size: int
    utilization_target: float
    """Replicas are added until none is busy for a larger share of the time than this (0 < target < 1)."""


@dataclass(frozen=True)
class QueryPlan:
    """Configuration + placement + allocation: everything that is chosen for one query."""

    pipeline: str
    configuration: Configuration
    placement: tuple[tuple[str, str], ...]
    """(operator, pool), sorted by operator."""
    allocations: tuple[tuple[str, Allocation], ...]
    """(operator, allocation), sorted by operator."""

    def pool_of(self, operator: str) -> str:
        """The name of the pool that `operator` is placed in."""
        return dict(self.placement)[operator]

    def allocation_of(self, operator: str) -> Allocation:
        """The allocation of `operator`."""
        return dict(self.allocations)[operator]

    def deployment_of(self, operator: str) -> Deployment:
        """The deployment that `operator` runs in under this plan."""
        return Deployment(
            pipeline=self.pipeline,
            operator=operator,
            knobs=self.configuration[operator],
            pool=self.pool_of(operator),
            allocation=self.allocation_of(operator),
        )


@dataclass(frozen=True, order=True)
class Deployment:
    """One operator configuration running in one pool under one allocation, shared by every query routed to it."""

    pipeline: str
    operator: str
    knobs: KnobValues
    pool: str
    allocation: Allocation

    def __hash__(self) -> int:  # asked for millions of times: at once, not part by part
        a = self.allocation
        parts = self.pipeline, self.operator, self.knobs.values, self.pool, a.cpus, a.batch_size, a.utilization_target
        return hash(parts)

    @property
    def name(self) -> str:
        """A readable name, unique within a plan set."""
        knobs = f"({self.knobs})" if self.knobs.values else ""
        a = self.allocation
        return f"{self.pipeline}/{self.operator}{knobs}@{self.pool}:c{a.cpus:g}b{a.batch_size}u{a.utilization_target:g}"
