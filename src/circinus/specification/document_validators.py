"""Checks within one document: unique names, the graph of operators, conditions of knobs, references to sites.

The checks read a model or, if some of its fields are invalid, the raw input. They skip malformed values, which field
validation reports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from circinus.specification.dataflow import (
    ANY,
    NEVER,
    Condition,
    Edge,
    FlowNode,
    Scope,
    edges_of,
    input_text,
    output_scope,
)
from circinus.specification.diagnostics import Issue, describe, did_you_mean, expected_choice
from circinus.specification.limits import MAX_CHOICES, MAX_KNOBS, MAX_OPERATORS
from circinus.specification.shorthands import KeyedByName, as_list

RESERVED_KNOBS = ("cpus",)
"""Keywords that pass the resources of a replica to its operator, and so are no names of knobs."""


def get_field(content: Any, *names: str) -> Any:
    """Return the field of `content` under the first existing of `names` (in YAML, in Python), or None."""
    for name in names:
        if isinstance(content, Mapping):
            if name in content:
                return content[name]
        elif hasattr(content, name):
            return getattr(content, name)
    return None


def list_entries(content: Any) -> list[tuple[int, Any]]:
    """Return positions and entries of a list, or nothing for another value."""
    return list(enumerate(content)) if isinstance(content, list | tuple) else []


def text_entries(content: Any) -> list[tuple[int, str]]:
    """Return positions and entries of a list, or of a single text, that are texts."""
    return [(position, entry) for position, entry in list_entries(as_list(content)) if isinstance(entry, str)]


def named_entries(content: Any) -> list[tuple[int, str]]:
    """Return positions and names of the entries of a list; an entry may be its name."""
    names = [(i, entry if isinstance(entry, str) else get_field(entry, "name")) for i, entry in list_entries(content)]
    return [(position, name) for position, name in names if isinstance(name, str)]


def _duplicate_names(content: Any, field: str) -> Iterator[Issue]:
    positions: dict[str, int] = {}
    for position, name in named_entries(get_field(content, field)):
        if name in positions:
            expected = f"a name that differs from that of {field}[{positions[name]}]"
            yield Issue((field, position, "name"), f"{describe(name)} again", expected)
        positions.setdefault(name, position)


def validate_operator_graph(pipeline: Any) -> Iterator[Issue]:
    """Yield issues of the names of a pipeline's operators and of their graph."""
    if len(list_entries(get_field(pipeline, "operators"))) > MAX_OPERATORS:
        return  # which field validation reports
    yield from _duplicate_names(pipeline, "operators")
    operators = list_entries(get_field(pipeline, "operators"))
    names = dict(named_entries(get_field(pipeline, "operators")))
    all_names = set(names.values())
    parents: dict[str, list[str]] = {}
    for position, operator in operators:
        edges = _edges(operator)
        for index, edge in edges:
            path = ("operators", position, "after", *index)
            if edge.operator == names.get(position):
                yield Issue(path, f"{describe(edge.operator)}, the operator itself", "another operator")
            elif edge.operator not in all_names and len(names) == len(operators):  # else it may be one without name
                candidates = [name for name in names.values() if name != names[position]]
                hint = did_you_mean(edge.operator, candidates)
                expected = expected_choice(candidates, "an operator of this pipeline")
                yield Issue(path, describe(edge.operator), expected, hint)
        if position in names:
            own = names[position]
            parents.setdefault(own, [edge.operator for _, edge in edges if edge.operator != own])
    for cycle in _cycles(parents):
        position = next(i for i, name in names.items() if name == cycle[0])
        path_text = " -> ".join([*cycle, cycle[0]])
        yield Issue(("operators", position, "after"), f"the cycle {path_text}", "operators that form no cycle")
    yield from _dataflow_issues(pipeline)


def _edges(operator: Any) -> list[tuple[tuple[str | int, ...], Edge]]:
    """Return the well-formed edges into an operator, each with its path in `after`."""
    edges: list[tuple[tuple[str | int, ...], Edge]] = []
    for index, entry in list_entries(as_list(get_field(operator, "after"))):
        alternatives = edges_of(entry)
        is_any = isinstance(entry, Mapping) and isinstance(entry.get(ANY), list | tuple)
        for part, edge in enumerate(alternatives):
            own = (index, ANY, part) if is_any else (index,)
            edges.append(((*own, edge.operator) if edge.branch is not None else own, edge))
    return edges


def _dataflow_issues(pipeline: Any) -> Iterator[Issue]:
    """Yield issues of branches, scopes and conditions of operators whose graph is sound otherwise."""
    positions: dict[str, int] = {}
    nodes: dict[str, FlowNode] = {}
    for position, operator in list_entries(get_field(pipeline, "operators")):
        entries = [entry for _, entry in list_entries(as_list(get_field(operator, "after")))]
        name, inputs = get_field(operator, "name"), tuple(edges_of(entry) for entry in entries)
        if not isinstance(name, str) or name in nodes or () in inputs:
            return
        branches = tuple(text for _, text in text_entries(get_field(operator, "branches")))
        emits_many, gathers = get_field(operator, "emits") == "many", get_field(operator, "gather") is True
        nodes[name], positions[name] = FlowNode(name, inputs, emits_many, gathers, branches), position
    for name in nodes:
        for path, edge in _edges(list_entries(get_field(pipeline, "operators"))[positions[name]][1]):
            if edge.operator not in nodes:
                return
            branches = nodes[edge.operator].branches
            if edge.branch is not None and edge.branch not in branches:
                expected = expected_choice(branches, f"a branch of {edge.operator}")
                hint = did_you_mean(edge.branch, branches) or ("" if branches else "list them in its field `branches`")
                yield Issue(("operators", positions[name], "after", *path), describe(edge.branch), expected, hint)
                return
    done: dict[str, FlowNode] = {}
    flow = _Flow({name: node.branches for name, node in nodes.items()})
    while pending := [node for node in nodes.values() if node.name not in done]:
        ready = [node for node in pending if all(parent in done for parent in node.parents)]
        if not ready:
            return  # a cycle
        node = ready[0]
        done[node.name] = node
        if issue := flow.add(node):
            yield issue.with_prefix("operators", positions[node.name])
            return


class _Flow:
    """Scopes and conditions of operators, which are added in topological order."""

    def __init__(self, branches: Mapping[str, Sequence[str]]) -> None:
        self._branches = branches
        self._scopes: dict[str, Scope] = {}
        """Operator -> scope of its outputs."""
        self._conditions: dict[str, Condition] = {}

    def add(self, node: FlowNode) -> Issue | None:
        """Add an operator, or return the issue that prevents it."""
        inputs = [[self._scopes[edge.operator] for edge in edges] for edges in node.inputs]
        deepest = max((scope for scopes in inputs for scope in scopes), key=len, default=())
        own = deepest[:-1] if node.gathers else deepest
        if node.gathers and not deepest:
            emitting = "an input from an operator behind one that emits many"
            return Issue(("gather",), "true, but no input comes from a fan-out", emitting, "leave out `gather`")
        allowed = {deepest, own}
        for index, (edges, scopes) in enumerate(zip(node.inputs, inputs, strict=True)):
            for edge, scope in zip(edges, scopes, strict=True):
                if scope not in allowed or (scope != deepest and len(set(scopes)) > 1):
                    found = f"{edge.operator}, which comes {_place(scope)}"
                    hint = "gather the elements first (`gather: true`), or let the elements carry the value"
                    return Issue(("after", index), found, f"an output that comes {_place(deepest)}", hint)
        condition = Condition()
        for index, (edges, scopes) in enumerate(zip(node.inputs, inputs, strict=True)):
            comes, issue = self._input(node, edges)
            if issue is not None:
                return issue.with_prefix("after", index)
            if node.gathers and scopes[0] == deepest:
                comes = self._conditions[deepest[-1]]  # a list comes without elements, too
            condition = condition & comes
            if condition.holds_never:
                hint = "take either by one input: {any: [...]}"
                return Issue(
                    ("after", index), "an input that never comes with the others", "inputs that may come together", hint
                )
        self._conditions[node.name], self._scopes[node.name] = condition, output_scope(node, own)
        return None

    def _input(self, node: FlowNode, edges: Sequence[Edge]) -> tuple[Condition, Issue | None]:
        comes = NEVER
        for position, edge in enumerate(edges):
            taken = Condition() if edge.branch is None else Condition(frozenset({frozenset({edge})}))
            one = self._conditions[edge.operator] & taken
            if edge in edges[:position]:
                return NEVER, Issue((ANY, position), f"{input_text([edge])} again", "each output once")
            if (comes & one).may_hold:
                expected = "outputs of which only one comes"
                hint = "name their branches, as in {any: [{cheap: sure}, expensive]}"
                return NEVER, Issue((ANY, position), f"{edge.operator}, which may come with another", expected, hint)
            comes = comes.any_of(one, self._branches)
        return comes, None


def _place(scope: Scope) -> str:
    return f"once for each element of {scope[-1]}" if scope else "once for each item"


def validate_emission(operator: Any) -> Iterator[Issue]:
    """Yield issues of what an operator emits."""
    if get_field(operator, "at_most") is not None and get_field(operator, "emits") in ("one", None):
        yield Issue(("at_most",), "a maximum number of elements", "`emits: many`, which alone has elements")


def _cycles(parents: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield disjoint cycles in the direction of the data, each starting at its node that is listed first."""
    remaining = dict(parents)
    while True:
        while roots := [name for name in remaining if not any(parent in remaining for parent in remaining[name])]:
            for name in roots:
                del remaining[name]
        if not remaining:
            return
        walk = [next(iter(remaining))]
        while (parent := next(p for p in remaining[walk[-1]] if p in remaining)) not in walk:
            walk.append(parent)
        cycle = walk[walk.index(parent) :][::-1]
        start = min(range(len(cycle)), key=lambda i: list(parents).index(cycle[i]))
        yield cycle[start:] + cycle[:start]
        for name in cycle:
            del remaining[name]


def validate_knobs(operator: Any) -> Iterator[Issue]:
    """Yield issues of the names of an operator's knobs and of their conditions."""
    given = get_field(operator, "knobs")
    content = {"knobs": KeyedByName(main="choices").expand(given)}
    if len(list_entries(content["knobs"])) > MAX_KNOBS:
        return  # which field validation reports
    yield from _duplicate_names(content, "knobs")
    names = dict(named_entries(content["knobs"]))
    choices = {
        names[i]: as_list(get_field(knob, "choices")) for i, knob in list_entries(content["knobs"]) if i in names
    }
    conditions: dict[str, list[str]] = {}
    for position, knob in list_entries(content["knobs"]):
        name = names.get(position)
        if name in RESERVED_KNOBS:
            expected = f"another name, since this keyword passes the {name} of the replica"
            yield Issue(("knobs", position, "name"), f"the knob {name}", expected)
        only_if = get_field(knob, "only_if")
        for other, values in only_if.items() if isinstance(only_if, Mapping) else ():
            path = ("knobs", position, "only_if", other)
            if other == name:
                yield Issue(path, f"{describe(other)}, the knob itself", "another knob")
                continue
            if other in choices:
                conditions.setdefault(str(name), []).append(other)
            yield from _condition_issues(path, other, values, {k: v for k, v in choices.items() if k != name})
    for position, case in list_entries(get_field(operator, "gpu_memory_cases")):
        only_if = get_field(case, "only_if")
        for knob, values in only_if.items() if isinstance(only_if, Mapping) else ():
            yield from _condition_issues(("gpu_memory_cases", position, "only_if", knob), knob, values, choices)
    for cycle in _cycles({name: conditions.get(name, []) for name in choices}):
        position = next(i for i, name in names.items() if name == cycle[0])
        path_text = " -> ".join([*cycle, cycle[0]])
        yield Issue(("knobs", position, "only_if"), f"the cycle {path_text}", "conditions that form no cycle")


def validate_pins(content: Any, field: str, main: str) -> Iterator[Issue]:
    """Yield an issue for each name that is pinned more than once."""
    yield from _duplicate_names({field: KeyedByName(main=main).expand(get_field(content, field))}, field)


def _condition_issues(
    path: tuple[str | int, ...], knob: str, values: Any, choices: Mapping[str, Any]
) -> Iterator[Issue]:
    """Yield issues of a knob and its values in a condition; `choices` are those of all knobs that it may name."""
    if knob in choices:
        yield from _unknown_choices(path, knob, values, choices[knob])
    else:
        expected = expected_choice(list(choices), "a knob of this operator")
        yield Issue(path, describe(knob), expected, did_you_mean(knob, choices))


def _unknown_choices(path: tuple[str | int, ...], knob: str, values: Any, choices: Any) -> Iterator[Issue]:
    if not isinstance(choices, list | tuple) or len(choices) > MAX_CHOICES:
        return
    for index, value in list_entries(as_list(values)):
        if value not in choices and isinstance(value, bool | int | float | str):
            hint = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
            yield Issue((*path, index), describe(value), expected_choice(choices, f"a choice of the knob {knob}"), hint)


def validate_topology(infrastructure: Any, default_tiers: Sequence[str]) -> Iterator[Issue]:
    """Yield issues of the names of sites, pools and tenants, and of references to sites and tiers."""
    for field in ("sites", "pools"):
        yield from _duplicate_names(infrastructure, field)
    yield from _duplicate_names(
        {"tenants": KeyedByName(main="at_least").expand(get_field(infrastructure, "tenants"))}, "tenants"
    )
    sites = dict.fromkeys(name for _, name in named_entries(get_field(infrastructure, "sites")))
    tiers = get_field(infrastructure, "tiers")
    own_tiers = [name for _, name in text_entries(tiers)] if tiers is not None else default_tiers
    targets = {"site": sites, "tier": dict.fromkeys(own_tiers)}
    for position, pool in list_entries(get_field(infrastructure, "pools")):
        for field, names in targets.items():
            yield from _unknown_name(
                ("pools", position, field), get_field(pool, field), names, f"a {field} of this infrastructure"
            )
    positions: dict[frozenset[str], int] = {}
    for position, link in list_entries(get_field(infrastructure, "links")):
        ends = {"from": get_field(link, "from", "source"), "to": get_field(link, "to", "target")}
        for field, end in ends.items():
            yield from _unknown_name(("links", position, field), end, sites, "a site of this infrastructure")
        pair = frozenset(end for end in ends.values() if isinstance(end, str))
        if len(pair) == 1 and None not in ends.values():
            yield Issue(("links", position, "to"), f"{describe(ends['to'])} at both ends", "two sites")
        elif len(pair) == 2 and pair in positions:
            both = " and ".join(sorted(pair))
            yield Issue(("links", position), f"a second link between {both}", f"only links[{positions[pair]}]")
        if len(pair) == 2:
            positions.setdefault(pair, position)


def _unknown_name(path: tuple[str | int, ...], name: Any, names: Collection[str], subject: str) -> Iterator[Issue]:
    if isinstance(name, str) and names and name not in names:
        yield Issue(path, describe(name), expected_choice(names, subject), did_you_mean(name, names))
