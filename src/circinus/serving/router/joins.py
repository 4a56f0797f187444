"""Joins of values and notes: inputs of operators, and results.

Each edge of a route carries one message for each element: a value, or a note that none will come. An operator starts
when each of its inputs has a value; a list is complete with the messages of all its elements. An operator that never
will start passes a note on when all its messages have come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from circinus.operators.pickling import Payload, pack_list, pickle_value
from circinus.operators.protocol import NO_BRANCH
from circinus.serving.replicas.replica_protocol import ItemResult
from circinus.serving.router.compiled_route import EMPTY, CompiledStage, ElementPath
from circinus.serving.router.request_messages import RequestContext, RequestTrace, RouterMessage


class Output(NamedTuple):
    """Output of a run, or a note that there is none."""

    value: Payload | None
    size_bytes: float
    path: ElementPath
    branch: str | None = None
    is_note: bool = False


def outputs_of(
    stage: CompiledStage, path: ElementPath, result: ItemResult, payloads: Sequence[Payload]
) -> list[Output]:
    """Return the outputs of a run."""
    values: Sequence[Payload | None] = payloads
    if result.emitted is None:
        return [Output(values[0] if values else None, result.output_bytes, path)]
    count = len(result.emitted)
    if not count:
        return [Output(None, 0.0, (*path, (0, EMPTY)), is_note=True)]
    return [
        Output(
            value,
            size_bytes,
            (*path, (index, count)) if stage.emits_many else path,
            None if branch == NO_BRANCH else stage.branches[branch],
        )
        for index, ((branch, size_bytes), value) in enumerate(
            zip(result.emitted, values or [None] * count, strict=True)
        )
    ]


class _Arrival(NamedTuple):
    message: RouterMessage
    arrived_s: float


@dataclass(eq=False)
class _Slot:
    """Messages of the edges of one input, for one element."""

    value: _Arrival | None = None
    notes: list[_Arrival] = field(default_factory=list)


@dataclass(eq=False)
class _Input:
    """Messages of one input."""

    edges: int
    """Number of its edges."""
    slots: dict[int, _Slot] = field(default_factory=dict)
    """Index of the element, 0 for a value that is no list -> its messages."""
    elements: int | None = None
    """Length of the list, `EMPTY` or `NO_LIST`; 1 for a value that is no list; None if it is not known."""
    received: int = 0
    """Number of messages."""
    settled: int = 0
    """Number of elements with a value, or with notes on all edges."""

    def add(self, index: int, arrival: _Arrival, *, is_note: bool) -> None:
        """Add the message of one edge for an element."""
        slot = self.slots.setdefault(index, _Slot())
        self.received += 1
        if is_note:
            slot.notes.append(arrival)
        else:
            slot.value = arrival
        self.settled += not is_note or len(slot.notes) == self.edges

    @property
    def is_complete(self) -> bool:
        """Whether all messages have come."""
        return self.elements is not None and self.received == self.edges * max(self.elements, 1)


class PendingJoin:
    """Messages that have arrived for one run of an operator."""

    def __init__(self, context: RequestContext, stage: CompiledStage) -> None:
        """Begin without a message."""
        self.context = context
        self.has_started = False
        self._stage = stage
        self._inputs = [_Input(len(own.edges), elements=None if own.is_list else 1) for own in stage.inputs]
        self._inputs = self._inputs or [_Input(1, elements=1) for _ in stage.producers]

    def add(self, message: RouterMessage, arrived_s: float) -> None:
        """Add a message of a producer, which may have several edges to the operator."""
        if not self._stage.inputs:
            for own, producer in zip(self._inputs, self._stage.producers, strict=True):
                if producer == message.producer:
                    own.add(0, _Arrival(message, arrived_s), is_note=False)
            return
        for own, route_input in zip(self._inputs, self._stage.inputs, strict=True):
            for edge in route_input.edges:
                if edge.operator != message.producer:
                    continue
                index = 0
                if route_input.is_list:
                    index, own.elements = message.path[-1]
                is_note = message.is_note or not edge.carries(message.branch)
                own.add(index, _Arrival(message, arrived_s), is_note=is_note)

    @property
    def is_complete(self) -> bool:
        """Whether all messages have come."""
        return all(own.is_complete for own in self._inputs)

    @property
    def may_start(self) -> bool:
        """Whether the run has not started, and each input has a value."""
        return not self.has_started and all(map(self._has_value, self._inputs, self._is_list))

    @property
    def complete_s(self) -> float:
        """Arrival time of the last message."""
        return max(arrival.arrived_s for arrival in self._arrivals())

    @property
    def trace(self) -> RequestTrace:
        """Trace of all messages."""
        return RequestTrace.joined(*(arrival.message.trace for arrival in self._arrivals()))

    def inputs(self) -> tuple[float, list[Payload | None], RequestTrace]:
        """Return the arrival time of the last input, the inputs, and their trace."""
        values: list[Payload | None] = []
        needed: list[_Arrival] = []
        for own, is_list in zip(self._inputs, self._is_list, strict=True):
            slots = [own.slots[index] for index in sorted(own.slots)]
            arrivals = [slot.value for slot in slots if slot.value is not None]
            needed += arrivals
            needed += [note for slot in slots if slot.value is None for note in slot.notes]
            own_values = [arrival.message.value for arrival in arrivals]
            values.append(_packed(own_values) if is_list else own_values[0])
        trace = RequestTrace.joined(*(arrival.message.trace for arrival in needed))
        return max((arrival.arrived_s for arrival in needed), default=-math.inf), values, trace

    @property
    def _is_list(self) -> list[bool]:
        return [i.is_list for i in self._stage.inputs] or [False] * len(self._inputs)

    def _has_value(self, own: _Input, is_list: bool) -> bool:
        if not is_list:
            return bool(own.slots) and own.slots[0].value is not None
        return own.elements is not None and own.elements >= EMPTY and own.settled == max(own.elements, 1)

    def _arrivals(self) -> list[_Arrival]:
        slots = [slot for own in self._inputs for slot in own.slots.values()]
        return [a for slot in slots for a in (*slot.notes, *([slot.value] if slot.value is not None else []))]


def _packed(values: Sequence[Payload | None]) -> Payload | None:
    """Return the payload of a list, or None in a replay, which has no values."""
    given = [value for value in values if value is not None]
    return pack_list(given) if len(given) == len(values) else None


class SinkResult:
    """Outputs of a sink that have arrived, for the item or for each element."""

    def __init__(self) -> None:
        """Begin without an output."""
        self.traces: list[RequestTrace] = []
        self._values: dict[ElementPath, Payload | None] = {}
        self._arrived = Fraction(0)
        """Share of the elements: those of a list have equal shares of its own."""

    def add(self, message: RouterMessage) -> None:
        """Add an output, or a note that there is none."""
        self._arrived += Fraction(1, math.prod(max(count, 1) for _, count in message.path))
        self.traces.append(message.trace)
        self._values[message.path] = None if message.is_note else message.value or b""

    @property
    def is_complete(self) -> bool:
        """Whether the outputs of all elements have come."""
        return self._arrived == 1

    def payload(self) -> Payload:
        """Return the output: that of the item, or a list for each fan-out around it; None for an item without one."""
        return _nested(dict(sorted(self._values.items())), 0)


def _nested(values: dict[ElementPath, Payload | None], depth: int) -> Payload:
    first = next(iter(values))
    if len(first) == depth:
        value = values[first]
        return pickle_value(None) if value is None else value
    parts: dict[int, dict[ElementPath, Payload | None]] = {}
    for path, value in values.items():
        if path[depth][1] > EMPTY and (value is not None or len(path) > depth + 1):
            parts.setdefault(path[depth][0], {})[path] = value
    return pack_list([_nested(part, depth + 1) for part in parts.values()])
