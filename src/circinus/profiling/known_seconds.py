"""How long measuring takes, from what is known alone: the same for whoever goes on from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import cache

import numpy as np

from circinus.profiling.profile import PipelineProfile
from circinus.spec import Configuration, Pipeline, prefix_configuration


def measurement_cost_model(pipeline: Pipeline, known: PipelineProfile) -> Callable[[Configuration, int], float]:
    """(configuration, items) -> seconds of processing until it is known on so many items.

    An operator's seconds are its mean under the same prefix, else with the same knobs, else with any. Other than
    `Pace`, by which budgets are kept, it knows nothing of what the prefix cache holds nor of the time that passes
    besides: these differ between runs, and what is measured is to follow from what is known.

    Args:
        pipeline: which pipeline.
        known: what was measured of it.
    """
    by_prefix: dict[tuple[str, Configuration], float] = {}
    for found in known.configurations:
        for name, operator in found.operators.items():
            by_prefix[name, operator.prefix] = float(operator.service_s.mean())
    groups: defaultdict[Hashable, list[float]] = defaultdict(list)
    for (name, its_prefix), mean_s in sorted(by_prefix.items()):
        groups[name, its_prefix[name]].append(mean_s)
        groups[name].append(mean_s)
    means = {key: float(np.mean(alike_s)) for key, alike_s in groups.items()}
    items_of = {found.configuration: len(found.items) for found in known.configurations}

    def operator_s(name: str, configuration: Configuration) -> float:
        own = by_prefix.get((name, prefix_configuration(pipeline, configuration, name)))
        return means.get((name, configuration[name]), means.get(name, 0.0)) if own is None else own

    @cache
    def item_s(configuration: Configuration) -> float:
        return sum(operator_s(operator.name, configuration) for operator in pipeline.operators)

    def seconds(configuration: Configuration, items: int) -> float:
        return max(items - items_of.get(configuration, 0), 0) * item_s(configuration)

    return seconds
