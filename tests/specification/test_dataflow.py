"""Dataflow of lists and branches: held against an interpreter that computes one run at a time, from its end."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, examples, seeds
from circinus.profiling.item_runs import branch_name, mean_element_s
from circinus.profiling.profile import runs_by_item
from circinus.specification import OperatorSpec, Pipeline, Specification, parse_specification
from circinus.specification.dataflow import NEVER, Condition, Edge, FlowNode, ItemFlow, RunPath
from circinus.specification.document_validators import validate_operator_graph
from circinus.testing.random_fan_outs import random_fan_out, random_runs
from circinus.testing.random_instances import random_pipeline, random_profile

Emitted = Sequence[tuple[str | None, Any]]
Emit = Callable[[str, RunPath, Sequence[Any]], Emitted]
SOURCE = "source"
MISSING = object()


class Interpreter:
    """Runs of one item by recursion from the operator that is asked for, without lists of what is due."""

    def __init__(self, nodes: Sequence[FlowNode], emit: Emit) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._emit = emit
        self.emitted = cache(self._emitted)
        self.inputs = cache(self._inputs)

    def around(self, name: str) -> tuple[str, ...]:
        """Fan-outs around the outputs of an operator."""
        node = self._nodes[name]
        own = self.own(name)
        return (*own, name) if node.emits_many else own

    def own(self, name: str) -> tuple[str, ...]:
        """Fan-outs around its runs."""
        node = self._nodes[name]
        received = sorted((self.around(parent) for parent in node.parents), key=len)
        inner = received[-1] if received else ()
        return inner[: len(inner) - node.gathers]

    def paths(self, name: str) -> list[RunPath]:
        """Paths of its runs."""
        return [path for path in self._places(self.own(name)) if self.inputs(name, path) is not None]

    def answer(self, name: str, path: RunPath = ()) -> Any:
        around = self.around(name)
        if len(path) == len(around):
            found = self._received(Edge(name), path)
            return None if found is MISSING else found
        answers = [self.answer(name, (*path, i)) for i in range(self._count(around[len(path)], path) or 0)]
        return [answer for answer in answers if answer is not None]

    def _places(self, fan_outs: Sequence[str]) -> list[RunPath]:
        if not fan_outs:
            return [()]
        return [(*p, i) for p in self._places(fan_outs[:-1]) for i in range(self._count(fan_outs[-1], p) or 0)]

    def _count(self, fan_out: str, path: RunPath) -> int | None:
        emitted = self.emitted(fan_out, path)
        return None if emitted is None else len(emitted)

    def _emitted(self, name: str, path: RunPath) -> Emitted | None:
        inputs = self.inputs(name, path)
        return None if inputs is None else self._emit(name, path, inputs)

    def _inputs(self, name: str, path: RunPath) -> list[Any] | None:
        node = self._nodes[name]
        inputs = [self._input(edges, path) for edges in node.inputs] if node.inputs else [SOURCE]
        return None if any(value is MISSING for value in inputs) else inputs

    def _input(self, edges: Sequence[Edge], path: RunPath) -> Any:
        around = self.around(edges[0].operator)
        if len(around) == len(path):
            return self._either(edges, path)
        count = self._count(around[-1], path)
        if count is None:
            return MISSING
        return [value for i in range(count) if (value := self._either(edges, (*path, i))) is not MISSING]

    def _either(self, edges: Sequence[Edge], path: RunPath) -> Any:
        received = [value for edge in edges if (value := self._received(edge, path)) is not MISSING]
        assert len(received) <= 1, f"several outputs of {edges} come"
        return received[0] if received else MISSING

    def _received(self, edge: Edge, path: RunPath) -> Any:
        many = self._nodes[edge.operator].emits_many
        emitted = self.emitted(edge.operator, path[:-1] if many else path)
        if emitted is None:
            return MISSING
        branch, value = emitted[path[-1] if many else 0]
        return value if edge.branch in (None, branch) else MISSING


def _fan_out(seed: int, operators: int = 5) -> Pipeline:
    rng = np.random.default_rng(seed)
    return random_fan_out(rng, random_pipeline(rng, operators=operators))


def _nodes(pipeline: Pipeline) -> list[FlowNode]:
    return [operator.flow for operator in pipeline.topological_order()]


def _drawn(nodes: Sequence[FlowNode], seed: int) -> Emit:
    """Operators whose outputs depend on their inputs alone: up to three elements, any branches."""
    by_name = {node.name: node for node in nodes}

    def emit(name: str, path: RunPath, inputs: Sequence[Any]) -> Emitted:
        rng, node = random.Random(f"{seed} {name} {inputs}"), by_name[name]
        count = rng.randrange(4) if node.emits_many else 1
        branches = [rng.choice(node.branches) if node.branches else None for _ in range(count)]
        return [(branch, f"{name}{index}#{rng.getrandbits(40):x}") for index, branch in enumerate(branches)]

    return emit


@pytest.mark.parametrize("seed", seeds(300))
def test_runs_inputs_and_answers_are_those_of_the_interpreter(seed: int) -> None:
    """Runs end in any order."""
    pipeline, rng = _fan_out(seed), random.Random(seed)
    nodes = _nodes(pipeline)
    emit = _drawn(nodes, seed)
    flow, expected = ItemFlow[Any](nodes), Interpreter(nodes, emit)
    for node in nodes:
        due = flow.due(node.name, SOURCE)
        assert [path for path, _ in due] == expected.paths(node.name) == sorted(expected.paths(node.name))
        for path, inputs in rng.sample(due, len(due)):
            assert inputs == expected.inputs(node.name, path)
            flow.add(node.name, path, emit(node.name, path, inputs))
    for sink in pipeline.sinks():
        assert flow.answer(sink) == expected.answer(sink)


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
@settings(max_examples=examples(60))
def test_gathering_restores_the_order_of_elements(order: Sequence[int], dropped: set[int]) -> None:
    flow = ItemFlow[Any](
        (
            FlowNode("detect", (), emits_many=True, branches=("kept", "dropped")),
            FlowNode("read", ((Edge("detect", "kept"),),)),
            FlowNode("track", ((Edge("read"),), (Edge("detect"),)), gathers=True),
        )
    )
    flow.add("detect", (), [("dropped" if i in dropped else "kept", i) for i in range(5)])
    for index in order:
        if index not in dropped:
            flow.add("read", (index,), [(None, 10 * index)])
    kept = [index for index in range(5) if index not in dropped]
    assert flow.due("track") == [((), [[10 * index for index in kept], [0, 1, 2, 3, 4]])]


@pytest.mark.parametrize("seed", seeds(60))
def test_the_mean_number_of_runs_and_the_time_of_a_random_element_follow_from_the_items(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pipeline = random_fan_out(rng, random_pipeline(rng, operators=4, knobs=(1,) * 4))
    profile = random_runs(rng, pipeline, random_profile(rng, pipeline, items=12).configurations[0])
    nodes, counts = _nodes(pipeline), {operator.name: 0 for operator in pipeline.operators}
    for runs in runs_by_item(profile.operators):

        def emit(name: str, path: RunPath, inputs: Sequence[Any], runs: Mapping[str, Any] = runs) -> Emitted:
            branches = runs[name].branches[runs[name].paths.index(path)]
            return [(branch_name(pipeline.operator(name).flow, branch), "") for branch in branches]

        expected = Interpreter(nodes, emit)
        mean_s = mean_element_s(nodes, runs)
        for name in counts:
            counts[name] += len(expected.paths(name))
            seconds = dict(zip(runs[name].paths, runs[name].service_s, strict=True))
            assert mean_s[name] == pytest.approx(_random_element_s(expected, expected.own(name), seconds))
    for name, count in counts.items():
        assert profile.operators[name].run_counts.mean() == pytest.approx(count / len(profile.items))


def _random_element_s(
    item: Interpreter, fan_outs: Sequence[str], seconds: Mapping[RunPath, float], path: RunPath = ()
) -> float:
    """Return the mean over elements of the outermost fan-out of the means inside each."""
    if len(path) == len(fan_outs):
        return seconds.get(path, 0.0)
    elements = item.emitted(fan_outs[len(path)], path) or ()
    inside = [_random_element_s(item, fan_outs, seconds, (*path, index)) for index in range(len(elements))]
    return sum(inside) / len(inside) if inside else 0.0


@pytest.mark.parametrize("seed", seeds(60))
def test_fan_outs_that_are_written_load_back(seed: int) -> None:
    specification = Specification({"pipeline": _fan_out(seed)}, None, ())
    text = specification.to_yaml()
    loaded = parse_specification(text)
    assert loaded == specification
    assert loaded.to_yaml() == text
    assert loaded.fingerprint() == specification.fingerprint()
    assert Pipeline.model_validate_json(loaded.pipelines["pipeline"].model_dump_json()) == loaded.pipelines["pipeline"]


BRANCHES = {"a": ("x", "y"), "b": ("x", "y", "z"), "c": ("x", "y")}
ATOMS = [Edge(operator, branch) for operator, branches in BRANCHES.items() for branch in branches]
Expression = Any
"""An Edge, or ("and" or "or", expression, expression)."""

expressions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    max_leaves=10,
)


def _condition(expression: Expression) -> Condition:
    if isinstance(expression, Edge):
        return Condition(frozenset({frozenset({expression})}))
    kind, left, right = expression
    one, other = _condition(left), _condition(right)
    return one & other if kind == "and" else one.any_of(other, BRANCHES)


def _holds(expression: Expression, outcome: Mapping[str, str]) -> bool:
    if isinstance(expression, Edge):
        return outcome[expression.operator] == expression.branch
    kind, left, right = expression
    holds = _holds(left, outcome), _holds(right, outcome)
    return all(holds) if kind == "and" else any(holds)


@given(expressions)
@settings(max_examples=examples(400))
def test_a_condition_holds_for_the_outcomes_that_fulfil_it(expression: Expression) -> None:
    condition, holding = _condition(expression), 0
    for branches in itertools.product(*BRANCHES.values()):
        outcome = dict(zip(BRANCHES, branches, strict=True))
        taken = Condition(frozenset({frozenset(map(Edge, outcome.keys(), outcome.values()))}))
        assert (condition & taken).holds_never == (not _holds(expression, outcome))
        holding += _holds(expression, outcome)
    assert condition.holds_never == (holding == 0)
    assert (condition & NEVER).holds_never


def _entry(rng: random.Random, before: Sequence[Mapping[str, Any]], depth: int = 0) -> Any:
    if depth == 0 and rng.random() < 0.4:
        return {"any": [_entry(rng, before, 1) for _ in range(rng.randint(2, 3))]}
    producer = rng.choice(before)
    return {producer["name"]: rng.choice(producer["branches"])} if producer["branches"] else producer["name"]


def _operators(rng: random.Random, lists: bool) -> list[dict[str, Any]]:
    """Operators that nothing has checked."""
    operators: list[dict[str, Any]] = []
    for index in range(rng.randint(2, 5)):
        entries = [_entry(rng, operators) for _ in range(rng.randint(0, 2))] if operators else []
        operators.append(
            {
                "name": f"o{index}",
                "uses": "m:f",
                "after": [entry for number, entry in enumerate(entries) if entry not in entries[:number]],
                "emits": "many" if lists and rng.random() < 0.4 else "one",
                "gather": lists and rng.random() < 0.3,
                "branches": rng.sample(["x", "y", "z"], rng.choice([0, 2, 2, 3])),
            }
        )
    return operators


def _is_sound(nodes: Sequence[FlowNode]) -> bool:
    """Whether lists fit, each operator runs under some outcome, and no input comes twice under any.

    One element in each fan-out is enough, as no input takes outputs of different elements.
    """
    structure = Interpreter(nodes, lambda *_: ())
    for node in nodes:
        scopes = [{structure.around(edge.operator) for edge in edges} for edges in node.inputs]
        inner = max((scope for several in scopes for scope in several), key=len, default=())
        fits = {inner, inner[:-1]} if node.gathers else {inner}
        if any(len(several) > 1 or not several <= fits for several in scopes) or (node.gathers and not inner):
            return False
    branching = [node for node in nodes if node.branches]
    running = set()
    for branches in itertools.product(*(node.branches for node in branching)):
        taken = dict(zip((node.name for node in branching), branches, strict=True))
        item = Interpreter(nodes, lambda name, *_, taken=taken: [(taken.get(name), name)])  # type: ignore[misc]
        try:
            running |= {node.name for node in nodes if item.paths(node.name)}
        except AssertionError:
            return False
    return len(running) == len(nodes)


@pytest.mark.parametrize("lists", [False, True])
def test_pipelines_are_refused_exactly_if_an_outcome_of_branches_is_ambiguous_or_none_lets_an_operator_run(
    lists: bool,
) -> None:
    rng, verdicts = random.Random(1), set()
    for _ in seeds(2000):
        operators = _operators(rng, lists)
        nodes = [OperatorSpec.model_validate(operator).flow for operator in operators]
        is_valid = not list(validate_operator_graph({"operators": operators}))
        assert is_valid == _is_sound(nodes), operators
        verdicts.add(is_valid)
    assert verdicts == {True, False}


def _cascades(count: int) -> list[dict[str, Any]]:
    """Cheap operators, each with a dear one for its branch `unsure`; what they are sure of goes on past that one."""
    operators: list[dict[str, Any]] = []
    for index in range(count):
        after = [{"any": [{f"cheap{index - 1}": "sure"}, f"dear{index - 1}"]}] if index else []
        operators.append({"name": f"cheap{index}", "uses": "m:f", "after": after, "branches": ["sure", "unsure"]})
        operators.append({"name": f"dear{index}", "uses": "m:f", "after": {f"cheap{index}": "unsure"}})
    return operators


@pytest.mark.timeout(HANG_LIMIT_S)
def test_many_cascades_in_a_row_are_checked() -> None:
    """Conditions that listed the outcomes of all cascades would have 2**30 terms."""
    operators = _cascades(30)
    assert not list(validate_operator_graph({"operators": operators}))
    operators[-2]["after"] = [{"any": [{"cheap28": "unsure"}, "dear28"]}]
    (issue,) = validate_operator_graph({"operators": operators})
    assert issue.path == ("operators", 58, "after", 0, "any", 1)


@pytest.mark.timeout(HANG_LIMIT_S)
def test_many_branches_that_are_dropped_in_a_row_are_checked() -> None:
    """With too many terms, conditions are unknown, and nothing is refused for them."""
    operators: list[dict[str, Any]] = [{"name": "join-1", "uses": "m:f"}]
    for index in range(40):
        check = {"name": f"check{index}", "uses": "m:f", "after": f"join{index - 1}", "branches": ["a", "b", "dropped"]}
        dear = {"name": f"dear{index}", "uses": "m:f", "after": {f"check{index}": "a"}}
        join = {"name": f"join{index}", "uses": "m:f", "after": {"any": [f"dear{index}", {f"check{index}": "b"}]}}
        operators += [check, dear, join]
    assert not list(validate_operator_graph({"operators": operators}))
