"""Verdicts on configurations, for all SLO requirements of all queries, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from circinus.arrays import BoolArray
from circinus.profiling.race.race_state import RaceState
from circinus.profiling.race.slo_requirements import SloRequirement

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


def assign_verdicts(state: RaceState, names: Sequence[str]) -> tuple[ConfigurationVerdict, ...]:
    """Return the verdict with its reason for each of k configurations, by their names."""
    return tuple(_verdict(state, names, row) for row in range(len(names)))


def _verdict(state: RaceState, names: Sequence[str], row: int) -> ConfigurationVerdict:
    requirements = state.slos.requirements
    if not state.decisive_items[row]:
        return ConfigurationVerdict(Verdict.UNDECIDED, "it is unmeasured")
    if state.open[row].any():
        slos = _accuracies(requirements, state.open[row])
        return ConfigurationVerdict(Verdict.UNDECIDED, f"it may or may not meet {slos}")
    if state.needs_latency_items[row]:
        return ConfigurationVerdict(
            Verdict.UNDECIDED, f"its latency has to be measured on {state.latency_items[row]} items"
        )
    if requirements and state.fails[row].all():
        return ConfigurationVerdict(Verdict.INFEASIBLE, _missed(requirements, state.slow[row]))
    if state.certainly_met[row].any():
        slos = _accuracies(requirements, state.certainly_met[row])
        return ConfigurationVerdict(Verdict.FEASIBLE, f"it certainly meets {slos}")
    if state.dominated_on_accuracy[row]:
        reference = names[state.references[row]]
        return ConfigurationVerdict(
            Verdict.DOMINATED, f"{reference} is certainly as accurate at hardly more resource usage"
        )
    if not requirements:
        return ConfigurationVerdict(Verdict.FEASIBLE, "no query uses the pipeline yet")
    pruned = state.pruned[row] & ~state.fails[row]
    if pruned.any():
        met = pruned & state.meets[row]
        if (met == pruned).all():
            return ConfigurationVerdict(
                Verdict.UNLIKELY, f"it certainly meets {_accuracies(requirements, met)}, {_NO_CHEAPER}"
            )
        return ConfigurationVerdict(Verdict.UNLIKELY, _PRUNED)
    covering = dict.fromkeys(names[index] for index in state.covered_by[row][~state.fails[row]] if index >= 0)
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
