"""What people are told of where scores come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from circinus.profiling.addresses import MeasurementKeys
from circinus.profiling.variants import PipelineVersion


def source_name(variant: PipelineVersion, addresses: MeasurementKeys, *, items: int, current: int) -> str:
    """Such as "the same pipeline on 120 other items" or "pipeline meeting (operator denoise changed)".

    Args:
        variant: whose scores.
        addresses: of the pipeline as it is now.
        items: on how many.
        current: how many of them the data set of the pipeline has too. Of another pipeline's nothing is said: that its
            items are others goes without saying.
    """
    pipeline, changes = addresses.pipeline, _changes(variant, addresses)
    if variant.pipeline != pipeline.name:
        found = f"pipeline {variant.pipeline}"
    elif changes:
        found = f"pipeline {variant.pipeline} ({', '.join(changes)})"
    else:
        found = "the same pipeline"
    if variant.origin != addresses.origin:
        found += " as traced" if variant.origin else " as run"
    if current == items or variant.pipeline != pipeline.name:
        return found
    noun = "item" if items == 1 else "items"
    return (
        f"{found} on {items} {noun}, {items - current} of them other" if current else f"{found} on {items} other {noun}"
    )


def numbered_names(names: Sequence[str]) -> tuple[str, ...]:
    """The same with numbers behind those that occurred before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def _changes(variant: PipelineVersion, addresses: MeasurementKeys) -> list[str]:
    """What of the variant's code differs from the pipeline's, in the pipeline's order."""
    pipeline, code = addresses.pipeline, addresses.code
    found = []
    for operator in pipeline.operators:
        if operator.name not in variant.operators:
            found.append(f"without operator {operator.name}")
        elif variant.operators[operator.name] != (operator.uses, code.operators[operator.uses]):
            found.append(f"operator {operator.name} changed")
    own = {operator.name for operator in pipeline.operators}
    found += [f"with operator {name}" for name in sorted(variant.operators) if name not in own]
    if variant.metric_version != code.metric:
        found.append("metric changed")
    return found
