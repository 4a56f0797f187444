"""Recorded measurements of a pipeline, item by item, to profile from without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import ProfileError
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.profile import FailedConfiguration
from circinus.specification import Configuration, KnobValues, Pipeline, prefix_configuration


@dataclass(frozen=True)
class TraceOperator:
    """What has to agree between a trace and the specification that it is used with."""

    name: str
    after: tuple[str, ...]
    cpus: float
    """The fewest CPUs that it may be given: those that its service times were measured with."""


@dataclass(frozen=True)
class TraceReplica:
    """What was recorded of an operator with its knob values."""

    load_s: float
    """Seconds that the operator took to load."""
    peak_memory_bytes: int
    batch_ratio: Mapping[tuple[float, int], float] = field(default_factory=dict)
    """(CPUs, batch size) -> seconds for a full batch over the seconds of one of its items with the fewest CPUs; of what
    was measured alone."""
    startup_s: float | None = None
    """Seconds from asking for a replica until it could take work; None: not recorded apart, it is `load_s`."""

    @property
    def whole_start_s(self) -> float:
        """Seconds that starting a replica takes."""
        return self.load_s if self.startup_s is None else self.startup_s


@dataclass(frozen=True, eq=False)
class MeasurementTrace:
    """C configurations of a pipeline of O operators on N items.

    Service times and output sizes belong to a prefix, R of them in all, not to a configuration: configurations that
    share a prefix share its row.
    """

    pipeline: str
    operators: tuple[TraceOperator, ...]
    """(O,) in topological order."""
    configurations: tuple[Configuration, ...]
    """(C,)"""
    rows: IntArray
    """(C, O) row of `service_s` and `output_bytes` for the prefix of a configuration that ends with an operator."""
    service_s: FloatArray
    """(R, N) seconds for one item alone, with the fewest CPUs; NaN: not recorded."""
    output_bytes: FloatArray
    """(R, N) size of the output as it is sent; NaN: not recorded."""
    scores: FloatArray
    """(C, N) metric of each item; NaN: not recorded."""
    replicas: Mapping[tuple[str, KnobValues], TraceReplica]
    """(operator, its own knob values) -> what was recorded of it."""
    metric: str
    direction: str
    """`maximize` or `minimize`."""
    item_keys: tuple[str, ...]
    """(N,) in the order of the data set."""
    item_addresses: tuple[str, ...]
    """(N,) content addresses of the items."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items."""
    input_bytes: FloatArray
    """(N,) size of the pipeline's input as it is sent."""
    dataset_fingerprint: str
    code_versions: Mapping[str, str] = field(default_factory=dict)
    """`uses` reference of operators, metric and data set -> version of the code that was measured."""
    failures: tuple[FailedConfiguration, ...] = ()
    machine: Machine | None = None
    """Where it was recorded; None: nobody knows."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise ProfileError(f"trace of pipeline {self.pipeline}: {fault}")

    def check(self, pipeline: Pipeline) -> None:
        """Whether this is a trace of `pipeline` as it is specified now; its choices of knobs may be fewer or more.

        Raises:
            ProfileError: it is not.
        """
        expected = {o.name: TraceOperator(o.name, o.after, min(o.cpus)) for o in pipeline.operators}
        found = {operator.name: operator for operator in self.operators}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ProfileError(
                    f"trace of pipeline {self.pipeline}: found operator {_said(found.get(name))}, expected "
                    f"{_said(expected.get(name))} as pipeline {pipeline.name} has it; record it again"
                )
        metric = f"{pipeline.metric.name} to {pipeline.metric.direction}"
        if metric != f"{self.metric} to {self.direction}":
            raise ProfileError(
                f"trace of pipeline {self.pipeline}: found the metric {self.metric} to {self.direction}, expected "
                f"{metric} as pipeline {pipeline.name} has it; record it again"
            )


def prefix_rows(
    pipeline: Pipeline, configurations: Sequence[Configuration]
) -> tuple[IntArray, tuple[tuple[str, Configuration], ...]]:
    """(C, O) number of each prefix, operators in topological order; and for each number (operator, configuration) of
    which it is one."""
    topological = pipeline.topological_order()
    numbers: dict[tuple[str, Configuration], int] = {}
    owners: list[tuple[str, Configuration]] = []
    rows = np.empty((len(configurations), len(topological)), dtype=np.int64)
    for i, configuration in enumerate(configurations):
        for j, operator in enumerate(topological):
            key = operator.name, prefix_configuration(pipeline, configuration, operator.name)
            if key not in numbers:
                numbers[key] = len(owners)
                owners.append((operator.name, configuration))
            rows[i, j] = numbers[key]
    return rows, tuple(owners)


def _faults(trace: MeasurementTrace) -> list[str]:
    """What is wrong with a trace in itself."""
    items, configurations = len(trace.item_keys), len(trace.configurations)
    shapes = {
        "rows": (trace.rows, (configurations, len(trace.operators))),
        "service_s": (trace.service_s, (len(trace.service_s), items)),
        "output_bytes": (trace.output_bytes, (len(trace.service_s), items)),
        "scores": (trace.scores, (configurations, items)),
        "input_bytes": (trace.input_bytes, (items,)),
    }
    found = [
        f"found {name} of shape {array.shape}, expected {shape}"
        for name, (array, shape) in shapes.items()
        if array.shape != shape
    ]
    if not len(trace.item_addresses) == len(trace.strata) == items:
        found.append(f"found {len(trace.item_addresses)} addresses and {len(trace.strata)} strata of {items} items")
    if found:
        return found
    if len(set(trace.item_keys)) < items or len(set(trace.configurations)) < configurations:
        found.append("found an item or a configuration twice, expected each once")
    if trace.rows.size and not (trace.rows.min() >= 0 and trace.rows.max() < len(trace.service_s)):
        found.append(f"found rows outside 0 to {len(trace.service_s) - 1}")
    for name in ("service_s", "output_bytes", "input_bytes"):
        values: FloatArray = getattr(trace, name)
        if (values < 0).any() or np.isinf(values).any():
            found.append(f"found {name} that are negative or infinite, expected finite numbers of at least 0")
    if np.isnan(trace.input_bytes).any() or np.isinf(trace.scores).any():
        found.append("found input_bytes that are missing, or infinite scores")
    names = [operator.name for operator in trace.operators]
    for configuration in trace.configurations:
        if set(configuration) != set(names):
            found.append(f"found a configuration of {', '.join(configuration)}, expected one of {', '.join(names)}")
            continue
        found += [
            f"found nothing of the replicas of {name}({configuration[name]})"
            for name in names
            if (name, configuration[name]) not in trace.replicas
        ]
    return found


def _said(operator: TraceOperator | None) -> str:
    if operator is None:
        return "(none)"
    return f"{operator.name} after ({', '.join(operator.after)}) with {operator.cpus:g} CPUs at least"
