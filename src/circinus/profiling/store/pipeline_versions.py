"""Scored configurations in the store, of this pipeline and of similar ones.

A *variant* is a version of a pipeline at the time it was scored: its name, its metric, and its operators with the
versions of their code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circinus.profiling.race.configuration_order import MAX_ENUMERATED, in_prefix_order, prefix_order
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Configuration, KnobValues, configuration_count, has_knob_values


@dataclass(frozen=True)
class PipelineVersion:
    """Pipeline as it was when it was scored."""

    number: int
    """Id of the variant in the store."""
    pipeline: str
    metric: str
    """`uses` reference."""
    metric_version: str
    direction: str
    """`maximize` or `minimize`."""
    score_range: tuple[float, float]
    operators: Mapping[str, tuple[str, str]]
    """Name -> `uses` reference and version of the code."""
    origin: str
    """Origin if it was scored from a trace; empty if the operators were run."""


def write_variant(store: ProfileStore, keys: MeasurementKeys) -> int:
    """Return the id of the variant of `keys`, inserting it if needed. Call it inside a transaction."""
    pipeline, code = keys.pipeline, keys.code
    description = json.dumps(
        {
            "pipeline": pipeline.name,
            "metric": pipeline.metric.uses,
            "metric_version": code.metric,
            "direction": pipeline.metric.direction,
            "score_range": list(pipeline.metric.range),
            "operators": {o.name: [o.uses, code.operators[o.uses]] for o in pipeline.operators},
            "origin": keys.origin,
        },
        sort_keys=True,
    )
    store.write("INSERT OR IGNORE INTO variant (description) VALUES (?)", [(description,)])
    return int(store.rows("SELECT id FROM variant WHERE description = ?", description)[0][0])


def read_variants(store: ProfileStore) -> tuple[PipelineVersion, ...]:
    """Return all variants, in the order of their first measurement."""
    return tuple(
        _variant(number, json.loads(description))
        for number, description in store.rows("SELECT id, description FROM variant ORDER BY id")
    )


def read_scored(store: ProfileStore, variant: PipelineVersion) -> Mapping[int, Configuration]:
    """Return the configuration of each id of scores, in the order of the ids."""
    rows = store.rows("SELECT subject, configuration FROM scored WHERE variant = ? ORDER BY subject", variant.number)
    return {subject: _configuration(json.loads(content)) for subject, content in rows}


def scored_configurations(store: ProfileStore, keys: MeasurementKeys) -> tuple[Configuration, ...]:
    """Return the configurations of the current pipeline that have scores or failed, in the order of `prefix_order`."""
    if store.rows("SELECT since FROM undescribed") and configuration_count(keys.pipeline) <= MAX_ENUMERATED:
        enumerated = prefix_order(keys.pipeline)
        ids = store.existing_ids([keys.score(configuration) for configuration in enumerated])
        return tuple(configuration for configuration in enumerated if keys.score(configuration) in ids)
    operators = keys.pipeline.operators
    names = {operator.name for operator in operators}
    scored: dict[int, Configuration] = {}
    for variant in read_variants(store):
        if set(variant.operators) == names and variant.origin == keys.origin:
            scored |= read_scored(store, variant)
    own = {subject: c for subject, c in scored.items() if all(has_knob_values(o, c[o.name]) for o in operators)}
    hashes = {subject: keys.score(configuration) for subject, configuration in own.items()}
    ids = store.existing_ids(list(hashes.values()))
    return in_prefix_order(keys.pipeline, (own[s] for s, score in hashes.items() if ids.get(score) == s))


def _configuration(content: Mapping[str, Mapping[str, Any]]) -> Configuration:
    return Configuration.of({name: KnobValues.of(values) for name, values in content.items()})


def _variant(number: int, content: Mapping[str, Any]) -> PipelineVersion:
    low, high = content["score_range"]
    return PipelineVersion(
        number=number,
        pipeline=content["pipeline"],
        metric=content["metric"],
        metric_version=content["metric_version"],
        direction=content["direction"],
        score_range=(low, high),
        operators={name: (uses, version) for name, (uses, version) in content["operators"].items()},
        origin=content["origin"],
    )
