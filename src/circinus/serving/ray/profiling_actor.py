"""Profiling actor on a node of a pool."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from circinus.errors import CircinusError, OperatorError, ProfileError
from circinus.operators import Item
from circinus.operators.pickling import unpickle_value
from circinus.profiling.hardware.machine import Machine, current_machine
from circinus.profiling.measurement.local_runner import LocalRunner, available_cpus
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

    def __init__(self, request: ProfilingRequest) -> None:
        self._request = request
        self._items: dict[str, Item] = {}
        self._runner: LocalRunner | None = None

    def open(self) -> NodeInfo | RemoteError:
        """Check code and machine; operators are loaded when they are needed."""
        try:
            return self._open()
        except CircinusError as error:
            return RemoteError.of(error)

    def measure(
        self, configuration: Configuration, keys: Sequence[str], new_items: Sequence[bytes]
    ) -> Measurement | RemoteError:
        """Measure items by key (see `Runner.measure`); `new_items` holds the pickled items not sent before."""
        return self._measured(keys, new_items, lambda runner, items: runner.measure(configuration, items))

    def measure_operators(
        self, configuration: Configuration, keys: Sequence[str], new_items: Sequence[bytes], operators: Sequence[str]
    ) -> OperatorsMeasurement | RemoteError:
        """See `OperatorRunner.measure_operators`."""
        return self._measured(
            keys, new_items, lambda runner, items: runner.measure_operators(configuration, items, operators)
        )

    def measure_allocations(
        self,
        configuration: Configuration,
        keys: Sequence[str],
        new_items: Sequence[bytes],
        operator: str,
        allocations: Sequence[tuple[float, int]],
    ) -> AllocationMeasurement | RemoteError:
        """See `Runner.measure_allocations`."""
        return self._measured(
            keys,
            new_items,
            lambda runner, items: runner.measure_allocations(configuration, operator, allocations, items),
        )

    def close(self) -> None:
        """End all processes that were started."""
        if self._runner is not None:
            self._runner.close()

    def _open(self) -> NodeInfo:
        request, info = self._request, node_info()
        if info.machine != request.machine:
            raise ProfileError(
                f"node {info.host} is {info.machine}, expected {request.machine} as the previous node",
                code="ray.other_machine",
                location=f"hardware class {request.hardware_class}",
                hint="Declare a separate hardware class for each kind of machine.",
            )
        code = pipeline_code(request.pipeline, request.module_paths)
        for uses, version in request.code.operators.items():
            if code.operators[uses] != version:
                raise OperatorError(
                    f"node {info.host} has version {code.operators[uses][:12]}, expected {version[:12]}",
                    code="operator.other_version",
                    location=f"operator {uses}",
                    hint="Install the same code on all nodes.",
                )
        addresses = MeasurementKeys(request.pipeline, request.code, request.hardware_class, request.machine)
        self._runner = LocalRunner(addresses, request.module_paths, timeout_s=request.timeout_s)
        return info

    def _measured(
        self, keys: Sequence[str], new_items: Sequence[bytes], measure: Callable[[LocalRunner, Sequence[Item]], _T]
    ) -> _T | RemoteError:
        try:
            if self._runner is None:
                raise ProfileError("the actor was not opened before measuring", code="ray.not_opened")
            for data in new_items:
                item = _item(data)
                self._items[item.key] = item
            return measure(self._runner, [self._items[key] for key in keys])
        except CircinusError as error:
            return RemoteError.of(error)


def node_info() -> NodeInfo:
    """Return the description of the current node."""
    return NodeInfo(current_machine(), socket.gethostname(), available_cpus())


def _item(data: bytes) -> Item:
    try:
        item: Item = unpickle_value(data)
    except Exception as error:  # unpickling runs code of the value's class
        raise ProfileError(
            f"cannot unpickle an item of the data set: {type(error).__name__}: {error}",
            code="dataset.unreadable_item",
            location=f"node {node_info().host}",
            hint="Install the modules of its types on all nodes.",
        ) from error
    return item
