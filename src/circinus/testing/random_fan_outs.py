"""Random pipelines with fan-outs, lists and branches, and random runs of their operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from circinus.arrays import FloatArray
from circinus.operators.protocol import NO_BRANCH
from circinus.profiling.item_runs import ItemRuns, branch_name
from circinus.profiling.profile import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, OperatorSpec, Pipeline
from circinus.specification.dataflow import FlowNode, ItemFlow

BRANCHES = ("left", "right")
_MOST_ELEMENTS = 4
_SINGLE = ItemRuns.single(0.0, 0.0)


def random_fan_out(rng: np.random.Generator, plain: Pipeline) -> Pipeline:
    """Return a pipeline with the operators of another one, some of which emit many, gather or take branches."""
    while True:
        operators: list[OperatorSpec] = []
        for spec in plain.operators:
            operators.append(_random_operator(rng, spec, operators))
        try:
            pipeline = Pipeline(name=plain.name, operators=tuple(operators), metric=plain.metric, dataset=plain.dataset)
        except ValidationError:
            continue
        if pipeline.has_fan_outs:
            return pipeline


def random_runs(
    rng: np.random.Generator, pipeline: Pipeline, profile: ConfigurationProfile, *, most_elements: int = _MOST_ELEMENTS
) -> ConfigurationProfile:
    """Return a profile with random runs of each operator for each item; see `with_random_runs`."""
    return _Runs(rng, pipeline, most_elements).of(profile)


def with_random_runs(
    rng: np.random.Generator, pipeline: Pipeline, profile: PipelineProfile, *, most_elements: int = _MOST_ELEMENTS
) -> PipelineProfile:
    """Return a profile with random runs of each operator for each item, equal for configurations with equal prefixes.

    Runs take about as long as those for the item in the given profile, and their outputs are about as large. Lists have
    up to `most_elements` elements, the more in all of an item's lists the longer its runs take.
    """
    runs = _Runs(rng, pipeline, most_elements)
    return replace(profile, configurations=tuple(runs.of(measured) for measured in profile.configurations))


class _Runs:
    """Random runs by prefix."""

    def __init__(self, rng: np.random.Generator, pipeline: Pipeline, most_elements: int) -> None:
        self._rng, self._most_elements = rng, most_elements
        self._nodes = [operator.flow for operator in pipeline.topological_order()]
        self._drawn: dict[Configuration, OperatorProfile] = {}

    def of(self, profile: ConfigurationProfile) -> ConfigurationProfile:
        """Return the profile of a configuration with its runs."""
        busy_s = [operator.service_s for operator in profile.operators.values()]
        size = sum(seconds / max(float(seconds.mean()), 1e-12) for seconds in busy_s)
        flows = [ItemFlow[int](self._nodes) for _ in profile.items]
        operators = {}
        for node in self._nodes:
            measured = profile.operators[node.name]
            if measured.prefix not in self._drawn:
                self._drawn[measured.prefix] = self._draw(node, measured, flows, size / np.max(size))
            operators[node.name] = drawn = self._drawn[measured.prefix]
            for flow, item in zip(flows, drawn.runs or (_SINGLE,) * len(flows), strict=True):
                for path, branches in zip(item.paths, item.branches, strict=True):
                    flow.add(node.name, path, [(branch_name(node, branch), 0) for branch in branches])
        return replace(profile, operators=operators)

    def _draw(
        self, node: FlowNode, measured: OperatorProfile, flows: Sequence[ItemFlow[int]], share: FloatArray
    ) -> OperatorProfile:
        rng = self._rng
        items = []
        for item, flow in enumerate(flows):
            paths = [path for path, _ in flow.due(node.name, 0)]
            counts = rng.binomial(self._most_elements, rng.uniform(0.0, share[item], len(paths)))
            branches = tuple(
                tuple(rng.integers(len(node.branches), size=count).tolist()) if node.branches else (NO_BRANCH,) * count
                for count in (counts.tolist() if node.emits_many else [1] * len(paths))
            )
            service_s = measured.service_s[item] * rng.uniform(0.5, 1.5, len(paths))
            sizes = tuple(
                tuple((measured.output_bytes[item] * rng.uniform(0.2, 1.0, len(its))).tolist()) for its in branches
            )
            items.append(ItemRuns(tuple(paths), tuple(service_s.tolist()), sizes, branches))
        return _with_runs(measured, items)


def _with_runs(profile: OperatorProfile, runs: Sequence[ItemRuns]) -> OperatorProfile:
    return replace(
        profile,
        service_s=np.array([item.total_s for item in runs]),
        output_bytes=np.array([item.total_bytes for item in runs]),
        runs=None if all(item.is_single for item in runs) else tuple(runs),
    )


def _random_operator(rng: np.random.Generator, spec: OperatorSpec, before: Sequence[OperatorSpec]) -> OperatorSpec:
    inputs = rng.choice([0, 1, 2, 3], p=[0.1, 0.5, 0.3, 0.1]) if before else 0
    entries = [_random_entry(rng, before) for _ in range(min(int(inputs), len(before)))]
    return spec.model_copy(
        update={
            "after": tuple(entry for number, entry in enumerate(entries) if entry not in entries[:number]),
            "emits": "many" if rng.random() < 0.4 else "one",
            "gather": bool(before) and rng.random() < 0.35,
            "branches": BRANCHES if rng.random() < 0.4 else (),
        }
    )


def _random_entry(rng: np.random.Generator, before: Sequence[OperatorSpec], alternatives: float = 0.3) -> Any:
    if rng.random() < alternatives:
        return {"any": tuple(_random_entry(rng, before, 0.0) for _ in range(2))}
    producer = before[int(rng.integers(len(before)))]
    return {producer.name: str(rng.choice(BRANCHES))} if producer.branches and rng.random() < 0.7 else producer.name
