"""What is decided of each configuration, for all objectives of all queries at once, and why."""

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
    """Of k configurations and q objectives."""

    latency_items: IntArray
    """(k,) on how many items each is to be known for its latency."""
    failed: BoolArray
    """(k,) in this measurement."""
    ended: BoolArray
    """(k,) there is nothing more to be had of it."""
    meets: BoolArray
    """(k, q) surely accurate enough."""
    fails: BoolArray
    """(k, q) surely not."""
    slow: BoolArray
    """(k, q) surely too slow on any hardware."""
    pointless: BoolArray
    """(k, q) see `Assessment`."""
    means: FloatArray
    """(k,) estimates."""
    variances: FloatArray
    """(k,) of single scores about what is predicted of them."""
    partners: IntArray
    """(k,) see `Footprints.partners`."""
    stands_in: BoolArray
    """(k,) whether its partner may stand in for it."""
    no_more_accurate: BoolArray
    """(k,) whether its partner is surely as accurate."""

    @classmethod
    def blank(
        cls, configurations: int, objectives: int, score_range: tuple[float, float], latency_items: int
    ) -> RaceArrays:
        """Nothing is known."""
        of_each = np.zeros(configurations, dtype=bool)
        of_both = np.zeros((configurations, objectives), dtype=bool)
        low, high = score_range
        return cls(
            latency_items=np.full(configurations, latency_items, dtype=np.int64),
            failed=of_each,
            ended=of_each.copy(),
            meets=of_both,
            fails=of_both.copy(),
            slow=of_both.copy(),
            pointless=of_both.copy(),
            means=np.full(configurations, (low + high) / 2),
            variances=np.full(configurations, (high - low) ** 2 / 4),
            partners=np.full(configurations, -1, dtype=np.int64),
            stands_in=of_each.copy(),
            no_more_accurate=of_each.copy(),
        )

    def followed_by(self, others: RaceArrays) -> RaceArrays:
        """These configurations and then the others."""
        joined: dict[str, Any] = {
            field.name: np.concatenate([getattr(self, field.name), getattr(others, field.name)])
            for field in fields(self)
        }
        return RaceArrays(**joined)


_POINTLESS = "it most likely will not do, has no plan, or plans of others that surely will do are hardly dearer"
_NO_CHEAPER = "and has no plan, or plans of others that surely will do are hardly dearer"


class Verdict(StrEnum):
    """Where a configuration stands."""

    FEASIBLE = "feasible"
    """It is surely accurate enough for some objective, not surely too slow, and may be the best of those."""
    INFEASIBLE = "infeasible"
    """It surely misses every objective."""
    DOMINATED = "dominated"
    """Wherever it might serve, another surely serves and takes hardly more of anything, or makes plans that are hardly
    dearer."""
    UNLIKELY = "unlikely"
    """Not expected to make any plan much cheaper, whether or not it keeps the objectives."""
    UNDECIDED = "undecided"
    """More items may tell."""


@dataclass(frozen=True)
class ConfigurationVerdict:
    """A verdict with its reason."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, eq=False)
class RaceSnapshot:
    """What is known of k configurations and q objectives."""

    meets: BoolArray
    """(k, q) surely accurate enough, and not surely too slow."""
    fails: BoolArray
    """(k, q) surely missed."""
    slow: BoolArray
    """(k, q) surely missed because no plan is fast enough, whatever the accuracy."""
    items: IntArray
    """(k,) on how many items each is known."""
    latency_items: IntArray
    """(k,) on how many items each is to be known for its latency, at most all."""
    all_items: int
    """How many there are: a configuration known on all of them is decided."""
    outdone: BoolArray
    """(k,) whether its partner is surely as accurate."""
    partners: IntArray
    """(k,) see `Footprints.partners`."""
    pointless: BoolArray
    """(k, q) whether it keeps an objective makes no plan much cheaper; see `Assessment`."""


@dataclass(frozen=True, eq=False)
class OpenQuestions:
    """What follows from a standing."""

    open: BoolArray
    """(k, q) undecided, and an answer would matter."""
    surely_met: BoolArray
    """(k, q) surely kept, and there is nothing that stands in and takes less or is surely as accurate."""
    needs_latency_items: BoolArray
    """(k,) feasible and not dominated, but its latency is not known well enough."""
    covered_by: IntArray
    """(k, q) a configuration that surely keeps the objective and stands in; -1: none."""

    @property
    def settled(self) -> BoolArray:
        """(k,) whether more items of a configuration would change no decision."""
        return ~(self.open.any(axis=1) | self.needs_latency_items)


def open_questions(standing: RaceSnapshot, footprints: ResourceUsage) -> OpenQuestions:
    """Say which questions are open.

    A configuration that may keep an objective need not be asked where another surely keeps it and may stand in for
    it, nor anywhere if its partner stands in for it and is surely as accurate. One that surely keeps an objective gives
    way to such a partner only where that is asked on or surely keeps it too: else neither would be left where the
    partner is asked no more because this one stands in for it.

    Args:
        standing: of k configurations; one without an item is open everywhere.
        footprints: of the same configurations.
    """
    if not standing.meets.shape[1]:
        return _without_objectives(standing)
    unknown = standing.items == 0
    undecided = ~(standing.meets | standing.fails) & (standing.items < standing.all_items)[:, None]
    undecided &= ~standing.pointless
    covered = _covered(standing, footprints, cheaper=False)
    outdone = standing.outdone & (standing.partners >= 0)
    # A partner that is too slow by a little serves nobody where this one may.
    left_to_partner = outdone[:, None] & ~standing.slow[standing.partners]
    open_ = undecided & (covered < 0) & ~left_to_partner | unknown[:, None]
    last = _outdoers(standing, outdone)
    gives_way = outdone[:, None] & (standing.meets[last] | open_[last])
    kept = standing.meets & (_covered(standing, footprints, cheaper=True) < 0) & ~gives_way
    return OpenQuestions(open_, kept, kept.any(axis=1) & (standing.items < standing.latency_items), covered)


def _without_objectives(standing: RaceSnapshot) -> OpenQuestions:
    """Nobody asks for anything yet: all that its partner does not outdo is to be known well enough to plan on."""
    none = np.zeros((len(standing.items), 0), dtype=bool)
    outdone = standing.outdone & (standing.partners >= 0)
    short = ~outdone & (standing.items < standing.latency_items)
    return OpenQuestions(none, none, short, none.astype(np.int64))


def _outdoers(standing: RaceSnapshot, outdone: BoolArray) -> IntArray:
    """(k,) from partner to partner the one that is not outdone itself, which for most is each itself."""
    found = np.where(outdone, standing.partners, np.arange(len(outdone)))
    while outdone[found].any():
        found = found[found]
    return found


def _covered(standing: RaceSnapshot, footprints: ResourceUsage, *, cheaper: bool) -> IntArray:
    """(k, q) for each the configuration with the fewest CPU seconds that surely keeps the objective and stands in.

    Args:
        standing: of the configurations.
        footprints: of the configurations.
        cheaper: whether it must take fewer CPU seconds, so that of two that stand in for each other one is left.
    """
    count, objectives = standing.meets.shape
    found = np.full((count, objectives), -1, dtype=np.int64)
    everything = np.arange(count)
    sure = np.flatnonzero(standing.meets.any(axis=1))
    sure = sure[np.argsort(footprints.total_cpu_s[sure], kind="stable")]
    for one in sure[::-1]:  # the cheapest last, so that it is the one that is named
        stands_in = footprints.replaceable_by(int(one)).copy()
        stands_in[one] = False
        if cheaper:
            stands_in &= footprints.cheaper(one[None], everything)[0]
        found[np.ix_(np.flatnonzero(stands_in), np.flatnonzero(standing.meets[one]))] = one
    return found


def assign_verdicts(
    standing: RaceSnapshot, decisions: OpenQuestions, objectives: Sequence[SloRequirement], names: Sequence[str]
) -> tuple[ConfigurationVerdict, ...]:
    """A verdict and its reason for each configuration.

    Args:
        standing: what is known.
        decisions: what follows from it.
        objectives: (q,) what is asked.
        names: (k,) of the configurations.
    """
    return tuple(_judgement(standing, decisions, objectives, names, row) for row in range(len(names)))


def _judgement(
    standing: RaceSnapshot,
    decisions: OpenQuestions,
    objectives: Sequence[SloRequirement],
    names: Sequence[str],
    row: int,
) -> ConfigurationVerdict:
    if not standing.items[row]:
        return ConfigurationVerdict(Verdict.UNDECIDED, "it was not measured")
    if decisions.open[row].any():
        which = _accuracies(objectives, decisions.open[row])
        return ConfigurationVerdict(Verdict.UNDECIDED, f"it may or may not keep {which}")
    if decisions.needs_latency_items[row]:
        return ConfigurationVerdict(
            Verdict.UNDECIDED, f"latency is to be estimated from {standing.latency_items[row]} items"
        )
    if standing.fails[row].all() and len(objectives):
        return ConfigurationVerdict(Verdict.INFEASIBLE, _missed(objectives, standing.slow[row]))
    if decisions.surely_met[row].any():
        which = _accuracies(objectives, decisions.surely_met[row])
        return ConfigurationVerdict(Verdict.FEASIBLE, f"it surely keeps {which}")
    if standing.outdone[row] and standing.partners[row] >= 0:
        other = names[standing.partners[row]]
        return ConfigurationVerdict(Verdict.DOMINATED, f"{other} takes hardly more and is surely as accurate")
    if not objectives:
        return ConfigurationVerdict(Verdict.FEASIBLE, "no query asks for anything yet")
    pointless = standing.pointless[row] & ~standing.fails[row]
    if pointless.any():
        kept = pointless & standing.meets[row]
        if (kept == pointless).all():
            return ConfigurationVerdict(
                Verdict.UNLIKELY, f"it surely keeps {_accuracies(objectives, kept)}, {_NO_CHEAPER}"
            )
        return ConfigurationVerdict(Verdict.UNLIKELY, _POINTLESS)
    others = dict.fromkeys(names[one] for one in decisions.covered_by[row][~standing.fails[row]] if one >= 0)
    if not others:
        return ConfigurationVerdict(Verdict.UNDECIDED, "there are no more measurements of it")
    return ConfigurationVerdict(Verdict.DOMINATED, f"{' and '.join(others)} surely will do and takes hardly more")


def _accuracies(objectives: Sequence[SloRequirement], which: BoolArray) -> str:
    slos = [objective.accuracy for objective, among in zip(objectives, which, strict=True) if among]
    return ", ".join(dict.fromkeys("any accuracy" if slo is None else f"accuracy {slo}" for slo in slos))


def _missed(objectives: Sequence[SloRequirement], slow: BoolArray) -> str:
    limits = dict.fromkeys(str(o.latency) for o, late in zip(objectives, slow, strict=True) if late)
    parts = [f"is surely too slow for latency {', '.join(limits)}"] if limits else []
    if not slow.all():
        parts.append(f"surely misses {_accuracies(objectives, ~slow)}")
    return f"it {' and '.join(parts)}"
