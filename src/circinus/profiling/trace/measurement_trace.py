"""Recorded measurements of a pipeline, item by item, which can be profiled without running operators."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.errors import ProfileError
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.item_runs import ItemRuns, runs_of_items
from circinus.profiling.measurement.runner import OperatorRuns
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.store.measurement_keys import CodeVersions
from circinus.profiling.store.store_queries import StoredReplica
from circinus.specification import Configuration, KnobValues, OperatorSpec, Pipeline, prefix_configuration
from circinus.specification.dataflow import input_text


@dataclass(frozen=True, eq=False)
class MeasurementTrace:
    """Measurements of C configurations of a pipeline of O operators on N items.

    Service times and output sizes belong to a prefix, of which there are R, not to a configuration: configurations that
    share a prefix share its row.
    """

    pipeline: Pipeline
    """Measured pipeline, as it was specified then."""
    configurations: tuple[Configuration, ...]
    """(C,) configurations."""
    rows: IntArray
    """(C, O) row in `service_s` and `output_bytes` of the configuration's prefix that ends with the operator; operators
    in topological order."""
    service_s: FloatArray
    """(R, N) service times of unbatched items on the fewest CPUs, of all runs for an item; NaN if not recorded."""
    output_bytes: FloatArray
    """(R, N) serialized sizes of the outputs, of all runs for an item; NaN if not recorded."""
    scores: FloatArray
    """(C, N) metric values; NaN if not recorded."""
    replicas: Mapping[tuple[str, KnobValues], StoredReplica]
    """Recorded replica by (operator, its own knob values)."""
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
    item_runs: Mapping[int, Mapping[int, ItemRuns]] = field(default_factory=dict)
    """Row -> index of the item -> its runs, unless it had a single one."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise ProfileError(fault, code="trace.inconsistent", location=f"trace of pipeline {self.pipeline.name}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the trace."""
        digest = hashlib.sha256()
        for array in (self.rows, self.service_s, self.output_bytes, self.scores, self.input_bytes):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        replicas = sorted(
            (key, r.load_s, r.startup_s, float(r.peak_memory_bytes), sorted(r.batch_ratio.items()))
            for key, r in self.replicas.items()
        )
        strata = [sorted(conditions.items()) for conditions in self.strata]
        items = self.item_keys, self.item_addresses, strata, self.dataset_fingerprint
        code = self.pipeline.model_dump_json(), CodeVersions.recorded(self.pipeline, self.code_versions)
        digest.update(repr((code, self.configurations, replicas, items, self.failures, self.machine)).encode())
        for row, runs in sorted(self.item_runs.items()):
            digest.update(repr((row, sorted((item, r.as_json()) for item, r in runs.items()))).encode())
        return digest.hexdigest()

    def runs(self, row: int, items: IntArray) -> OperatorRuns:
        service_s, output_bytes = self.service_s[row, items], self.output_bytes[row, items]
        own = self.item_runs.get(row)
        if own is None:
            return OperatorRuns(tuple(service_s.tolist()), tuple(output_bytes.astype(np.int64).tolist()))
        recorded = {index: own[item] for index, item in enumerate(items.tolist()) if item in own}
        return OperatorRuns.of_items(runs_of_items(recorded, service_s, output_bytes))

    def check(self, pipeline: Pipeline) -> None:
        """Check that this is a trace of `pipeline` with its current specification; knob choices may differ.

        Raises:
            ProfileError: an operator or the metric differs.
        """
        expected = {operator.name: _described(operator) for operator in pipeline.operators}
        traced = {operator.name: _described(operator) for operator in self.pipeline.operators}
        for name in sorted(expected.keys() | traced.keys()):
            if expected.get(name) != traced.get(name):
                raise self._mismatch(
                    "trace.other_operator",
                    f"found operator {traced.get(name, '(none)')}, expected {expected.get(name, '(none)')}",
                )
        metric, traced_metric = (f"{p.metric.name} to {p.metric.direction}" for p in (pipeline, self.pipeline))
        if metric != traced_metric:
            raise self._mismatch("trace.other_metric", f"found metric {traced_metric}, expected {metric}")

    def _mismatch(self, code: str, fault: str) -> ProfileError:
        return ProfileError(
            f"{fault} as in the specification",
            code=code,
            location=f"trace of pipeline {self.pipeline.name}",
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
        "rows": (trace.rows, (configurations, len(trace.pipeline.operators))),
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
    names = [operator.name for operator in trace.pipeline.operators]
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


def _described(operator: OperatorSpec) -> str:
    inputs = ", ".join(input_text(edges) for edges in operator.flow.inputs)
    emission = f", branches ({', '.join(operator.branches)})" if operator.branches else ""
    emission += ", emitting many" * (operator.emits == "many") + ", gathering" * operator.gather
    return f"{operator.name} after ({inputs}) with at least {min(operator.cpus):g} CPUs{emission}"
