"""What must agree within one document: names, the graph of operators, conditions of knobs, places.

Every check reads a model or, where fields of the document are faulty, what the user wrote: what has not the form it
should have is passed over, since the field itself is reported elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from circinus.specification.diagnostics import Issue, describe, did_you_mean, expected_choice
from circinus.specification.shorthands import KeyedByName, as_list

RESERVED_KNOBS = ("cpus",)
"""Keywords by which an operator is told what its replica has; no knob may be called so."""


def get_field(content: Any, *names: str) -> Any:
    """The field of `content` under the first of `names` (as written in YAML, in Python) that it has; None: absent."""
    for name in names:
        if isinstance(content, Mapping):
            if name in content:
                return content[name]
        elif hasattr(content, name):
            return getattr(content, name)
    return None


def list_entries(content: Any) -> list[tuple[int, Any]]:
    """Positions and entries of a list; nothing where there is no list."""
    return list(enumerate(content)) if isinstance(content, list | tuple) else []


def text_entries(content: Any) -> list[tuple[int, str]]:
    """Positions and entries of a list (or of one text) that are texts."""
    return [(position, entry) for position, entry in list_entries(as_list(content)) if isinstance(entry, str)]


def named_entries(content: Any) -> list[tuple[int, str]]:
    """Positions and names of the entries of a list; where only the name is written, of that."""
    names = [(i, entry if isinstance(entry, str) else get_field(entry, "name")) for i, entry in list_entries(content)]
    return [(position, name) for position, name in names if isinstance(name, str)]


def _same_names(content: Any, field: str) -> Iterator[Issue]:
    first: dict[str, int] = {}
    for position, name in named_entries(get_field(content, field)):
        if name in first:
            other = f"a name that {field}[{first[name]}] does not have already"
            yield Issue((field, position, "name"), f"{describe(name)} again", other)
        first.setdefault(name, position)


def validate_operator_graph(pipeline: Any) -> Iterator[Issue]:
    """What is wrong with the names of a pipeline's operators and with what they come after."""
    yield from _same_names(pipeline, "operators")
    operators = list_entries(get_field(pipeline, "operators"))
    names = dict(named_entries(get_field(pipeline, "operators")))
    parents: dict[str, list[str]] = {}
    for position, operator in operators:
        after = text_entries(get_field(operator, "after"))
        for place, parent in after:
            path = ("operators", position, "after", place)
            if parent == names.get(position):
                yield Issue(path, f"{describe(parent)}, the operator itself", "another operator")
            elif parent not in names.values() and len(names) == len(operators):  # else it may be a nameless one
                others = [other for other in names.values() if other != names[position]]
                hint = did_you_mean(parent, others)
                yield Issue(path, describe(parent), expected_choice(others, "an operator of this pipeline"), hint)
        if position in names:
            parents.setdefault(names[position], [parent for _, parent in after if parent != names[position]])
    for cycle in _cycles(parents):
        position = next(i for i, name in names.items() if name == cycle[0])
        way = " -> ".join([*cycle, cycle[0]])
        yield Issue(("operators", position, "after"), f"the cycle {way}", "operators that form no cycle")


def _cycles(parents: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Cycles without common nodes, in the direction of the data, each from its node that is listed first."""
    rest = dict(parents)
    while True:
        while free := [name for name in rest if not any(parent in rest for parent in rest[name])]:
            for name in free:
                del rest[name]
        if not rest:
            return
        way = [next(iter(rest))]
        while (parent := next(p for p in rest[way[-1]] if p in rest)) not in way:
            way.append(parent)
        cycle = way[way.index(parent) :][::-1]
        start = min(range(len(cycle)), key=lambda i: list(parents).index(cycle[i]))
        yield cycle[start:] + cycle[:start]
        for name in cycle:
            del rest[name]


def validate_knobs(operator: Any) -> Iterator[Issue]:
    """What is wrong with the names of an operator's knobs and with the conditions under which they exist."""
    given = get_field(operator, "knobs")
    content = {"knobs": KeyedByName(main="choices").expand(given)}
    yield from _same_names(content, "knobs")
    names = dict(named_entries(content["knobs"]))
    choices = {
        names[i]: as_list(get_field(knob, "choices")) for i, knob in list_entries(content["knobs"]) if i in names
    }
    conditions: dict[str, list[str]] = {}
    for position, knob in list_entries(content["knobs"]):
        name = names.get(position)
        if name in RESERVED_KNOBS:
            expected = f"another name; an operator is told the {name} of its replica under this one"
            yield Issue(("knobs", position, "name"), f"the knob {name}", expected)
        only_if = get_field(knob, "only_if")
        for other, values in only_if.items() if isinstance(only_if, Mapping) else ():
            path = ("knobs", position, "only_if", other)
            if other == name:
                yield Issue(path, f"{describe(other)}, the knob itself", "another knob")
            elif other not in choices:
                others = [known for known in choices if known != name]
                hint = did_you_mean(other, others)
                yield Issue(path, describe(other), expected_choice(others, "a knob of this operator"), hint)
            else:
                conditions.setdefault(str(name), []).append(other)
                yield from _unknown_choices(path, other, values, choices[other])
    for cycle in _cycles({name: conditions.get(name, []) for name in choices}):
        position = next(i for i, name in names.items() if name == cycle[0])
        way = " -> ".join([*cycle, cycle[0]])
        yield Issue(("knobs", position, "only_if"), f"the cycle {way}", "conditions that form no cycle")


def validate_pins(content: Any, field: str, main: str) -> Iterator[Issue]:
    """What is wrong with the names under which something is pinned: each may be there once."""
    yield from _same_names({field: KeyedByName(main=main).expand(get_field(content, field))}, field)


def _unknown_choices(path: tuple[str | int, ...], knob: str, values: Any, choices: Any) -> Iterator[Issue]:
    if not isinstance(choices, list | tuple):
        return
    for place, value in list_entries(as_list(values)):
        if value not in choices and isinstance(value, bool | int | float | str):
            hint = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
            yield Issue((*path, place), describe(value), expected_choice(choices, f"a choice of the knob {knob}"), hint)


def validate_topology(infrastructure: Any, default_tiers: Sequence[str]) -> Iterator[Issue]:
    """What is wrong with the names of sites, pools and links, and with the sites and tiers they refer to."""
    for field in ("sites", "pools"):
        yield from _same_names(infrastructure, field)
    yield from _same_names(
        {"tenants": KeyedByName(main="at_least").expand(get_field(infrastructure, "tenants"))}, "tenants"
    )
    sites = [name for _, name in named_entries(get_field(infrastructure, "sites"))]
    tiers = get_field(infrastructure, "tiers")
    known = {"site": sites, "tier": [n for _, n in text_entries(tiers)] if tiers is not None else list(default_tiers)}
    for position, pool in list_entries(get_field(infrastructure, "pools")):
        for field, names in known.items():
            yield from _place(
                ("pools", position, field), get_field(pool, field), names, f"a {field} of this infrastructure"
            )
    first: dict[frozenset[str], int] = {}
    for position, link in list_entries(get_field(infrastructure, "links")):
        ends = {"from": get_field(link, "from", "source"), "to": get_field(link, "to", "target")}
        for field, end in ends.items():
            yield from _place(("links", position, field), end, sites, "a site of this infrastructure")
        pair = frozenset(end for end in ends.values() if isinstance(end, str))
        if len(pair) == 1 and None not in ends.values():
            yield Issue(("links", position, "to"), f"{describe(ends['to'])} at both ends", "two sites")
        elif len(pair) == 2 and pair in first:
            both = " and ".join(sorted(pair))
            yield Issue(("links", position), f"a second link between {both}", f"one, which is links[{first[pair]}]")
        if len(pair) == 2:
            first.setdefault(pair, position)


def _place(path: tuple[str | int, ...], name: Any, names: Sequence[str], what: str) -> Iterator[Issue]:
    if isinstance(name, str) and names and name not in names:
        yield Issue(path, describe(name), expected_choice(names, what), did_you_mean(name, names))
