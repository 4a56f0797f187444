"""Pipelines: a DAG of operators with knobs, a metric, and a data set for profiling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, WithJsonSchema

from circinus.specification.base_model import (
    Count,
    Flag,
    Label,
    Name,
    Number,
    Reference,
    Scalar,
    ScalarValue,
    SpecModel,
)
from circinus.specification.dataflow import ANY, FlowNode, check_entry, edges_of
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error
from circinus.specification.document_validators import validate_emission, validate_knobs, validate_operator_graph
from circinus.specification.limits import (
    MAX_BATCH_SIZE,
    MAX_CHOICES,
    MAX_CONDITIONS,
    MAX_ELEMENTS,
    MAX_KNOBS,
    MAX_OPERATORS,
    MAX_UNITS,
)
from circinus.specification.shorthands import KeyedByName, OneOrMany, require_unique, sorted_unique
from circinus.specification.slo import Score
from circinus.specification.units import Bytes, DurationS

DEFAULT_HELD_OUT = 0.2

DEFAULT_AT_MOST = 200
"""Maximum number of elements for each input of an operator that emits many."""

_NAME = TypeAdapter(Name)
_BRANCH_SCHEMA = {"type": "object", "additionalProperties": _NAME.json_schema(), "minProperties": 1, "maxProperties": 1}
_ANY_SCHEMA = {"type": "array", "items": {"anyOf": [_NAME.json_schema(), _BRANCH_SCHEMA]}, "minItems": 1}


def _after_entry(entry: Any) -> Any:
    return _NAME.validate_python(entry) if isinstance(entry, str) else check_entry(entry)


AfterEntry = Annotated[
    str | Mapping[str, Any],
    BeforeValidator(_after_entry),
    Expected("an operator, {operator: branch}, or {any: [...]} of these"),
    WithJsonSchema(
        {
            "anyOf": [
                _NAME.json_schema(),
                _BRANCH_SCHEMA,
                {"type": "object", "properties": {ANY: _ANY_SCHEMA}, "required": [ANY], "additionalProperties": False},
            ]
        }
    ),
]
"""Entry of `after`, as written."""

Choices = Annotated[
    tuple[ScalarValue, ...],
    Field(min_length=1, max_length=MAX_CHOICES),
    AfterValidator(require_unique("choice")),
    OneOrMany(),
    Expected("a list of choices"),
]


class Knob(SpecModel):
    """Parameter of an operator with finitely many choices.

    Example:
        >>> import circinus as c
        >>> c.Knob(name="strength", choices=[1, 2, 3], ordered=True, only_if={"method": "gate"}).choices
        (1, 2, 3)
    """

    name: Name
    choices: Choices
    """Distinct values of the knob."""
    ordered: Flag = False
    """True if the choices are in ascending order, so that neighbours behave similarly."""
    only_if: Mapping[Name, Choices] = Field(default_factory=dict)
    """Condition of the knob: other knobs of the operator, each with the choices under which this knob exists."""


class GpuMemoryCase(SpecModel):
    """GPU memory of a replica of an operator under some values of its knobs.

    Example:
        >>> import circinus as c
        >>> c.GpuMemoryCase(only_if={"model": "large"}, size="10GiB").size_bytes
        10737418240.0
    """

    only_if: Mapping[Name, Choices]
    """Condition of the case: knobs of the operator, each with the choices under which the size holds."""
    size_bytes: Bytes = Field(alias="size")
    """GPU memory of a replica."""

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Return whether the knob values of an operator meet the condition."""
        return all(values.get(knob) in choices for knob, choices in self.only_if.items())


class OperatorSpec(SpecModel):
    """Stage of a pipeline.

    Example:
        >>> import circinus as c
        >>> stage = c.OperatorSpec(name="recognise", uses="speech:Recognise", knobs={"model": ["tiny", "base"]}, cpus=2)
        >>> stage.cpus, stage.knobs[0].choices
        ((2.0,), ('tiny', 'base'))
    """

    name: Name
    uses: Reference
    """`module:attribute`, or the name of an entry point of the group `circinus.operators`."""
    after: Annotated[tuple[AfterEntry, ...], AfterValidator(require_unique("operator")), OneOrMany()] = Field(
        default=(), max_length=MAX_OPERATORS
    )
    """Operators whose outputs are the inputs, in the order of the parameters; default the pipeline's input.
    `{operator: branch}` takes only outputs of that branch, `{any: [...]}` whichever of several comes. The operator runs
    if all its inputs come."""
    emits: Literal["one", "many"] = "one"
    """`many` if the operator returns a list for each input: what follows runs once for each element."""
    at_most: Annotated[Count, Field(ge=1, le=MAX_ELEMENTS)] | None = None
    """Maximum number of elements for each input, beyond which the request fails; with `emits: many`, default
    200."""
    gather: Flag = False
    """Whether the operator receives the list of all elements of the innermost fan-out that an input is in, in order.
    Other inputs come as they are."""
    branches: Annotated[tuple[Name, ...], AfterValidator(require_unique("branch")), OneOrMany()] = Field(
        default=(), max_length=MAX_CHOICES
    )
    """Names of the branches that an output may take, if the operator returns `Branch(name, value)`: for each input, or
    each element of `emits: many`. Outputs that no operator receives are dropped."""
    knobs: Annotated[tuple[Knob, ...], KeyedByName(main="choices")] = Field(default=(), max_length=MAX_KNOBS)
    """Knobs of the operator; in YAML a mapping from the knob's name to its choices, or a list."""
    cpus: Annotated[
        tuple[Annotated[Number, Field(gt=0, le=MAX_UNITS)], ...],
        AfterValidator(sorted_unique("number of CPUs")),
        OneOrMany(),
    ] = Field(default=(1.0,), min_length=1, max_length=MAX_CHOICES)
    """Allowed numbers of CPUs of a replica, ascending."""
    gpus: Number = Field(default=0.0, ge=0, le=MAX_UNITS)
    """GPUs of a replica."""
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory of a replica, where no case holds."""
    gpu_memory_cases: tuple[GpuMemoryCase, ...] = Field(default=(), max_length=MAX_CHOICES)
    """GPU memory by knobs: the first case whose condition holds gives the size."""
    batch_sizes: Annotated[
        tuple[Annotated[Count, Field(ge=1, le=MAX_BATCH_SIZE)], ...],
        AfterValidator(sorted_unique("batch size")),
        OneOrMany(),
    ] = Field(default=(1,), min_length=1, max_length=MAX_CHOICES)
    """Allowed batch sizes of a replica, ascending."""
    batch_wait_s: DurationS = Field(default=0.0, alias="batch_wait")
    """Maximum time that a free replica waits for a full batch after the arrival of its oldest item. No effect with
    batch size 1."""
    allowed_tiers: (
        Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(require_unique("tier")), OneOrMany()] | None
    ) = None
    """Tiers on which the operator may run, for instance `[device, edge]` for privacy; default all."""
    split: Flag = True
    """Whether the requests of a query may be divided among several deployments of the operator. With `false`, all
    requests of a query go to the same deployment, for instance as its replicas remember earlier ones."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        yield from validate_knobs(content)
        yield from validate_emission(content)
        if isinstance(content, OperatorSpec):
            conditions = {(other, choices) for knob in content.knobs for other, choices in knob.only_if.items()}
            if len(conditions) > MAX_CONDITIONS:
                yield Issue(("knobs",), f"{len(conditions)} different conditions", f"at most {MAX_CONDITIONS}")

    @property
    def flow(self) -> FlowNode:
        """Inputs and outputs of the operator."""
        inputs = tuple(edges_of(entry) for entry in self.after)
        return FlowNode(self.name, inputs, self.emits == "many", self.gather, self.branches)

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the operators that it receives outputs of, each once."""
        return tuple(dict.fromkeys(edge.operator for entry in self.after for edge in edges_of(entry)))

    @property
    def max_elements(self) -> int:
        """Maximum number of outputs for each input."""
        return (self.at_most or DEFAULT_AT_MOST) if self.emits == "many" else 1

    def replica_gpu_memory_bytes(self, values: Mapping[str, Scalar]) -> float:
        """Return the GPU memory of a replica with the given knob values."""
        sizes_bytes = (case.size_bytes for case in self.gpu_memory_cases if case.holds(values))
        return next(sizes_bytes, self.gpu_memory_bytes)


def _pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise issue_error(describe(value), "the lowest and the highest score, such as [0, 1]")
    return value


class MetricSpec(SpecModel):
    """Score of an output against the ground truth.

    Example:
        >>> import circinus as c
        >>> c.MetricSpec(name="word error rate", uses="speech:word_error_rate", direction="minimize").range
        (0.0, 1.0)
    """

    name: Label
    """Name of the metric in tables."""
    uses: Reference
    """`module:attribute` of a function `(output, truth) -> float`."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Direction of better scores."""
    range: Annotated[tuple[Number, Number], BeforeValidator(_pair)] = (0.0, 1.0)
    """Lowest and highest possible score; a score outside is an error."""

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if isinstance(content, MetricSpec) and content.range[0] >= content.range[1]:
            lowest, highest = content.range
            yield Issue(("range",), f"[{lowest:g}, {highest:g}]", "a lowest score below the highest")


Population = Literal["requests", "items"]


class DatasetSpec(SpecModel):
    """Data set for profiling a pipeline.

    Example:
        >>> import circinus as c
        >>> c.DatasetSpec(uses="speech:clips", arguments={"noise": 10}, held_out="25%").held_out_items(40)
        10
    """

    uses: Reference
    """`module:attribute` of a function that returns a sequence of `circinus.operators.Item`."""
    arguments: Mapping[str, ScalarValue] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    held_out: Score = Field(default=DEFAULT_HELD_OUT, ge=0, le=0.5)
    """Share of the items that profiling never measures, reserved for load tests."""
    population: Population = "requests"
    """Population whose mean score accuracy bounds are about: requests to come, of which the items are a sample, or the
    profiling items themselves."""

    def held_out_items(self, items: int) -> int:
        """Return the number of held-out items, which leaves at least one of `items` to measure."""
        return min(round(items * self.held_out), items - 1)


class Pipeline(SpecModel):
    """DAG of operators, in any order. Its output is the output of its sinks.

    Example:
        >>> import circinus as c
        >>> pipeline = c.Pipeline(
        ...     name="meeting",
        ...     operators=[
        ...         c.OperatorSpec(name="denoise", uses="speech:denoise"),
        ...         c.OperatorSpec(name="recognise", uses="speech:Recognise", after="denoise"),
        ...     ],
        ...     metric=c.MetricSpec(name="word accuracy", uses="speech:accuracy"),
        ...     dataset=c.DatasetSpec(uses="speech:clips"),
        ... )
        >>> pipeline.sinks()
        ('recognise',)
    """

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    operators: tuple[OperatorSpec, ...] = Field(min_length=1, max_length=MAX_OPERATORS)
    """Stages of the pipeline."""
    metric: MetricSpec
    dataset: DatasetSpec

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_operator_graph(content)

    @property
    def code_references(self) -> tuple[str, ...]:
        """`uses` references of the operators, the metric and the data set."""
        return (*(operator.uses for operator in self.operators), self.metric.uses, self.dataset.uses)

    @property
    def has_fan_outs(self) -> bool:
        """Whether an operator may run never or several times for an item: one emits many, or outputs have branches."""
        return any(operator.emits == "many" or operator.branches for operator in self.operators)

    def operator(self, name: str) -> OperatorSpec:
        """Return the operator `name`, or raise KeyError."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    def topological_order(self) -> tuple[OperatorSpec, ...]:
        """Return the operators in topological order, with ties in the order of the specification."""
        done: dict[str, OperatorSpec] = {}
        pending = {operator.name: operator for operator in self.operators}
        while pending:
            ready = next((o for o in pending.values() if all(parent in done for parent in o.parents)), None)
            if ready is None:
                raise ValueError(f"the operators of pipeline {self.name} form a cycle")
            done[ready.name] = pending.pop(ready.name)
        return tuple(done.values())

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Return the names of all operators that `name` depends on, in topological order."""
        ancestors: set[str] = set()
        pending = list(self.operator(name).parents)
        while pending:
            parent = pending.pop()
            if parent not in ancestors:
                ancestors.add(parent)
                pending.extend(self.operator(parent).parents)
        return tuple(o.name for o in self.topological_order() if o.name in ancestors)

    def sinks(self) -> tuple[str, ...]:
        """Return the names of the operators whose output no operator consumes, in topological order."""
        consumed = {parent for operator in self.operators for parent in operator.parents}
        return tuple(o.name for o in self.topological_order() if o.name not in consumed)

    def output(self, outputs: Mapping[str, Any]) -> Any:
        """Return the output of the sink, or a dictionary of outputs if there are several sinks."""
        sinks = self.sinks()
        return outputs[sinks[0]] if len(sinks) == 1 else {name: outputs[name] for name in sinks}
