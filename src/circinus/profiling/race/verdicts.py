"""Verdicts on configurations, for all SLO requirements of all queries, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.slo_requirements import SloRequirement


@dataclass(eq=False)
class RaceArrays:
    """Mutable arrays of a race of k configurations for q SLO requirements."""

    latency_items: IntArray
    """(k,) sample size for the latency of each configuration."""
    failed: BoolArray
    """(k,) whether the configuration failed in this measurement."""
    exhausted: BoolArray
    """(k,) whether no further recording is available."""
    meets: BoolArray
    """(k, q) whether the configuration is certainly accurate enough."""
    fails: BoolArray
    """(k, q) whether the configuration is certainly not accurate enough."""
    slow: BoolArray
    """(k, q) whether the configuration is certainly too slow on any hardware."""
    pruned: BoolArray
    """(k, q) see `SamplerDecision.pruned`."""
    means: FloatArray
    """(k,) estimated mean scores."""
    variances: FloatArray
    """(k,) residual variances of single scores."""
    references: IntArray
    """(k,) see `ResourceUsage.references`."""
    reference_no_costlier: BoolArray
    """(k,) whether the reference may replace the configuration."""
    no_more_accurate: BoolArray
    """(k,) whether the reference is certainly as accurate."""

    @classmethod
    def blank(
        cls, configurations: int, requirements: int, score_range: tuple[float, float], latency_items: int
    ) -> RaceArrays:
        """Return the arrays without measurements."""
        per_configuration = np.zeros(configurations, dtype=bool)
        per_requirement = np.zeros((configurations, requirements), dtype=bool)
        low, high = score_range
        return cls(
            latency_items=np.full(configurations, latency_items, dtype=np.int64),
            failed=per_configuration,
            exhausted=per_configuration.copy(),
            meets=per_requirement,
            fails=per_requirement.copy(),
            slow=per_requirement.copy(),
            pruned=per_requirement.copy(),
            means=np.full(configurations, (low + high) / 2),
            variances=np.full(configurations, (high - low) ** 2 / 4),
            references=np.full(configurations, -1, dtype=np.int64),
            reference_no_costlier=per_configuration.copy(),
            no_more_accurate=per_configuration.copy(),
        )

    def followed_by(self, added: RaceArrays) -> RaceArrays:
        """Return the concatenation with other configurations."""
        joined: dict[str, Any] = {
            field.name: np.concatenate([getattr(self, field.name), getattr(added, field.name)])
            for field in fields(self)
        }
        return RaceArrays(**joined)


_PRUNED = "it most likely misses the SLOs, or makes no plan much cheaper than feasible configurations do"
_NO_CHEAPER = "but makes no plan much cheaper than other feasible configurations do"


class Verdict(StrEnum):
    """Verdict on a configuration."""

    FEASIBLE = "feasible"
    """Certainly accurate enough for some SLO requirement, not certainly too slow, and possibly the best of its kind."""
    INFEASIBLE = "infeasible"
    """Certainly misses every SLO requirement."""
    DOMINATED = "dominated"
    """Every requirement it might meet is certainly met by another configuration with hardly more usage or hardly
    costlier plans."""
    UNLIKELY = "unlikely"
    """Not expected to make any plan much cheaper, whether or not it meets the SLOs."""
    UNDECIDED = "undecided"
    """More items may decide."""


@dataclass(frozen=True)
class ConfigurationVerdict:
    """Verdict with its reason."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, eq=False)
class RaceSnapshot:
    """Certain statements about k configurations and q SLO requirements."""

    meets: BoolArray
    """(k, q) certainly accurate enough, and not certainly too slow."""
    fails: BoolArray
    """(k, q) certainly missed."""
    slow: BoolArray
    """(k, q) certainly missed because no plan is fast enough, regardless of accuracy."""
    items: IntArray
    """(k,) number of measured items."""
    latency_items: IntArray
    """(k,) sample size for the latency, at most all items."""
    all_items: int
    """Number of profiling items; a configuration measured on all of them is decided."""
    dominated_on_accuracy: BoolArray
    """(k,) whether the reference is certainly as accurate and may replace the configuration."""
    references: IntArray
    """(k,) see `ResourceUsage.references`."""
    pruned: BoolArray
    """(k, q) see `SamplerDecision.pruned`."""


@dataclass(frozen=True, eq=False)
class OpenQuestions:
    """Open questions that follow from a snapshot."""

    open: BoolArray
    """(k, q) undecided, and a decision would matter."""
    certainly_met: BoolArray
    """(k, q) certainly met, and no other configuration may replace it at lower usage or is certainly as accurate."""
    needs_latency_items: BoolArray
    """(k,) feasible and not dominated, but with too few items for its latency."""
    covered_by: IntArray
    """(k, q) a configuration that certainly meets the requirement and may replace this one; -1 for none."""

    @property
    def settled(self) -> BoolArray:
        """(k,) whether more items of a configuration would change no decision."""
        return ~(self.open.any(axis=1) | self.needs_latency_items)


def open_questions(snapshot: RaceSnapshot, usage: ResourceUsage) -> OpenQuestions:
    """Return the open questions.

    A configuration that may meet a requirement need not be measured if another certainly meets it and may replace it,
    or if its reference may replace it and is certainly as accurate. A configuration that certainly meets a requirement
    yields to its reference only if the latter is open on it or certainly meets it too. Otherwise neither would remain,
    as the reference is not measured further because this one may replace it.

    Args:
        snapshot: snapshot of k configurations; one without an item is open everywhere.
        usage: resource usage of these configurations.
    """
    if not snapshot.meets.shape[1]:
        return _without_requirements(snapshot)
    unmeasured = snapshot.items == 0
    undecided = ~(snapshot.meets | snapshot.fails) & (snapshot.items < snapshot.all_items)[:, None]
    undecided &= ~snapshot.pruned
    covered = _covered(snapshot, usage, cheaper=False)
    dominated_on_accuracy = snapshot.dominated_on_accuracy & (snapshot.references >= 0)
    # A reference that is slightly too slow serves no query, where this configuration may.
    left_to_reference = dominated_on_accuracy[:, None] & ~snapshot.slow[snapshot.references]
    open_ = undecided & (covered < 0) & ~left_to_reference | unmeasured[:, None]
    last = _undominated_references(snapshot, dominated_on_accuracy)
    yields = dominated_on_accuracy[:, None] & (snapshot.meets[last] | open_[last])
    met = snapshot.meets & (_covered(snapshot, usage, cheaper=True) < 0) & ~yields
    return OpenQuestions(open_, met, met.any(axis=1) & (snapshot.items < snapshot.latency_items), covered)


def _without_requirements(snapshot: RaceSnapshot) -> OpenQuestions:
    """Return the open questions without queries: everything not dominated by its reference needs its latency items."""
    none = np.zeros((len(snapshot.items), 0), dtype=bool)
    dominated_on_accuracy = snapshot.dominated_on_accuracy & (snapshot.references >= 0)
    short = ~dominated_on_accuracy & (snapshot.items < snapshot.latency_items)
    return OpenQuestions(none, none, short, none.astype(np.int64))


def _undominated_references(snapshot: RaceSnapshot, dominated_on_accuracy: BoolArray) -> IntArray:
    """Return (k,) the end of each chain of references that dominate, which is mostly the configuration itself."""
    last = np.where(dominated_on_accuracy, snapshot.references, np.arange(len(dominated_on_accuracy)))
    while dominated_on_accuracy[last].any():
        last = last[last]
    return last


def _covered(snapshot: RaceSnapshot, usage: ResourceUsage, *, cheaper: bool) -> IntArray:
    """Return (k, q) the configuration with the fewest CPU seconds that certainly meets a requirement in its place.

    Args:
        snapshot: snapshot of the configurations.
        usage: resource usage of the configurations.
        cheaper: whether it must use fewer CPU seconds, so that one of two mutual replacements remains.
    """
    count, requirements = snapshot.meets.shape
    covered_by = np.full((count, requirements), -1, dtype=np.int64)
    indexes = np.arange(count)
    feasible = np.flatnonzero(snapshot.meets.any(axis=1))
    feasible = feasible[np.argsort(usage.total_cpu_s[feasible], kind="stable")]
    for index in feasible[::-1]:  # the cheapest last, so that it overwrites the others
        replaceable = usage.replaceable_by(int(index)).copy()
        replaceable[index] = False
        if cheaper:
            replaceable &= usage.cheaper(index[None], indexes)[0]
        covered_by[np.ix_(np.flatnonzero(replaceable), np.flatnonzero(snapshot.meets[index]))] = index
    return covered_by


def assign_verdicts(
    snapshot: RaceSnapshot, decisions: OpenQuestions, requirements: Sequence[SloRequirement], names: Sequence[str]
) -> tuple[ConfigurationVerdict, ...]:
    """Return the verdict with its reason for each configuration.

    Args:
        snapshot: certain statements.
        decisions: open questions of the snapshot.
        requirements: (q,) SLO requirements.
        names: (k,) names of the configurations.
    """
    return tuple(_verdict(snapshot, decisions, requirements, names, row) for row in range(len(names)))


def _verdict(
    snapshot: RaceSnapshot,
    decisions: OpenQuestions,
    requirements: Sequence[SloRequirement],
    names: Sequence[str],
    row: int,
) -> ConfigurationVerdict:
    if not snapshot.items[row]:
        return ConfigurationVerdict(Verdict.UNDECIDED, "it is unmeasured")
    if decisions.open[row].any():
        slos = _accuracies(requirements, decisions.open[row])
        return ConfigurationVerdict(Verdict.UNDECIDED, f"it may or may not meet {slos}")
    if decisions.needs_latency_items[row]:
        return ConfigurationVerdict(
            Verdict.UNDECIDED, f"its latency has to be measured on {snapshot.latency_items[row]} items"
        )
    if snapshot.fails[row].all() and len(requirements):
        return ConfigurationVerdict(Verdict.INFEASIBLE, _missed(requirements, snapshot.slow[row]))
    if decisions.certainly_met[row].any():
        slos = _accuracies(requirements, decisions.certainly_met[row])
        return ConfigurationVerdict(Verdict.FEASIBLE, f"it certainly meets {slos}")
    if snapshot.dominated_on_accuracy[row] and snapshot.references[row] >= 0:
        reference = names[snapshot.references[row]]
        return ConfigurationVerdict(
            Verdict.DOMINATED, f"{reference} is certainly as accurate at hardly more resource usage"
        )
    if not requirements:
        return ConfigurationVerdict(Verdict.FEASIBLE, "no query uses the pipeline yet")
    pruned = snapshot.pruned[row] & ~snapshot.fails[row]
    if pruned.any():
        met = pruned & snapshot.meets[row]
        if (met == pruned).all():
            return ConfigurationVerdict(
                Verdict.UNLIKELY, f"it certainly meets {_accuracies(requirements, met)}, {_NO_CHEAPER}"
            )
        return ConfigurationVerdict(Verdict.UNLIKELY, _PRUNED)
    covering = dict.fromkeys(names[index] for index in decisions.covered_by[row][~snapshot.fails[row]] if index >= 0)
    if not covering:
        return ConfigurationVerdict(Verdict.UNDECIDED, "no further measurements are available")
    return ConfigurationVerdict(
        Verdict.DOMINATED, f"its SLOs are certainly met by {' and '.join(covering)} at hardly more resource usage"
    )


def _accuracies(requirements: Sequence[SloRequirement], selected: BoolArray) -> str:
    slos = [
        requirement.accuracy for requirement, is_selected in zip(requirements, selected, strict=True) if is_selected
    ]
    return ", ".join(dict.fromkeys("any accuracy" if slo is None else f"accuracy {slo}" for slo in slos))


def _missed(requirements: Sequence[SloRequirement], slow: BoolArray) -> str:
    latency_limits = dict.fromkeys(str(o.latency) for o, is_slow in zip(requirements, slow, strict=True) if is_slow)
    parts = [f"is certainly too slow for latency {', '.join(latency_limits)}"] if latency_limits else []
    if not slow.all():
        parts.append(f"certainly misses {_accuracies(requirements, ~slow)}")
    return f"it {' and '.join(parts)}"
