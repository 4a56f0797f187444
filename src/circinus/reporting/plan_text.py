"""Plans as text: configuration, placement and replicas, and what differs between plans or the parts of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from circinus.estimation import Estimate, PlanCandidate
from circinus.specification import Allocation, Deployment, KnobValues, QueryPlan
from circinus.specification.formatting import format_share

_Aspects = Mapping[str, tuple[Any, str]]
"""Aspect of a deployment -> its value and text."""
_ALLOCATION = ("cpus", "batch size", "utilization target")


def plan_text(plan: QueryPlan, estimate: Estimate) -> str:
    """Return the configuration, placement and replica sizes of a plan in topological order.

    `phone: denoise strength=2, voice_activity → office: speech_to_text model=tiny (2 CPUs, batch 4)`: consecutive
    operators in a pool are grouped, equal replicas are written once, and those of 1 CPU and batch size 1 not at all. Of
    a split plan, the largest share comes first, and what the others change of it: `70% phone: denoise + 30% ...`.
    """
    operators = [stage.operator for stage in estimate.stages]
    first, *others = plan.parts
    text = _unsplit_text(first.plan, estimate)
    if not others:
        return text
    changes = (f"{format_share(part.share)} {_changes(part.plan, first.plan, operators)}" for part in others)
    return " + ".join([f"{format_share(first.share)} {text}", *changes])


def _unsplit_text(plan: QueryPlan, estimate: Estimate) -> str:
    replicas = {stage.operator: replica_text(plan.allocation_of(stage.operator)) for stage in estimate.stages}
    shared = replicas.popitem()[1] if len(replicas) > 1 and len(set(replicas.values())) == 1 else "1 CPU"

    def text(operator: str) -> str:
        replica = replicas.get(operator, shared)
        return knobs_text(plan, operator) + (f" ({replica})" if replica != shared else "")

    groups = groupby(estimate.stages, key=lambda stage: stage.pool)
    placed = " → ".join(f"{pool}: {', '.join(text(stage.operator) for stage in stages)}" for pool, stages in groups)
    return placed if shared == "1 CPU" else f"{placed} (each {shared})"


def knobs_text(plan: QueryPlan, operator: str) -> str:
    """Return an operator with its knob values by name: `speech_to_text beam=5 model=tiny`."""
    return " ".join([operator, *(f"{name}={value}" for name, value in plan.configuration[operator].values)])


def replica_text(allocation: Allocation) -> str:
    """Return the size of a replica: `0.25 CPUs, batch 8`; a batch size of 1 is omitted."""
    batch = f", batch {allocation.batch_size}" if allocation.batch_size > 1 else ""
    return f"{format_cpus(allocation.cpus)}{batch}"


def placement_text(estimate: Estimate) -> str:
    """Return the pools in topological order of the operators, with the numbers of operators: `phone → edge: 2+3`."""
    pools = [(pool, len(list(stages))) for pool, stages in groupby(estimate.stages, key=lambda stage: stage.pool)]
    counts = f": {'+'.join(str(count) for _, count in pools)}" if len(pools) > 1 else ""
    return f"{' → '.join(pool for pool, _ in pools)}{counts}"


def placements_text(candidate: PlanCandidate) -> str:
    """Return the placement of a plan; of a split one, those of its parts: `70% phone + 30% phone → edge: 2+3`."""
    texts = [placement_text(part.estimate) for part in candidate.unsplit]
    if len(texts) == 1:
        return texts[0]
    return " + ".join(f"{format_share(p.share)} {text}" for p, text in zip(candidate.plan.parts, texts, strict=True))


def part_texts(plan: QueryPlan, operators: Sequence[str]) -> list[str]:
    """Return, for each part of a split plan, the knobs and pools in which the parts differ, else the allocations.

    `lookup size=100, on phone` and `lookup size=400, on edge`.
    """
    aspects = [{name: _aspects(part.plan.deployment_of(name)) for name in operators} for part in plan.parts]
    varying = {
        (name, aspect)
        for name in operators
        for aspect in {aspect for of_part in aspects for aspect in of_part[name]}
        if len({of_part[name].get(aspect) for of_part in aspects}) > 1
    }
    shown = {(name, aspect) for name, aspect in varying if aspect not in _ALLOCATION} or varying
    return [
        _grouped(
            (name, [text for aspect, (_, text) in of_part[name].items() if (name, aspect) in shown])
            for name in operators
            if any(operator == name for operator, _ in shown)
        )
        for of_part in aspects
    ]


def split_text(plan: QueryPlan, operators: Sequence[str], *, of_first: bool = True) -> str:
    """Return the shares of a split plan with what differs: `70% lookup size=100 + 30% lookup size=400, on edge`.

    Args:
        plan: the split plan.
        operators: in topological order.
        of_first: whether to describe the largest share, too.
    """
    first, *others = zip(plan.parts, part_texts(plan, operators), strict=True)
    shares = [f"{format_share(first[0].share)} {first[1]}" if of_first else format_share(first[0].share)]
    return " + ".join([*shares, *(f"{format_share(part.share)} {text}" for part, text in others)])


def plan_differences(plans: Sequence[QueryPlan], base: QueryPlan, operators: Sequence[str]) -> list[str]:
    """Return what each plan changes of another one: `lookup size=100, batch 8, target 40%; rank, join on office`.

    Plans are compared with the largest share of a split plan; `undivided` if only the base is split.
    """
    return [_differences(plan, base, operators) for plan in plans]


def _differences(plan: QueryPlan, base: QueryPlan, operators: Sequence[str]) -> str:
    if plan == base:
        return ""
    first = base.parts[0].plan
    changes = [(part.share, _changes(part.plan, first, operators)) for part in plan.parts]
    if plan.is_split:
        return " + ".join(f"{format_share(share)} {text or 'unchanged'}" for share, text in changes)
    return "; ".join(filter(None, ["undivided" if base.is_split else "", changes[0][1]]))


def _changes(plan: QueryPlan, base: QueryPlan, operators: Sequence[str]) -> str:
    """Return what a plan changes of another one, neither of which is split."""
    changed = []
    for operator in operators:
        old, new = _aspects(base.deployment_of(operator)), _aspects(plan.deployment_of(operator))
        if old != new:
            changed.append(
                (operator, [text for aspect, (value, text) in new.items() if old.get(aspect) != (value, text)])
            )
    return _grouped(changed)


def _grouped(changes: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return operators with their changes; those that change alike are named together."""
    operators: dict[str, list[str]] = {}
    for operator, texts in changes:
        operators.setdefault(", ".join(texts) or "without knobs", []).append(operator)
    return "; ".join(f"{', '.join(names)} {text}" for text, names in operators.items())


def _aspects(deployment: Deployment) -> _Aspects:
    allocation = deployment.allocation
    amounts = allocation.cpus, allocation.batch_size, allocation.utilization_target
    texts = format_cpus(amounts[0]), f"batch {amounts[1]}", f"target {amounts[2]:.0%}"
    return {
        **{f"knob {name}": (value, f"{name}={value}") for name, value in deployment.knobs.values},
        "pool": (deployment.pool, f"on {deployment.pool}"),
        **{name: (value, text) for name, value, text in zip(_ALLOCATION, amounts, texts, strict=True)},
    }


def operator_text(operator: str, knobs: KnobValues) -> str:
    """Return an operator with its knob values, if it has knobs: `denoise(strength=2)`."""
    return f"{operator}({knobs})" if knobs.values else operator


def format_cpus(cpus: float) -> str:
    """Return `1 CPU` for 1, and `0.5 CPUs` for 0.5."""
    return "1 CPU" if cpus == 1 else f"{cpus:g} CPUs"
