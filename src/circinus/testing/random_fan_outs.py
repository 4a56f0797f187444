"""Random pipelines with fan-outs, lists and branches, and random runs of their operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from circinus.operators.protocol import NO_BRANCH
from circinus.profiling.item_runs import ItemRuns, branch_name
from circinus.profiling.profile import ConfigurationProfile, OperatorProfile
from circinus.specification import OperatorSpec, Pipeline
from circinus.specification.dataflow import ItemFlow

BRANCHES = ("left", "right")
_MOST_ELEMENTS = 4


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


def random_runs(rng: np.random.Generator, pipeline: Pipeline, profile: ConfigurationProfile) -> ConfigurationProfile:
    """Return a profile with random runs of each operator for each item.

    Runs take about as long as those for the item in the given profile, and their outputs are about as large.
    """
    nodes = [operator.flow for operator in pipeline.topological_order()]
    by_item: list[dict[str, ItemRuns]] = []
    for item in range(len(profile.items)):
        flow, runs = ItemFlow[int](nodes), dict[str, ItemRuns]()
        for node in nodes:
            measured = profile.operators[node.name]
            paths = [path for path, _ in flow.due(node.name, 0)]
            counts = rng.integers(0, _MOST_ELEMENTS, len(paths)) if node.emits_many else np.ones(len(paths), np.int64)
            branches = [
                tuple(rng.integers(len(node.branches), size=count).tolist())
                if node.branches
                else (NO_BRANCH,) * int(count)
                for count in counts
            ]
            runs[node.name] = ItemRuns(
                tuple(paths),
                tuple((measured.service_s[item] * rng.uniform(0.5, 1.5, len(paths))).tolist()),
                tuple(
                    tuple((measured.output_bytes[item] * rng.uniform(0.2, 1.0, len(its))).tolist()) for its in branches
                ),
                tuple(branches),
            )
            for path, its in zip(paths, branches, strict=True):
                flow.add(node.name, path, [(branch_name(node, branch), 0) for branch in its])
        by_item.append(runs)
    operators = {
        name: _with_runs(measured, [item[name] for item in by_item]) for name, measured in profile.operators.items()
    }
    return replace(profile, operators=operators)


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
