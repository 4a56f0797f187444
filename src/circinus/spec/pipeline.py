"""Pipelines: a DAG of operators with knobs, a metric, and a data set to profile on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from circinus.spec.model import Name, Scalar, SpecModel
from circinus.spec.units import Bytes


class Knob(SpecModel):
    """A parameter of an operator with finitely many choices."""

    name: Name
    choices: tuple[Scalar, ...] = Field(min_length=1)
    ordered: bool = False
    """Whether the choices are listed from least to most, so that neighbours behave alike."""
    only_if: Mapping[Name, tuple[Scalar, ...]] = Field(default_factory=dict)
    """Other knobs of the operator and the choices under which this knob exists at all."""


class OperatorSpec(SpecModel):
    """One stage of a pipeline."""

    name: Name
    uses: str
    """`module:attribute`, or the name of an entry point of the group `circinus.operators`."""
    after: tuple[Name, ...] = ()
    """The operators whose outputs this one receives, in the order of its parameters; none: the pipeline's input."""
    knobs: tuple[Knob, ...] = ()
    cpus: tuple[float, ...] = (1.0,)
    """CPUs that one replica may be given."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs that one replica needs."""
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory that one replica needs."""
    batch_sizes: tuple[int, ...] = (1,)
    allowed_tiers: tuple[Name, ...] | None = None
    """Tiers on which the operator may run (none: all). Privacy keeps an operator on the device or the edge."""


class MetricSpec(SpecModel):
    """How an output is scored against the truth."""

    name: Name
    uses: str
    """`module:attribute` of a function `(output, truth) -> float`."""
    direction: Literal["maximize", "minimize"] = "maximize"
    range: tuple[float, float] = (0.0, 1.0)
    """Least and greatest score the metric can give; a score outside is an error."""


class DatasetSpec(SpecModel):
    """The items a pipeline is profiled on."""

    uses: str
    """`module:attribute` of a function that returns a sequence of `circinus.operators.Item`."""
    arguments: Mapping[str, Scalar] = Field(default_factory=dict)


class Pipeline(SpecModel):
    """A DAG of operators, listed in any order; what no operator consumes is the pipeline's output."""

    name: Name
    operators: tuple[OperatorSpec, ...] = Field(min_length=1)
    metric: MetricSpec
    dataset: DatasetSpec

    def operator(self, name: str) -> OperatorSpec:
        """The operator called `name`; KeyError when there is none."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    def topological_order(self) -> tuple[OperatorSpec, ...]:
        """The operators, each after all it depends on; among free ones the order of the specification."""
        done: dict[str, OperatorSpec] = {}
        while len(done) < len(self.operators):
            ready = [o for o in self.operators if o.name not in done and all(p in done for p in o.after)]
            if not ready:
                raise ValueError(f"the operators of pipeline {self.name} form a cycle")
            done[ready[0].name] = ready[0]
        return tuple(done.values())

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The names of all operators that `name` depends on, in topological order, without itself."""
        needed: set[str] = set()
        waiting = list(self.operator(name).after)
        while waiting:
            parent = waiting.pop()
            if parent not in needed:
                needed.add(parent)
                waiting.extend(self.operator(parent).after)
        return tuple(o.name for o in self.topological_order() if o.name in needed)

    def sinks(self) -> tuple[str, ...]:
        """The names of the operators whose output nobody consumes, in topological order."""
        consumed = {parent for operator in self.operators for parent in operator.after}
        return tuple(o.name for o in self.topological_order() if o.name not in consumed)

    def output(self, outputs: Mapping[str, Any]) -> Any:
        """What the pipeline answers: the output of its sink, or a dict of them where there are several."""
        sinks = self.sinks()
        return outputs[sinks[0]] if len(sinks) == 1 else {name: outputs[name] for name in sinks}
