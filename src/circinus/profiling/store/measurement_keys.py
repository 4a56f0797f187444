"""Content hashes of everything that a measurement depends on, so that edits invalidate exactly what they may affect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circinus.operators.user_code import user_code
from circinus.profiling.hardware.machine import Machine
from circinus.specification import Configuration, DatasetSpec, KnobValues, Pipeline
from circinus.specification.dataflow import Edge
from circinus.specification.pipeline import DEFAULT_HELD_OUT

LOCAL = "local"
"""Hardware class of the measuring machine."""


@dataclass(frozen=True)
class CodeVersions:
    """Versions of the code that a pipeline refers to."""

    operators: Mapping[str, str]
    """`uses` reference -> version."""
    metric: str
    dataset: str

    @classmethod
    def recorded(cls, pipeline: Pipeline, versions: Mapping[str, str]) -> CodeVersions:
        """Return the versions of a pipeline's code from those by `uses` reference, which may be incomplete."""
        return cls(
            operators={o.uses: versions.get(o.uses, "not recorded") for o in pipeline.operators},
            metric=versions.get(pipeline.metric.uses, "not recorded"),
            dataset=versions.get(pipeline.dataset.uses, "not recorded"),
        )


def pipeline_code(pipeline: Pipeline, module_paths: Sequence[Path]) -> CodeVersions:
    """Import the code that `pipeline` refers to in its process (without loading models), and return its versions.

    Raises:
        OperatorError: an operator, metric or data set cannot be found.
    """
    code = user_code(module_paths)
    return CodeVersions(
        operators={o.uses: code.operator(o.uses).version for o in pipeline.operators},
        metric=code.source_version(pipeline.metric.uses),
        dataset=code.source_version(pipeline.dataset.uses),
    )


def dataset_key(dataset: DatasetSpec, version: str, origin: str = "") -> str:
    """Return the content hash of a data set's code and arguments, which identifies it without building it."""
    # The order, and with it the set of profiling items, depends on the held-out share.
    held_out = [] if dataset.held_out == DEFAULT_HELD_OUT else [{"held_out": dataset.held_out}]
    own = [origin] if origin else []
    return _content_hash("data set", dataset.uses, dict(dataset.arguments), version, *held_out, *own)


class MeasurementKeys:
    """Content hashes of one pipeline's measurements, by configuration.

    The hash of an output covers the operator's reference, version and knob values and the hashes of its inputs: an edit
    changes it and those of all descendants, but not those of ancestors and siblings. Neither the pipeline's nor the
    operators' names are covered, so that equal prefixes of different pipelines are measured once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        code: CodeVersions,
        hardware_class: str = LOCAL,
        machine: Machine | None = None,
        origin: str = "",
    ) -> None:
        """Create the keys of measurements on one machine.

        Args:
            machine: measuring machine; None for measurements from before machines were recorded.
            origin: origin of measurements not made by the current code, such as a trace; they share no hash with
                others.
        """
        self.pipeline = pipeline
        self.code = code
        self.machine = machine
        self.origin = origin
        self._hardware: Any = hardware_class if machine is None else [hardware_class, machine.cpu_model, machine.cores]
        self._own = [origin] if origin else []
        self._lineages = {o.name: (*pipeline.ancestors(o.name), o.name) for o in pipeline.operators}
        self._sinks = pipeline.sinks()
        self._cache: dict[Hashable, str] = {}

    def for_hardware_class(self, hardware_class: str, machine: Machine | None) -> MeasurementKeys:
        """Return the keys of the same pipeline and code on another hardware class and machine."""
        return MeasurementKeys(self.pipeline, self.code, hardware_class, machine, self.origin)

    def output(self, operator: str, configuration: Configuration) -> str:
        """Return the hash of an operator's output, which covers code and knob values of it and of all its ancestors."""
        values = dict(configuration.operators)
        key = "output", operator, tuple(values[name] for name in self._lineages[operator])
        if key not in self._cache:
            spec = self.pipeline.operator(operator)
            inputs = [self._input(edges, configuration) for edges in spec.flow.inputs]
            version = self.code.operators[spec.uses]
            content = spec.uses, version, values[operator].as_dict(), inputs
            form = {"many": spec.emits == "many", "gather": spec.gather, "branches": list(spec.branches)}
            own = [form] if any(form.values()) else []
            self._cache[key] = _content_hash("output", *content, *own, *self._own)
        return self._cache[key]

    def _input(self, edges: tuple[Edge, ...], configuration: Configuration) -> Any:
        """Return what identifies an input: the hash of an output, or those of which one comes, with their branches."""
        hashes = [self.output(edge.operator, configuration) for edge in edges]
        if len(edges) == 1 and edges[0].branch is None:
            return hashes[0]
        return [[content_hash, edge.branch] for content_hash, edge in zip(hashes, edges, strict=True)]

    def service(self, operator: str, configuration: Configuration) -> str:
        """Return the hash of the service time of an output, which also covers CPUs and hardware."""
        output = self.output(operator, configuration)
        key = "service", operator, output
        if key not in self._cache:
            cpus = min(self.pipeline.operator(operator).cpus)
            self._cache[key] = _content_hash("service", output, cpus, self._hardware)
        return self._cache[key]

    def replica(self, operator: str, knobs: KnobValues) -> str:
        """Return the hash of an operator's replica: load time, memory and batch time ratios."""
        key = "replica", operator, knobs
        if key not in self._cache:
            spec = self.pipeline.operator(operator)
            version, cpus = self.code.operators[spec.uses], min(spec.cpus)
            content = spec.uses, version, knobs.as_dict(), cpus, self._hardware
            self._cache[key] = _content_hash("replica", *content, *self._own)
        return self._cache[key]

    def replay_output(self, configuration: Configuration) -> str:
        """Return the hash of the outputs of the whole pipeline."""
        key = "answer", configuration
        if key not in self._cache:
            self._cache[key] = _content_hash(
                "answer", [[name, self.output(name, configuration)] for name in self._sinks]
            )
        return self._cache[key]

    def profiling_time(self, configuration: Configuration) -> str:
        """Return the hash of the effort of measuring a configuration."""
        answer = self.replay_output(configuration)
        return answer if self.machine is None else _content_hash("effort", answer, self._hardware)

    def class_effort(self, configuration: Configuration) -> str:
        """Return the hash of the effort of measuring a configuration's operators on another hardware class."""
        return _content_hash("effort on a class", self.replay_output(configuration), self._hardware)

    def versions(self) -> dict[str, str]:
        """Return the code version of each `uses` reference of operators, metric and data set."""
        pipeline, code = self.pipeline, self.code
        return {**code.operators, pipeline.metric.uses: code.metric, pipeline.dataset.uses: code.dataset}

    def dataset(self) -> str:
        """Return the hash of the code and arguments of the data set."""
        return dataset_key(self.pipeline.dataset, self.code.dataset, self.origin)

    def score(self, configuration: Configuration) -> str:
        """Return the hash of the scores, which also covers the metric."""
        key = "score", configuration
        if key not in self._cache:
            metric, answer = self.pipeline.metric, self.replay_output(configuration)
            self._cache[key] = _content_hash("score", answer, metric.uses, self.code.metric, list(metric.range))
        return self._cache[key]


def _content_hash(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
