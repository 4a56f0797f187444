"""Items that traffic carries: held-out items, as far as the data set has any, and their recordings for replays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.api.profile_summary import disturbance_warning
from circinus.api.progress import ProgressFactory, no_progress
from circinus.errors import OperatorError, ProfileError
from circinus.profiling import disturbed_recordings, load_dataset, load_profile, load_recordings, record_for_replay
from circinus.serving import Mode
from circinus.specification import prefix_configuration

if TYPE_CHECKING:
    from circinus.matching import Matching
    from circinus.operators import Item
    from circinus.specification import Configuration, Specification

_log = logging.getLogger(__name__)


def select_traffic_items(
    specification: Specification, matching: Matching, store: Path, count: int | None, mode: Mode, seed: int
) -> dict[str, Sequence[Item]]:
    """Return pipeline -> held-out items to send; in a replay only those that are recorded.

    Args:
        specification: specification that was planned for.
        matching: plans in use.
        store: profile store.
        count: maximum number of items for each pipeline; None: all.
        mode: mode of the engine.
        seed: seed of the order in which items were measured.
    """
    items: dict[str, Sequence[Item]] = {}
    for name in _pipelines(matching):
        pipeline = specification.pipelines[name]
        dataset = load_dataset(pipeline, specification.module_paths, seed=seed)
        sent = tuple(dataset.items[index] for index in dataset.traffic_items(count))
        if mode is Mode.REPLAY:
            prefixes = {
                prefix_configuration(pipeline, configuration, operator.name)
                for configuration in _used(matching, name)
                for operator in pipeline.operators
            }
            recorded = set(load_recordings(store, name, prefixes).items)
            sent = tuple(item for item in sent if item.key in recorded)
        items[name] = sent
    return items


def count_profiled_items(
    specification: Specification,
    matching: Matching,
    store: Path,
    items: Mapping[str, Sequence[Item]],
    seed: int,
) -> int:
    """Return the number of sent items that the profile of a configuration in use was measured on.

    Zero where the data set holds items out. Elsewhere all items count if the profile cannot be read: any of them may
    have been measured.
    """
    count = 0
    for name in _pipelines(matching):
        dataset = load_dataset(specification.pipelines[name], specification.module_paths, seed=seed)
        if dataset.held_out_items:
            continue
        try:
            profile = load_profile(specification, name, store, seed=seed)
        except (OperatorError, ProfileError):
            count += len(items[name])
            continue
        used = _used(matching, name)
        measured = {int(index) for c in profile.configurations if c.configuration in used for index in c.items}
        index_of = {item.key: index for index, item in enumerate(dataset.items)}
        count += sum(index_of[item.key] in measured for item in items[name])
    return count


def recording_warnings(
    specification: Specification,
    store: Path,
    configurations: Iterable[tuple[str, Configuration]],
    items: int | None,
    verb: str = "apply",
) -> tuple[str, ...]:
    """Return a warning for each pipeline whose recordings for a replay other programs disturbed.

    Args:
        specification: specification that has the pipelines.
        store: profile store.
        configurations: (pipeline, configuration) pairs, which were recorded.
        items: maximum number of items that the replay sends for each pipeline; None: all.
        verb: verb that records them again.
    """
    warnings = []
    for name, used in sorted(_by_pipeline(configurations).items()):
        disturbed = disturbed_recordings(store, specification.pipelines[name], used, items)
        reason = disturbance_warning(disturbed, "recorded", f"circinus {verb} --mode replay")
        if reason is not None:
            warnings.append(f"pipeline {name}: {reason}")
    return tuple(warnings)


def record_configurations(
    specification: Specification,
    store: Path,
    configurations: Iterable[tuple[str, Configuration]],
    items: int | None,
    *,
    seed: int,
    verb: str = "apply",
    progress: ProgressFactory = no_progress,
    repeats_disturbed: bool = False,
) -> tuple[str, ...]:
    """Record configurations on held-out items, so that a replay can return their outputs; return `recording_warnings`.

    Args:
        specification: specification that has the pipelines.
        store: profile store.
        configurations: (pipeline, configuration) pairs.
        items: maximum number of items to record for each configuration; None: all.
        seed: seed of the order of items.
        verb: verb that records them again.
        progress: observer for each pipeline.
        repeats_disturbed: whether stored runs that other programs disturbed are repeated if the machine is quiet.
    """
    pairs = tuple(configurations)
    for name, chosen in _by_pipeline(pairs).items():
        _log.info("record %d configurations of pipeline %s on %s held-out items", len(chosen), name, items or "all")
        with progress(name) as observer:
            record_for_replay(
                specification,
                name,
                store,
                configurations=chosen,
                items_count=items,
                seed=seed,
                observer=observer,
                repeats_disturbed=repeats_disturbed,
            )
    return recording_warnings(specification, store, pairs, items, verb)


def _by_pipeline(configurations: Iterable[tuple[str, Configuration]]) -> dict[str, list[Configuration]]:
    pairs = list(dict.fromkeys(configurations))
    return {name: [chosen for pipeline, chosen in pairs if pipeline == name] for name, _ in pairs}


def _used(matching: Matching, pipeline: str) -> set[Configuration]:
    """Return the configurations of a pipeline that the parts of all plans have."""
    plans = [assignment.chosen.plan for assignment in matching.assignments]
    return {part.plan.configuration for plan in plans if plan.pipeline == pipeline for part in plan.parts}


def _pipelines(matching: Matching) -> list[str]:
    return sorted({assignment.chosen.plan.pipeline for assignment in matching.assignments})
