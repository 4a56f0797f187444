"""Runner interface of measurements, and its result types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item
from circinus.operators.run_clock import RunTimes
from circinus.profiling.item_runs import ItemRuns
from circinus.profiling.profile import FailedConfiguration
from circinus.specification import Configuration


class MeasurementError(OperatorError):
    """Configuration that cannot be measured, while others can."""

    def __init__(
        self, message: str, pipeline: str, configuration: Configuration, item_key: str | None, *, code: str
    ) -> None:
        """Create the error.

        Args:
            message: failed operator or metric and its error, without the configuration and the item.
            item_key: key of the item that failed, or None if the failure came before the first item.
        """
        location = f"pipeline {pipeline}, configuration {configuration}{f', item {item_key}' if item_key else ''}"
        super().__init__(message, code=code, location=location)
        self.configuration = configuration
        self.item_key = item_key

    @property
    def failure(self) -> FailedConfiguration:
        """Failure as listed in a profile."""
        return FailedConfiguration(self.configuration, self.item_key, self.message)


class NodeLostError(ProfileError):
    """Loss of the last measuring node of its kind."""


class NotRecordedError(MeasurementError):
    """Item without a recorded measurement, while other items have one. Not a failure of the configuration."""

    def __init__(self, pipeline: str, configuration: Configuration, item_key: str, recorded: tuple[Item, ...]) -> None:
        message = "the trace has no measurement of it"
        super().__init__(message, pipeline, configuration, item_key, code="trace.not_recorded")
        self.recorded = recorded
        """Items that have a recorded measurement."""


@dataclass(frozen=True)
class OperatorRuns:
    """Runs of one operator on n unbatched items, with the fewest allowed CPUs."""

    service_s: tuple[float, ...]
    """(n,) service times, of all runs for the item."""
    output_bytes: tuple[int, ...]
    """(n,) serialized sizes of the outputs, of all runs for the item."""
    times: tuple[RunTimes, ...] = ()
    """(n,) times that `service_s` follows from; empty where they were not recorded."""
    items: tuple[ItemRuns, ...] | None = None
    """(n,) runs for each item; None if each item had one run, with one output without a branch."""

    @classmethod
    def of_items(cls, items: Sequence[ItemRuns], times: Sequence[RunTimes] = ()) -> OperatorRuns:
        """Return the runs with their totals."""
        single = all(item.is_single for item in items)
        totals = tuple(item.total_s for item in items), tuple(round(item.total_bytes) for item in items)
        return cls(*totals, tuple(times), None if single else tuple(items))


@dataclass(frozen=True)
class ReplicaStats:
    """Statistics of an operator's replicas during a measurement."""

    load_s: tuple[float, ...]
    """Load time of the operator, for each started replica."""
    startup_s: tuple[float, ...]
    """Start-up time of the replica, from the request until it was ready, for each start."""
    peak_memory_bytes: int
    """Peak resident memory of a process with only this operator, including the interpreter but not child processes."""


@dataclass(frozen=True)
class ElapsedTimes:
    """Seconds of a measurement by the clock of the machine."""

    operators_s: float
    """Seconds in operators, with the first runs of replicas, which are not timed."""
    loading_s: float
    """Start-up seconds of the replicas that were started for the measurement."""


@dataclass(frozen=True)
class OperatorsMeasurement:
    """Measurement of some operators of one configuration, including their ancestors, on n items."""

    runs: Mapping[str, OperatorRuns]
    """Runs by operator, including those read from the prefix cache."""
    replicas: Mapping[str, ReplicaStats]
    """Statistics of the operators that ran."""
    compute_s: float
    """Service seconds of the measurement."""

    elapsed: ElapsedTimes | None = field(default=None, kw_only=True)
    """Times by the clock of the machine; None where service and start-up times are the only clock."""

    @property
    def saved_s(self) -> float:
        """Processing seconds saved by the prefix cache."""
        return max(0.0, sum(seconds for runs in self.runs.values() for seconds in runs.service_s) - self.compute_s)


@dataclass(frozen=True)
class Measurement(OperatorsMeasurement):
    """Measurement of one configuration on n items."""

    outputs: Mapping[str, tuple[bytes, ...]]
    """(n,) pickled outputs of each sink."""
    scores: tuple[float, ...]
    """(n,) metric values of the items."""


@dataclass(frozen=True)
class AllocationMeasurement:
    """Measurement of one operator under several allocations."""

    ratios: Mapping[tuple[float, int], float]
    """(CPUs, batch size) -> time of a full batch relative to one item on the fewest CPUs."""
    replica: ReplicaStats
    """Statistics over all allocations, with the starts on the fewest CPUs."""
    compute_s: float
    elapsed: ElapsedTimes | None = None
    """See `OperatorsMeasurement`."""


class OperatorRunner(Protocol):
    """Interface of runners that time operators of one pipeline."""

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        """Run some operators of a configuration, and their ancestors, on items.

        Raises:
            MeasurementError: an operator failed.
        """
        ...


class Runner(Protocol):
    """Interface of runners that measure configurations of one pipeline."""

    @property
    def cpus(self) -> float:
        """Number of CPUs available to an operator; allocations with more cannot be measured."""
        ...

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """Run a configuration on items.

        Raises:
            MeasurementError: an operator or the metric failed; `NotRecordedError` if some of the items have no
                recording.
            ProfileError: a score contradicts the metric's declaration.
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
