"""Profiling actor on a node of a pool."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from circinus.errors import CircinusError, OperatorError, ProfileError
from circinus.operators import Item
from circinus.profiling.hardware.machine import Machine, current_machine
from circinus.profiling.measurement.local_runner import LocalRunner, available_cpus
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    OperatorsMeasurement,
)
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys, pipeline_code
from circinus.specification import Configuration, Pipeline

_T = TypeVar("_T")


@dataclass(frozen=True)
class NodeInfo:
    """Description of a node."""

    machine: Machine
    host: str
    cpus: float
    """CPUs that a process may use."""


@dataclass(frozen=True)
class ProfilingRequest:
    """Pipeline and code to measure on a node."""

    pipeline: Pipeline
    code: CodeVersions
    """Code versions that the node must have."""
    hardware_class: str
    machine: Machine
    """Machine under which measurements are stored."""
    module_paths: tuple[Path, ...]
    timeout_s: float


@dataclass(frozen=True)
class RemoteError:
    """Serialized `CircinusError` of a failed measurement."""

    kind: Literal["measurement", "operator", "profile"]
    message: str
    configuration: Configuration | None = None
    item_key: str | None = None
    reason: str = ""
    code: str = "unspecified"
    location: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: CircinusError) -> RemoteError:
        """Serialize an error."""
        code, location, hint = error.code, error.location, error.hint
        if isinstance(error, MeasurementError):
            details = error.configuration, error.item_key, error.reason
            return cls("measurement", error.message, *details, code, location, hint)
        kind: Literal["operator", "profile"] = "operator" if isinstance(error, OperatorError) else "profile"
        return cls(kind, error.message, code=code, location=location, hint=hint)

    def error(self) -> CircinusError:
        """Rebuild the error with its code, location and hint."""
        problem: dict[str, str] = {"code": self.code, "location": self.location, "hint": self.hint}
        if self.kind == "measurement" and self.configuration is not None:
            return MeasurementError(self.message, self.configuration, self.item_key, self.reason, **problem)
        return (OperatorError if self.kind == "operator" else ProfileError)(self.message, **problem)


class ProfilingActor:
    """Ray actor that measures one pipeline on its node. It keeps loaded operators, outputs and received items."""

    def __init__(self, order: ProfilingRequest) -> None:
        self._order = order
        self._items: dict[str, Item] = {}
        self._runner: LocalRunner | None = None

    def open(self) -> NodeInfo | RemoteError:
        """Find the code; nothing is loaded before it is needed."""
        try:
            return self._open()
        except CircinusError as error:
            return RemoteError.of(error)

    def measure(
        self, configuration: Configuration, keys: Sequence[str], new: Sequence[bytes]
    ) -> Measurement | RemoteError:
        """As `Runner.measure`, on items by key, of which those not sent before come along, packed."""
        return self._answered(keys, new, lambda runner, items: runner.measure(configuration, items))

    def measure_operators(
        self, configuration: Configuration, keys: Sequence[str], new: Sequence[bytes], operators: Sequence[str]
    ) -> OperatorsMeasurement | RemoteError:
        """As `OperatorRunner.measure_operators`."""
        return self._answered(
            keys, new, lambda runner, items: runner.measure_operators(configuration, items, operators)
        )

    def measure_allocations(
        self,
        configuration: Configuration,
        keys: Sequence[str],
        new: Sequence[bytes],
        operator: str,
        allocations: Sequence[tuple[float, int]],
    ) -> AllocationMeasurement | RemoteError:
        """As `Runner.measure_allocations`."""
        return self._answered(
            keys, new, lambda runner, items: runner.measure_allocations(configuration, operator, allocations, items)
        )

    def close(self) -> None:
        """End every process that was started."""
        if self._runner is not None:
            self._runner.close()

    def _open(self) -> NodeInfo:
        order, facts = self._order, node_info()
        if facts.machine != order.machine:
            raise ProfileError(
                f"found {facts.machine} on node {facts.host}, expected {order.machine} as on the node before",
                code="ray.other_machine",
                location=f"hardware class {order.hardware_class}",
                hint="Give other machines a hardware class of their own.",
            )
        found = pipeline_code(order.pipeline, order.module_paths)
        for uses, version in order.code.operators.items():
            if found.operators[uses] != version:
                raise OperatorError(
                    f"found version {found.operators[uses][:12]} on node {facts.host}, expected {version[:12]}",
                    code="operator.other_version",
                    location=f"operator {uses}",
                    hint="Install the same code on all nodes.",
                )
        addresses = MeasurementKeys(order.pipeline, order.code, order.hardware_class, order.machine)
        self._runner = LocalRunner(addresses, order.module_paths, timeout_s=order.timeout_s)
        return facts

    def _answered(
        self, keys: Sequence[str], new: Sequence[bytes], measure: Callable[[LocalRunner, Sequence[Item]], _T]
    ) -> _T | RemoteError:
        try:
            if self._runner is None:
                raise ProfileError("`open` must be called before measuring", code="ray.not_opened")
            for data in new:
                item = _item(data)
                self._items[item.key] = item
            return measure(self._runner, [self._items[key] for key in keys])
        except CircinusError as error:
            return RemoteError.of(error)


def node_info() -> NodeInfo:
    """Of the node that this runs on."""
    return NodeInfo(current_machine(), socket.gethostname(), available_cpus())


def _item(data: bytes) -> Item:
    try:
        item: Item = unpickle_value(data)
    except Exception as error:  # unpickling runs whatever the value's own class does
        raise ProfileError(
            f"an item of the data set cannot be read: {type(error).__name__}: {error}",
            code="dataset.unreadable_item",
            location=f"node {node_info().host}",
            hint="Install the modules of its types on all nodes.",
        ) from error
    return item
