"""Content addresses: what a measurement depends on, hashed, so that an edit invalidates what it can have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circinus.operators import resolve, resolve_operator
from circinus.operators.source_version import source_version
from circinus.profiling.dataset.item_features import NONE, PLAIN
from circinus.profiling.hardware.machine import Machine
from circinus.specification import Configuration, DatasetSpec, KnobValues, Pipeline
from circinus.specification.pipeline import DEFAULT_HELD_OUT

LOCAL = "local"
"""Hardware class of the machine that measures."""


@dataclass(frozen=True)
class CodeVersions:
    """Versions of the code that a pipeline refers to."""

    operators: Mapping[str, str]
    """`uses` reference -> version."""
    metric: str
    dataset: str
    """Of the data set, and of its features where they have code of their own."""


def pipeline_code(pipeline: Pipeline, module_paths: Sequence[Path]) -> CodeVersions:
    """Import what `pipeline` refers to (no model is loaded) and tell its versions.

    Raises:
        OperatorError: something is not found.
    """
    dataset = source_version(resolve(pipeline.dataset.uses, module_paths))
    if pipeline.dataset.features not in (PLAIN, NONE):
        dataset += source_version(resolve(pipeline.dataset.features, module_paths))
    return CodeVersions(
        operators={o.uses: resolve_operator(o.uses, module_paths).version for o in pipeline.operators},
        metric=source_version(resolve(pipeline.metric.uses, module_paths)),
        dataset=dataset,
    )


def dataset_key(dataset: DatasetSpec, version: str, origin: str = "") -> str:
    """Address of the code and arguments that make a data set: tells which one it is without making it."""
    features = [] if dataset.features == PLAIN else [{"features": dataset.features}]
    # The order, and with it what may be profiled, depends on how much is held out.
    held_out = [] if dataset.held_out == DEFAULT_HELD_OUT else [{"held_out": dataset.held_out}]
    own = [origin] if origin else []
    return _address("data set", dataset.uses, dict(dataset.arguments), version, *features, *held_out, *own)


class MeasurementKeys:
    """The addresses of one pipeline's measurements, per configuration.

    The address of an output is a hash over the operator's reference, version and knob values and the addresses of its
    inputs: an edit changes it and those of all descendants, and leaves ancestors and siblings alone. Neither the
    pipeline's nor the operators' names are in it, so that equal beginnings of different pipelines are measured once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        code: CodeVersions,
        hardware_class: str = LOCAL,
        machine: Machine | None = None,
        origin: str = "",
    ) -> None:
        """Of measurements made in one place.

        Args:
            pipeline: what is measured.
            code: versions of what it refers to.
            hardware_class: of the machine that measured.
            machine: which one; None: measured before machines were recorded.
            origin: of measurements that the code as it is here did not make, such as those of a trace; they share no
                address with any others.
        """
        self.pipeline = pipeline
        self.code = code
        self.machine = machine
        self.origin = origin
        self._hardware: Any = hardware_class if machine is None else [hardware_class, machine.cpu_model, machine.cores]
        self._own = [origin] if origin else []
        self._lineages = {o.name: (*pipeline.ancestors(o.name), o.name) for o in pipeline.operators}
        self._sinks = pipeline.sinks()
        self._known: dict[Hashable, str] = {}

    def for_hardware_class(self, hardware_class: str, machine: Machine | None) -> MeasurementKeys:
        """Of the same pipeline and code, measured on another hardware class and machine."""
        return MeasurementKeys(self.pipeline, self.code, hardware_class, machine, self.origin)

    def output(self, operator: str, configuration: Configuration) -> str:
        """Of what `operator` puts out: depends on its code and knobs and on those of all its ancestors."""
        values = dict(configuration.operators)
        key = "output", operator, tuple(values[name] for name in self._lineages[operator])
        if key not in self._known:
            spec = self.pipeline.operator(operator)
            inputs = [self.output(parent, configuration) for parent in spec.after]
            version = self.code.operators[spec.uses]
            content = spec.uses, version, values[operator].as_dict(), inputs
            self._known[key] = _address("output", *content, *self._own)
        return self._known[key]

    def service(self, operator: str, configuration: Configuration) -> str:
        """Of the time an output takes: depends on CPUs and hardware besides."""
        output = self.output(operator, configuration)
        key = "service", operator, output
        if key not in self._known:
            cpus = min(self.pipeline.operator(operator).cpus)
            self._known[key] = _address("service", output, cpus, self._hardware)
        return self._known[key]

    def replica(self, operator: str, knobs: KnobValues) -> str:
        """Of loading an operator: its time, memory and gains from batches and CPUs."""
        key = "replica", operator, knobs
        if key not in self._known:
            spec = self.pipeline.operator(operator)
            version, cpus = self.code.operators[spec.uses], min(spec.cpus)
            content = spec.uses, version, knobs.as_dict(), cpus, self._hardware
            self._known[key] = _address("replica", *content, *self._own)
        return self._known[key]

    def replay_output(self, configuration: Configuration) -> str:
        """Of what the whole pipeline puts out."""
        key = "answer", configuration
        if key not in self._known:
            self._known[key] = _address("answer", [[name, self.output(name, configuration)] for name in self._sinks])
        return self._known[key]

    def profiling_time(self, configuration: Configuration) -> str:
        """Of what measuring a configuration took."""
        answer = self.replay_output(configuration)
        return answer if self.machine is None else _address("effort", answer, self._hardware)

    def class_effort(self, configuration: Configuration) -> str:
        """Of what measuring a configuration's operators took beside any profile."""
        return _address("effort on a class", self.replay_output(configuration), self._hardware)

    def versions(self) -> dict[str, str]:
        """`uses` reference -> version of the code, of operators, metric and data set."""
        pipeline, code = self.pipeline, self.code
        return {**code.operators, pipeline.metric.uses: code.metric, pipeline.dataset.uses: code.dataset}

    def dataset(self) -> str:
        """Of what makes the data set."""
        return dataset_key(self.pipeline.dataset, self.code.dataset, self.origin)

    def score(self, configuration: Configuration) -> str:
        """Of the scores: depends on the metric besides."""
        key = "score", configuration
        if key not in self._known:
            metric, answer = self.pipeline.metric, self.replay_output(configuration)
            self._known[key] = _address("score", answer, metric.uses, self.code.metric, list(metric.range))
        return self._known[key]


def _address(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
