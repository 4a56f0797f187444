"""Which items traffic carries: those that planning has not seen, as far as there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.matching import Matching
    from circinus.operators import Item
    from circinus.serving import Mode
    from circinus.specification import Specification


def select_traffic_items(
    specification: Specification, matching: Matching, store: Path, count: int, mode: Mode, seed: int
) -> dict[str, Sequence[Item]]:
    """For each pipeline in use up to `count` held-out items; in replay, of those that are recorded.

    Args:
        specification: what was planned for.
        matching: the plans.
        store: the profile store.
        count: how many items at most.
        mode: of the engine.
        seed: of the order in which items were measured.
    """
    from circinus.profiling import load_dataset, load_recordings
    from circinus.serving import Mode
    from circinus.specification import prefix_configuration

    chosen: dict[str, Sequence[Item]] = {}
    for name in _pipelines(matching):
        pipeline = specification.pipelines[name]
        dataset = load_dataset(pipeline, specification.module_paths, seed=seed)
        sent = tuple(dataset.items[index] for index in dataset.traffic_items(count))
        if mode is Mode.REPLAY:
            plans = [a.chosen.plan for a in matching.assignments if a.chosen.plan.pipeline == name]
            prefixes = {
                prefix_configuration(pipeline, plan.configuration, operator.name)
                for plan in plans
                for operator in pipeline.operators
            }
            recorded = set(load_recordings(store, name, prefixes).items)
            sent = tuple(item for item in sent if item.key in recorded)
        chosen[name] = sent
    return chosen


def count_profiled_items(
    specification: Specification,
    matching: Matching,
    store: Path,
    items: Mapping[str, Sequence[Item]],
    seed: int,
) -> int:
    """How many of the items that traffic carries were measured for the profile of a configuration in use.

    Zero where the data set holds items out.
    """
    from circinus.profiling import load_dataset, load_profile

    seen = 0
    for name in _pipelines(matching):
        used = {a.chosen.plan.configuration for a in matching.assignments if a.chosen.plan.pipeline == name}
        profile = load_profile(specification, name, store, seed=seed)
        measured = {int(index) for c in profile.configurations if c.configuration in used for index in c.items}
        dataset = load_dataset(specification.pipelines[name], specification.module_paths, seed=seed)
        index_of = {item.key: index for index, item in enumerate(dataset.items)}
        seen += sum(index_of[item.key] in measured for item in items[name])
    return seen


def _pipelines(matching: Matching) -> list[str]:
    return sorted({assignment.chosen.plan.pipeline for assignment in matching.assignments})
