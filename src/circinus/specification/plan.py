"""Types of a plan: configuration, placement, allocation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from operator import not_
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from circinus.specification.base_model import Scalar


class _HashedOnce(ABC):
    """Base of values that are keys of dictionaries millions of times: their hash is computed once."""

    @property
    @abstractmethod
    def _key(self) -> object:
        """The fields."""

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, object]:  # another process hashes texts differently
        return {name: value for name, value in vars(self).items() if name != "_hash"}


@dataclass(frozen=True)
class KnobValues:
    """Knob values of one operator, sorted by name, without knobs whose condition is not met.

    Instances are totally ordered: numbers and booleans come before texts.
    """

    values: tuple[tuple[str, Scalar], ...] = ()

    def __lt__(self, other: KnobValues) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[tuple[str, bool, Scalar], ...]:
        return tuple((name, isinstance(value, str), value) for name, value in self.values)

    @classmethod
    def of(cls, values: Mapping[str, Scalar]) -> KnobValues:
        """Create knob values from a mapping."""
        return cls(tuple(sorted(values.items())))

    def as_dict(self) -> dict[str, Scalar]:
        """Return the values as keyword arguments."""
        return dict(self.values)

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.values)


@dataclass(frozen=True, order=True)
class Configuration(_HashedOnce):
    """Values for all knobs of a pipeline: operator name -> knob values, sorted by operator name."""

    operators: tuple[tuple[str, KnobValues], ...]

    __hash__ = _HashedOnce.__hash__

    @property
    def _key(self) -> object:
        return self.operators

    @classmethod
    def of(cls, operators: Mapping[str, KnobValues]) -> Configuration:
        """Create a configuration from a mapping."""
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
    """Resources and batch size of one replica, and the maximum utilization of its deployment."""

    cpus: float
    batch_size: int
    utilization_target: float
    """Maximum utilization of a replica in the plan, in (0, 1)."""


@dataclass(frozen=True)
class PlanShare:
    """A share of a query's requests, and the plan of these requests, which is not split."""

    share: float
    """In (0, 1]."""
    plan: QueryPlan


_SHARE_DIGITS = 9
"""Digits of the shares of a split plan, so many that whole replicas at their target are not exceeded."""


@dataclass(frozen=True)
class QueryPlan(_HashedOnce):
    """Plan of one query: configuration, placement and allocation.

    A split plan divides the requests among several plans. Its own configuration, placement and allocations are those of
    the largest share; `parts` are all.
    """

    pipeline: str
    configuration: Configuration
    placement: tuple[tuple[str, str], ...]
    """(operator, pool), sorted by operator."""
    allocations: tuple[tuple[str, Allocation], ...]
    """(operator, allocation), sorted by operator."""
    others: Annotated[tuple[PlanShare, ...], Field(exclude_if=not_)] = ()
    """Smaller shares of the requests with plans of their own, in descending order; empty if the plan is not split."""

    __hash__ = _HashedOnce.__hash__

    @property
    def _key(self) -> object:
        return self.pipeline, self.configuration, self.placement, self.allocations, self.others

    @classmethod
    def split(cls, parts: Iterable[PlanShare]) -> QueryPlan:
        """Return the plan that divides the requests among the plans of `parts`, in proportion to their shares.

        Equal plans are merged, and shares are rounded to a billionth. Parts whose share rounds to 0 are left out.

        Args:
            parts: of one query, none of them split; at least one with a positive share.
        """
        shares: dict[QueryPlan, float] = {}
        for part in parts:
            shares[part.plan] = shares.get(part.plan, 0.0) + part.share
        total = sum(shares.values())
        ordered = sorted(shares.items(), key=lambda entry: (-entry[1], entry[0].sort_key))
        first, *others = (PlanShare(round(share / total, _SHARE_DIGITS), plan) for plan, share in ordered)
        return replace(first.plan, others=tuple(part for part in others if part.share > 0))

    @property
    def parts(self) -> tuple[PlanShare, ...]:
        """All shares of the requests with their plans, in descending order; one of 1 if the plan is not split."""
        if not self.others:
            return (PlanShare(1.0, self),)
        first = round(1.0 - sum(part.share for part in self.others), _SHARE_DIGITS)
        return (PlanShare(first, replace(self, others=())), *self.others)

    @property
    def is_split(self) -> bool:
        """Whether the requests are divided among several plans."""
        return bool(self.others)

    @property
    def sort_key(self) -> tuple[Configuration, tuple[tuple[str, str], ...], tuple[tuple[str, Allocation], ...]]:
        """Key of a total order of the plans of a pipeline that are not split."""
        return self.configuration, self.placement, self.allocations

    def pool_of(self, operator: str) -> str:
        """Return the name of the pool of `operator`."""
        return dict(self.placement)[operator]

    def allocation_of(self, operator: str) -> Allocation:
        """Return the allocation of `operator`."""
        return dict(self.allocations)[operator]

    def deployment_of(self, operator: str) -> Deployment:
        """Return the deployment of `operator` under this plan."""
        return Deployment(
            pipeline=self.pipeline,
            operator=operator,
            knobs=self.configuration[operator],
            pool=self.pool_of(operator),
            allocation=self.allocation_of(operator),
        )

    @property
    def deployments(self) -> list[Deployment]:
        """Distinct deployments of all operators under all parts of this plan."""
        plans = [part.plan for part in self.parts]
        return list(dict.fromkeys(plan.deployment_of(operator) for plan in plans for operator, _ in plan.placement))


@dataclass(frozen=True, order=True)
class Deployment(_HashedOnce):
    """Operator with its knob values in one pool under one allocation, shared by all queries routed to it."""

    pipeline: str
    operator: str
    knobs: KnobValues
    pool: str
    allocation: Allocation

    __hash__ = _HashedOnce.__hash__

    @property
    def _key(self) -> object:
        a = self.allocation
        return self.pipeline, self.operator, self.knobs.values, self.pool, a.cpus, a.batch_size, a.utilization_target

    @property
    def name(self) -> str:
        """Readable name, unique within a plan set."""
        knobs = f"({self.knobs})" if self.knobs.values else ""
        a = self.allocation
        return f"{self.pipeline}/{self.operator}{knobs}@{self.pool}:c{a.cpus:g}b{a.batch_size}u{a.utilization_target:g}"


ReplicaKey = tuple[Deployment, int]
"""Key of the replicas of a deployment: the deployment with a target of 0, and a number."""


def replica_keys(
    deployments: Iterable[Deployment], running: Mapping[Deployment, ReplicaKey] = MappingProxyType({})
) -> dict[Deployment, ReplicaKey]:
    """Return a key of the replicas of each deployment of a state; replicas do not use the utilization target.

    A deployment that runs keeps its key. Others take over keys of deployments that end and differ from them in the
    target alone, both in the order of their targets; without one, they get the next number.

    Args:
        deployments: of the state.
        running: keys in the state before.
    """

    def target(deployment: Deployment) -> float:
        return deployment.allocation.utilization_target

    after = list(deployments)
    keys = {deployment: running[deployment] for deployment in after if deployment in running}
    taken, before = set(keys.values()), [running[deployment] for deployment in sorted(running, key=target)]
    for deployment in sorted((each for each in after if each not in keys), key=target):
        kind = replace(deployment, allocation=replace(deployment.allocation, utilization_target=0.0))
        possible = chain((key for key in before if key[0] == kind), ((kind, number) for number in count()))
        keys[deployment] = next(key for key in possible if key not in taken)
        taken.add(keys[deployment])
    return keys
