"""Recorded measurements of a pipeline, item by item, which can be profiled without running operators."""

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
    """Properties of an operator that must agree between a trace and its specification."""

    name: str
    after: tuple[str, ...]
    cpus: float
    """Fewest allowed CPUs, which its service times were measured with."""


@dataclass(frozen=True)
class TraceReplica:
    """Recorded replica of an operator with its knob values."""

    load_s: float
    """Load time of the operator."""
    peak_memory_bytes: int
    batch_ratio: Mapping[tuple[float, int], float] = field(default_factory=dict)
    """(CPUs, batch size) -> time of a full batch relative to one item on the fewest CPUs; measured allocations only."""
    startup_s: float | None = None
    """Seconds from requesting a replica until it is ready; None if not recorded separately, then it is `load_s`."""

    @property
    def effective_startup_s(self) -> float:
        """Start-up time of a replica in seconds."""
        return self.load_s if self.startup_s is None else self.startup_s


@dataclass(frozen=True, eq=False)
class MeasurementTrace:
    """Measurements of C configurations of a pipeline of O operators on N items.

    Service times and output sizes belong to a prefix, of which there are R, not to a configuration: configurations that
    share a prefix share its row.
    """

    pipeline: str
    operators: tuple[TraceOperator, ...]
    """(O,) operators in topological order."""
    configurations: tuple[Configuration, ...]
    """(C,) configurations."""
    rows: IntArray
    """(C, O) row in `service_s` and `output_bytes` of the configuration's prefix that ends with the operator."""
    service_s: FloatArray
    """(R, N) service times of unbatched items on the fewest CPUs; NaN if not recorded."""
    output_bytes: FloatArray
    """(R, N) serialized sizes of the outputs; NaN if not recorded."""
    scores: FloatArray
    """(C, N) metric values; NaN if not recorded."""
    replicas: Mapping[tuple[str, KnobValues], TraceReplica]
    """Recorded replica by (operator, its own knob values)."""
    metric: str
    direction: str
    """`maximize` or `minimize`."""
    item_keys: tuple[str, ...]
    """(N,) item keys in the order of the data set."""
    item_addresses: tuple[str, ...]
    """(N,) content hashes of the items."""
    strata: tuple[Mapping[str, str], ...]
    """(N,) conditions of the items."""
    input_bytes: FloatArray
    """(N,) serialized sizes of the pipeline's inputs."""
    dataset_fingerprint: str
    code_versions: Mapping[str, str] = field(default_factory=dict)
    """`uses` reference of operators, metric and data set -> version of the measured code."""
    failures: tuple[FailedConfiguration, ...] = ()
    machine: Machine | None = None
    """Measuring machine, or None if it is unknown."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise ProfileError(fault, code="trace.inconsistent", location=f"trace of pipeline {self.pipeline}")

    def check(self, pipeline: Pipeline) -> None:
        """Check that this is a trace of `pipeline` with its current specification; knob choices may differ.

        Raises:
            ProfileError: an operator or the metric differs.
        """
        expected = {o.name: TraceOperator(o.name, o.after, min(o.cpus)) for o in pipeline.operators}
        traced = {operator.name: operator for operator in self.operators}
        for name in sorted(expected.keys() | traced.keys()):
            if expected.get(name) != traced.get(name):
                raise ProfileError(
                    f"found operator {_described(traced.get(name))}, expected {_described(expected.get(name))} as in "
                    f"pipeline {pipeline.name}",
                    code="trace.other_operator",
                    location=f"trace of pipeline {self.pipeline}",
                    hint="Record the trace again.",
                )
        metric = f"{pipeline.metric.name} to {pipeline.metric.direction}"
        if metric != f"{self.metric} to {self.direction}":
            raise ProfileError(
                f"found metric {self.metric} to {self.direction}, expected {metric} as in pipeline {pipeline.name}",
                code="trace.other_metric",
                location=f"trace of pipeline {self.pipeline}",
                hint="Record the trace again.",
            )


def prefix_rows(
    pipeline: Pipeline, configurations: Sequence[Configuration]
) -> tuple[IntArray, tuple[tuple[str, Configuration], ...]]:
    """Return (C, O) the index of each prefix, operators in topological order, and its operator and configuration.

    The second result has, for each index, an (operator, configuration) pair with this prefix.
    """
    topological = pipeline.topological_order()
    indexes: dict[tuple[str, Configuration], int] = {}
    owners: list[tuple[str, Configuration]] = []
    rows = np.empty((len(configurations), len(topological)), dtype=np.int64)
    for i, configuration in enumerate(configurations):
        for j, operator in enumerate(topological):
            key = operator.name, prefix_configuration(pipeline, configuration, operator.name)
            if key not in indexes:
                indexes[key] = len(owners)
                owners.append((operator.name, configuration))
            rows[i, j] = indexes[key]
    return rows, tuple(owners)


def _faults(trace: MeasurementTrace) -> list[str]:
    """Return the internal inconsistencies of a trace."""
    items, configurations = len(trace.item_keys), len(trace.configurations)
    shapes = {
        "rows": (trace.rows, (configurations, len(trace.operators))),
        "service_s": (trace.service_s, (len(trace.service_s), items)),
        "output_bytes": (trace.output_bytes, (len(trace.service_s), items)),
        "scores": (trace.scores, (configurations, items)),
        "input_bytes": (trace.input_bytes, (items,)),
    }
    faults = [
        f"found {name} of shape {array.shape}, expected {shape}"
        for name, (array, shape) in shapes.items()
        if array.shape != shape
    ]
    if not len(trace.item_addresses) == len(trace.strata) == items:
        faults.append(f"found {len(trace.item_addresses)} addresses and {len(trace.strata)} strata of {items} items")
    if faults:
        return faults
    if len(set(trace.item_keys)) < items or len(set(trace.configurations)) < configurations:
        faults.append("an item or a configuration occurs twice")
    if trace.rows.size and not (trace.rows.min() >= 0 and trace.rows.max() < len(trace.service_s)):
        faults.append(f"found rows outside 0 to {len(trace.service_s) - 1}")
    for name in ("service_s", "output_bytes", "input_bytes"):
        values: FloatArray = getattr(trace, name)
        if (values < 0).any() or np.isinf(values).any():
            faults.append(f"{name} must be finite and at least 0")
    if np.isnan(trace.input_bytes).any() or np.isinf(trace.scores).any():
        faults.append("input_bytes are missing, or scores are infinite")
    names = [operator.name for operator in trace.operators]
    for configuration in trace.configurations:
        if set(configuration) != set(names):
            faults.append(f"found a configuration of {', '.join(configuration)}, expected one of {', '.join(names)}")
            continue
        faults += [
            f"no replica is recorded for {name}({configuration[name]})"
            for name in names
            if (name, configuration[name]) not in trace.replicas
        ]
    return faults


def _described(operator: TraceOperator | None) -> str:
    if operator is None:
        return "(none)"
    return f"{operator.name} after ({', '.join(operator.after)}) with at least {operator.cpus:g} CPUs"
