"""What measures: the interface, and what a measurement brings back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item
from circinus.profiling.profile import FailedConfiguration
from circinus.specification import Configuration


class MeasurementError(OperatorError):
    """A configuration cannot be measured; others can."""

    def __init__(self, message: str, configuration: Configuration, item_key: str | None, reason: str) -> None:
        super().__init__(message)
        self.configuration = configuration
        self.item_key = item_key
        """None: it failed before it met an item."""
        self.reason = reason
        """Which operator or metric failed and how, without the configuration and the item."""

    @property
    def failure(self) -> FailedConfiguration:
        """As a profile lists it."""
        return FailedConfiguration(self.configuration, self.item_key, self.reason)


class NodeLostError(ProfileError):
    """What measured is gone, and nothing of its kind is left to go on with."""


class NotRecordedError(MeasurementError):
    """There is no measurement of an item where measurements come from; of others there is. Nothing failed."""

    def __init__(self, where: str, configuration: Configuration, item_key: str, recorded: tuple[Item, ...]) -> None:
        reason = "the trace has no more measurements of it"
        super().__init__(f"{where}, item {item_key}: {reason}", configuration, item_key, reason)
        self.recorded = recorded
        """Those of the items that can be measured."""


@dataclass(frozen=True)
class OperatorRuns:
    """One operator over n items, each alone, with the fewest CPUs it may be given."""

    service_s: tuple[float, ...]
    """(n,) seconds."""
    output_bytes: tuple[int, ...]
    """(n,) size of the output as it is sent."""


@dataclass(frozen=True)
class ReplicaStats:
    """What was seen of an operator's replicas meanwhile."""

    load_s: tuple[float, ...]
    """Seconds that the operator took to load, each time that a replica had to be started."""
    startup_s: tuple[float, ...]
    """Seconds that the replica took each of these times, from being asked for until it could take work."""
    peak_memory_bytes: int
    """Greatest resident memory of a process that holds nothing but this operator, interpreter included. Programs that
    the operator starts itself are not in it."""


@dataclass(frozen=True)
class Measurement:
    """One configuration over n items."""

    runs: Mapping[str, OperatorRuns]
    """By operator, those taken from the prefix cache included."""
    outputs: Mapping[str, tuple[bytes, ...]]
    """By sink: (n,) its outputs, packed."""
    scores: tuple[float, ...]
    """(n,) metric of each item."""
    replicas: Mapping[str, ReplicaStats]
    """By operator, those that ran."""
    compute_s: float
    """Seconds of processing that it took."""
    saved_s: float
    """Seconds of processing that the prefix cache saved: what had to run without it and did not."""


@dataclass(frozen=True)
class AllocationMeasurement:
    """One operator under several allocations."""

    ratios: Mapping[tuple[float, int], float]
    """(CPUs, batch size) -> seconds for a full batch over the seconds of one of its items with the fewest CPUs."""
    replica: ReplicaStats
    """Over all allocations."""
    compute_s: float


@dataclass(frozen=True)
class OperatorsMeasurement:
    """Some operators of one configuration over n items, and all that come before them."""

    runs: Mapping[str, OperatorRuns]
    """By operator."""
    replicas: Mapping[str, ReplicaStats]
    """By operator."""
    compute_s: float
    """Seconds of processing that it took."""


class OperatorRunner(Protocol):
    """Measures how long operators of one pipeline take."""

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        """Run some operators of a configuration on items, with all that come before them and nothing else.

        Raises:
            MeasurementError: an operator failed.
        """
        ...


class Runner(Protocol):
    """Measures configurations of one pipeline."""

    @property
    def cpus(self) -> float:
        """CPUs it can give an operator: allocations of more cannot be measured."""
        ...

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """Run a configuration on items.

        Raises:
            MeasurementError: an operator or the metric failed; `UnrecordedError`: some of the items cannot be measured.
            ProfileError: a score contradicts what the metric declares.
        """
        ...

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """Run one operator of a configuration under (CPUs, batch size) pairs.

        Raises:
            MeasurementError: an operator failed.
        """
        ...
