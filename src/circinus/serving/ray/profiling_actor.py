"""Profiling actor on a node of a pool."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circinus.errors import CircinusError, OperatorError, ProfileError
from circinus.operators import Item
from circinus.operators.pickling import unpickle_value
from circinus.profiling.hardware.machine import Machine, available_cpus, current_machine
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys, pipeline_code
from circinus.specification import Configuration, Pipeline


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


class ProfilingActor:
    """Ray actor that measures one pipeline on its node. It keeps loaded operators, outputs and received items."""

    def __init__(self, request: ProfilingRequest) -> None:
        self._request = request
        self._items: dict[str, Item] = {}
        self._runner: LocalRunner | None = None

    def open(self) -> NodeInfo | CircinusError:
        """Check code and machine; operators load when needed. Errors are returned, as Ray wraps raised ones."""
        try:
            return self._open()
        except CircinusError as error:
            return error

    def measure(
        self, method: str, configuration: Configuration, keys: Sequence[str], new_items: Sequence[bytes], **options: Any
    ) -> Any:
        """Call a method of `Runner` or `OperatorRunner`, and return its result or its `CircinusError`.

        Args:
            method: name of the method.
            configuration: its configuration.
            keys: keys of its items.
            new_items: pickled items that were not sent before.
            options: its further arguments.
        """
        try:
            if self._runner is None:
                raise ProfileError("the actor was not opened before measuring", code="ray.not_opened")
            for data in new_items:
                item = _item(data)
                self._items[item.key] = item
            items = [self._items[key] for key in keys]
            return getattr(self._runner, method)(configuration, items=items, **options)
        except CircinusError as error:
            return error

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
