"""Pipelines: a DAG of operators with knobs, a metric, and a data set to profile on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from circinus.specification.base_model import Count, Flag, Label, Name, Number, Reference, ScalarValue, SpecModel
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error
from circinus.specification.document_validators import validate_knobs, validate_operator_graph
from circinus.specification.shorthands import KeyedByName, OneOrMany, require_unique, sorted_unique
from circinus.specification.slo import Score
from circinus.specification.units import Bytes, DurationS

DEFAULT_HELD_OUT = 0.2

Choices = Annotated[
    tuple[ScalarValue, ...],
    Field(min_length=1),
    AfterValidator(require_unique("choice")),
    OneOrMany(),
    Expected("a list of choices"),
]


class Knob(SpecModel):
    """A parameter of an operator with finitely many choices."""

    name: Name
    choices: Choices
    """The values it can take, no two of them equal."""
    ordered: Flag = False
    """Whether the choices are listed from least to most, so that neighbours behave alike."""
    only_if: Mapping[Name, Choices] = Field(default_factory=dict)
    """Other knobs of the operator and the choices under which this knob exists at all."""


class OperatorSpec(SpecModel):
    """One stage of a pipeline."""

    name: Name
    uses: Reference
    """`module:attribute`, or the name of an entry point of the group `circinus.operators`."""
    after: Annotated[tuple[Name, ...], AfterValidator(require_unique("operator")), OneOrMany()] = ()
    """The operators whose outputs this one receives, in the order of its parameters; none: the pipeline's input."""
    knobs: Annotated[tuple[Knob, ...], KeyedByName(main="choices")] = ()
    """What can be chosen of it; in YAML a mapping from the knob's name to its choices, or a list."""
    cpus: Annotated[
        tuple[Annotated[Number, Field(gt=0)], ...], AfterValidator(sorted_unique("number of CPUs")), OneOrMany()
    ] = Field(default=(1.0,), min_length=1)
    """CPUs that one replica may be given; ascending."""
    gpus: Number = Field(default=0.0, ge=0)
    """GPUs that one replica needs."""
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory that one replica needs."""
    batch_sizes: Annotated[
        tuple[Annotated[Count, Field(ge=1)], ...], AfterValidator(sorted_unique("batch size")), OneOrMany()
    ] = Field(default=(1,), min_length=1)
    """Items that one replica may process at once; ascending."""
    batch_wait_s: DurationS = Field(default=0.0, alias="batch_wait")
    """How long the oldest item that waits for a free replica may wait for its batch to fill; 0: not at all. Without
    effect where the batch size is 1."""
    allowed_tiers: (
        Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(require_unique("tier")), OneOrMany()] | None
    ) = None
    """Tiers on which the operator may run (none: all). Privacy keeps an operator on the device or the edge."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_knobs(content)


def _pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise issue_error(describe(value), "the least and the greatest score, such as [0, 1]")
    return value


class MetricSpec(SpecModel):
    """How an output is scored against the truth."""

    name: Label
    """What tables call it."""
    uses: Reference
    """`module:attribute` of a function `(output, truth) -> float`."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which scores are better: the greater or the smaller."""
    range: Annotated[tuple[Number, Number], BeforeValidator(_pair)] = (0.0, 1.0)
    """Least and greatest score the metric can give; a score outside is an error."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if isinstance(content, MetricSpec) and content.range[0] >= content.range[1]:
            least, greatest = content.range
            yield Issue(("range",), f"[{least:g}, {greatest:g}]", "a least score below the greatest")


class DatasetSpec(SpecModel):
    """The items a pipeline is profiled on."""

    uses: Reference
    """`module:attribute` of a function that returns a sequence of `circinus.operators.Item`."""
    arguments: Mapping[str, ScalarValue] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    features: Reference = "plain"
    """What items that declare no strata are told apart by: `module:attribute` of a function `(value) -> numbers`,
    `plain` for sizes, levels, spectra and the like of plain data, or `none`."""
    held_out: Score = Field(default=DEFAULT_HELD_OUT, ge=0, le=0.5)
    """Share of the items that profiling never measures, so that traffic can carry items no plan was chosen on."""

    def held_out_items(self, items: int) -> int:
        """How many of `items` are held out; one item at least is left to measure."""
        return min(round(items * self.held_out), items - 1)


class Pipeline(SpecModel):
    """A DAG of operators, listed in any order; what no operator consumes is the pipeline's output."""

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    operators: tuple[OperatorSpec, ...] = Field(min_length=1)
    """The stages."""
    metric: MetricSpec
    dataset: DatasetSpec

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_operator_graph(content)

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
