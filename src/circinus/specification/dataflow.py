"""Dataflow of a pipeline: which outputs each operator receives, and how often an operator runs for one item.

An operator that `emits: many` is a fan-out: what follows runs once for each element of its list, until an operator
gathers them. One execution of an operator is a *run*. Its *path* has the index of the element in each fan-out around
it, so that the path of the item itself is `()`. Operators within the same fan-outs have the same *scope*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from circinus.specification.diagnostics import Issue, describe, issue_error, issues_error

V = TypeVar("V")

ANY = "any"
"""Key of an input that takes whichever of several outputs comes."""

RunPath = tuple[int, ...]
"""Index of the element in each fan-out around a run, outermost first."""
Scope = tuple[str, ...]
"""Fan-outs around the runs of an operator, outermost first; empty for one run an item."""


class Edge(NamedTuple):
    """Output of an operator that another one receives."""

    operator: str
    branch: str | None = None
    """Branch that the output must have; None for every output."""

    def carries(self, branch: str | None) -> bool:
        """Return whether an output with that branch is received."""
        return self.branch is None or self.branch == branch


def edges_of(entry: Any) -> tuple[Edge, ...]:
    """Return the edges of an entry of `after`, of which at most one delivers; nothing for a malformed entry.

    Example:
        >>> edges_of({"any": [{"cheap": "sure"}, "expensive"]})
        (Edge(operator='cheap', branch='sure'), Edge(operator='expensive', branch=None))
    """
    if isinstance(entry, str):
        return (Edge(entry),)
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return ()
    ((key, value),) = entry.items()
    if isinstance(key, str) and isinstance(value, str):
        return (Edge(key, value),)
    if key == ANY and isinstance(value, list | tuple):
        alternatives = [_single_edge(part) for part in value]
        return () if None in alternatives else tuple(edge for edge in alternatives if edge is not None)
    return ()


def _single_edge(part: Any) -> Edge | None:
    """Return the edge of an alternative, which is an operator or {operator: branch}; None for another value."""
    edges = () if isinstance(part, Mapping) and isinstance(part.get(ANY), list | tuple) else edges_of(part)
    return edges[0] if edges else None


def input_text(edges: Sequence[Edge]) -> str:
    """Return the edges of an input as text.

    Example:
        >>> input_text([Edge("cheap", "sure"), Edge("expensive")])
        'cheap: sure or expensive'
    """
    return " or ".join(edge.operator if edge.branch is None else f"{edge.operator}: {edge.branch}" for edge in edges)


def check_entry(entry: Any) -> Any:
    """Return an entry of `after` unchanged if it is well-formed.

    Raises:
        PydanticCustomError, ValidationError: it is none of the three forms.
    """
    if edges_of(entry):
        return {ANY: tuple(entry[ANY])} if isinstance(entry, Mapping) and isinstance(entry.get(ANY), list) else entry
    if isinstance(entry, Mapping) and list(entry) == [ANY] and isinstance(entry[ANY], list | tuple) and entry[ANY]:
        wrong = [(i, part) for i, part in enumerate(entry[ANY]) if _single_edge(part) is None]
        issues = [
            Issue((ANY, i), describe(part), "an operator or {operator: branch}", _entry_hint(part)) for i, part in wrong
        ]
        raise issues_error("input", issues)
    forms = "an operator, {operator: branch}, or {any: [...]} of these"
    raise issue_error(describe(entry), forms, _entry_hint(entry))


def _entry_hint(entry: Any) -> str:
    """Return what to do about an entry, or an alternative, that is malformed."""
    if not isinstance(entry, Mapping) or not entry:
        return ""
    if len(entry) > 1:
        return "write a list with an entry for each operator"
    ((key, value),) = entry.items()
    if key == ANY:
        return "write `any` once, with a list of at least one operator or {operator: branch}"
    if isinstance(value, list | tuple):
        return "name one branch; for either of several, list each: {any: [{a: x}, {a: y}]}"
    if value is None:
        return "name the branch"
    return f"write names that look like other values in quotes, as in {{{key}: '{value}'}}"


@dataclass(frozen=True)
class FlowNode:
    """Operator as the dataflow sees it."""

    name: str
    inputs: tuple[tuple[Edge, ...], ...]
    """Edges of each input, of which at most one delivers; empty for the pipeline's input."""
    emits_many: bool = False
    gathers: bool = False
    branches: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        """Operators that it receives outputs of, each once."""
        return tuple(dict.fromkeys(edge.operator for edges in self.inputs for edge in edges))


def output_scope(node: FlowNode, scope: Scope) -> Scope:
    """Return the scope of a node's outputs."""
    return (*scope, node.name) if node.emits_many else scope


@lru_cache(maxsize=256)
def scopes(nodes: tuple[FlowNode, ...]) -> Mapping[str, Scope]:
    """Return the scope of each of the nodes, which are in topological order and well-formed.

    Example:
        >>> detect = FlowNode("detect", (), emits_many=True)
        >>> read = FlowNode("read", ((Edge("detect"),),))
        >>> track = FlowNode("track", ((Edge("read"),),), gathers=True)
        >>> dict(scopes((detect, read, track)))
        {'detect': (), 'read': ('detect',), 'track': ()}
    """
    found: dict[str, Scope] = {}
    outputs: dict[str, Scope] = {}
    for node in nodes:
        deepest = max((outputs[parent] for parent in node.parents), key=len, default=())
        found[node.name] = deepest[:-1] if node.gathers else deepest
        outputs[node.name] = output_scope(node, found[node.name])
    return found


Run = tuple[RunPath, list[Any]]
"""RunPath of a run, and its inputs; the input of a gathering operator is a list."""


class ItemFlow(Generic[V]):
    """Outputs of one item, and the runs that they make due.

    Example:
        >>> flow = ItemFlow((
        ...     FlowNode("detect", (), emits_many=True),
        ...     FlowNode("read", ((Edge("detect", "plate"),),)),
        ...     FlowNode("track", ((Edge("read"),),), gathers=True),
        ... ))
        >>> flow.add("detect", (), [("plate", "crop 1"), ("face", "crop 2"), ("plate", "crop 3")])
        >>> flow.due("read")
        [((0,), ['crop 1']), ((2,), ['crop 3'])]
        >>> flow.add("read", (0,), [(None, "B 1")])
        >>> flow.add("read", (2,), [(None, "B 2")])
        >>> flow.due("track")
        [((), [['B 1', 'B 2']])]
    """

    def __init__(self, nodes: Sequence[FlowNode]) -> None:
        """Begin an item.

        Args:
            nodes: operators in topological order.
        """
        self._nodes = {node.name: node for node in nodes}
        self._scopes = scopes(tuple(nodes))
        self._outputs: dict[str, dict[RunPath, Sequence[tuple[str | None, V]]]] = {node.name: {} for node in nodes}

    def add(self, operator: str, path: RunPath, outputs: Sequence[tuple[str | None, V]]) -> None:
        """Add the outputs of a run, each with its branch: one, or one for each element."""
        self._outputs[operator][path] = outputs

    def runs(self, operator: str) -> Mapping[RunPath, Sequence[tuple[str | None, V]]]:
        """Return the outputs of an operator's runs so far."""
        return self._outputs[operator]

    def due(self, operator: str, source: V | None = None) -> list[Run]:
        """Return the runs of an operator whose parents have run, in the order of their paths.

        Args:
            operator: name of the operator.
            source: input of the pipeline.
        """
        node = self._nodes[operator]
        if not node.inputs:
            return [((), [source])]
        scope = self._scopes[operator]
        columns = [self._column(edges, scope) for edges in node.inputs]
        paths = sorted(set(columns[0]).intersection(*columns[1:]))
        return [(path, [column[path] for column in columns]) for path in paths]

    def answer(self, operator: str) -> Any:
        """Return the output of a sink: that of the item, or a list for each fan-out around it; None without a run."""
        scope, outputs = self._scopes[operator], self._delivered(Edge(operator))
        return self._nested(outputs, output_scope(self._nodes[operator], scope), ())

    def _nested(self, outputs: Mapping[RunPath, V], scope: Scope, path: RunPath) -> Any:
        if len(path) == len(scope):
            return outputs.get(path)
        elements = self._outputs[scope[len(path)]].get(path, ())
        values = [self._nested(outputs, scope, (*path, index)) for index in range(len(elements))]
        return [value for value in values if value is not None]

    def _column(self, edges: Sequence[Edge], scope: Scope) -> Mapping[RunPath, Any]:
        """Return the values of one input by path."""
        delivered: dict[RunPath, V] = {}
        for edge in edges:
            delivered |= self._delivered(edge)
        edge_scope = output_scope(self._nodes[edges[0].operator], self._scopes[edges[0].operator])
        if len(edge_scope) == len(scope):
            return delivered
        lists: dict[RunPath, list[V]] = {path: [] for path in self._outputs[edge_scope[-1]]}
        for path in sorted(delivered):
            lists[path[:-1]].append(delivered[path])
        return lists

    def _delivered(self, edge: Edge) -> Mapping[RunPath, V]:
        is_many = self._nodes[edge.operator].emits_many
        return {
            (*path, index) if is_many else path: value
            for path, outputs in self._outputs[edge.operator].items()
            for index, (branch, value) in enumerate(outputs)
            if edge.carries(branch)
        }


_MAX_TERMS = 500
"""Maximum number of terms of a condition; with branches that are dropped in a row, it doubles with each."""
_MAX_PRODUCTS = 10_000
"""Maximum number of terms of two conditions multiplied, which takes milliseconds."""


class Condition:
    """Condition of an operator's runs in disjunctive normal form: any of several sets of outcomes of branches.

    Conditions are about the runs of one item and element; what becomes of other elements is left open. One of too many
    terms is unknown, and so is every condition that depends on it.
    """

    def __init__(self, terms: frozenset[frozenset[Edge]] | None = frozenset({frozenset()})) -> None:
        self._terms = terms if terms is None or len(terms) <= _MAX_TERMS else None

    def __and__(self, other: Condition) -> Condition:
        if self._terms is None or other._terms is None or len(self._terms) * len(other._terms) > _MAX_PRODUCTS:
            return Condition(None)
        terms = {one | its for one in self._terms for its in other._terms}
        return Condition(frozenset(term for term in terms if len({edge.operator for edge in term}) == len(term)))

    def any_of(self, other: Condition, branches: Mapping[str, Sequence[str]]) -> Condition:
        """Return the condition that either holds, without outcomes that make no difference."""
        if self._terms is None or other._terms is None or len(self._terms) + len(other._terms) > _MAX_TERMS:
            return Condition(None)
        terms = set(self._terms | other._terms)
        for term in sorted(terms, key=len, reverse=True):
            for edge in term:
                rest = term - {edge}
                if all(rest | {Edge(edge.operator, branch)} in terms for branch in branches[edge.operator]):
                    terms.add(rest)
        return Condition(frozenset(term for term in terms if not any(other < term for other in terms)))

    @property
    def holds_never(self) -> bool:
        """Whether no outcome of the branches fulfils it."""
        return self._terms == frozenset()

    @property
    def may_hold(self) -> bool:
        """Whether some outcome is known to fulfil it."""
        return bool(self._terms)


NEVER = Condition(frozenset())
