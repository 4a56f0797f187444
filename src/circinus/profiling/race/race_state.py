"""State of the race among configurations, the open questions that follow from it, and the verdicts, without costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.race.slo_requirements import PipelineSlos
from circinus.profiling.settings import PROFILING
from circinus.specification import Slos
from circinus.specification.formatting import ceil_significant
from circinus.statistics.interval import Interval
from circinus.statistics.mean_decision import items_until_bounded


@dataclass(frozen=True, eq=False)
class RaceState:
    """State of a race of k configurations for q SLO requirements.

    A configuration that may meet a requirement need not be measured if another certainly meets it and may replace it,
    or if its reference may replace it and is certainly as accurate. A configuration that certainly meets a requirement
    yields to its reference only if the latter is open on it or certainly meets it too. Otherwise neither would remain,
    as the reference is not measured further because this one may replace it.
    """

    slos: PipelineSlos
    """SLO requirements to be decided."""
    confidence: RunConfidence
    """Confidence sequences of the run."""
    usage: ResourceUsage
    """Resource usage of the configurations; empty until it is compared."""
    items: IntArray
    """(k,) number of measured items, a prefix of the order."""
    latency_items: IntArray
    """(k,) sample size for the latency, at most all items."""
    failed: BoolArray
    """(k,) whether the configuration failed in this measurement."""
    exhausted: BoolArray
    """(k,) whether no further recording is available."""
    accurate: BoolArray
    """(k, q) whether the configuration is certainly accurate enough."""
    inaccurate: BoolArray
    """(k, q) whether the configuration is certainly not accurate enough."""
    slow: BoolArray
    """(k, q) whether no plan is certainly fast enough, regardless of accuracy."""
    pruned: BoolArray
    """(k, q) see `SamplerDecision.pruned`."""
    means: FloatArray
    """(k,) estimated mean scores."""
    variances: FloatArray
    """(k,) residual variances of single scores, always positive."""
    score_variances: FloatArray
    """(k,) variances of single scores, with what covariates explain."""
    references: IntArray
    """(k,) see `ResourceUsage.references`."""
    reference_no_costlier: BoolArray
    """(k,) whether the reference may replace the configuration."""
    no_more_accurate: BoolArray
    """(k,) whether the reference is certainly as accurate."""

    @classmethod
    def blank(
        cls, configurations: int, slos: PipelineSlos, confidence: RunConfidence, *, latency_items: int
    ) -> RaceState:
        """Return the state of k configurations without measurements."""
        per_configuration = np.zeros(configurations, dtype=bool)
        per_requirement = np.zeros((configurations, len(slos.requirements)), dtype=bool)
        low, high = confidence.metric.range
        return cls(
            slos,
            confidence,
            usage=ResourceUsage.empty(configurations),
            items=np.zeros(configurations, dtype=np.int64),
            latency_items=np.full(configurations, latency_items, dtype=np.int64),
            failed=per_configuration,
            exhausted=per_configuration,
            accurate=per_requirement,
            inaccurate=per_requirement,
            slow=per_requirement,
            pruned=per_requirement,
            means=np.full(configurations, (low + high) / 2),
            variances=np.full(configurations, (high - low) ** 2 / 4),
            score_variances=np.full(configurations, (high - low) ** 2 / 4),
            references=np.full(configurations, -1, dtype=np.int64),
            reference_no_costlier=per_configuration,
            no_more_accurate=per_configuration,
        )

    def followed_by(self, added: RaceState) -> RaceState:
        """Return the state with further, unmeasured configurations."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        joined: dict[str, Any] = {
            name: np.concatenate([array, getattr(added, name)])
            for name, array in own.items()
            if isinstance(array, np.ndarray)
        }
        return replace(self, usage=self.usage.followed_by_unmeasured(len(added.items)), **joined)

    def with_row(self, index: int, **values: object) -> RaceState:
        """Return the state with other values of one configuration."""
        changed: dict[str, Any] = {name: getattr(self, name).copy() for name in values}
        for name, value in values.items():
            changed[name][index] = value
        return replace(self, **changed)

    @cached_property
    def decisive_items(self) -> IntArray:
        """(k,) number of items that decisions rest on: all items where none can be added."""
        return np.where(self.failed | self.exhausted, self.confidence.items, self.items)

    @cached_property
    def meets(self) -> BoolArray:
        """(k, q) certainly accurate enough, and not certainly too slow."""
        return self.accurate & ~self.slow & ~self.failed[:, None]

    @cached_property
    def fails(self) -> BoolArray:
        """(k, q) certainly missed."""
        return self.inaccurate | self.slow | self.failed[:, None]

    @cached_property
    def dominated_on_accuracy(self) -> BoolArray:
        """(k,) whether the reference is certainly as accurate and may replace the configuration."""
        dominated = self.no_more_accurate & self.reference_no_costlier & ~self.failed[self.references]
        return dominated & (self.references >= 0)

    @cached_property
    def estimate_meets(self) -> BoolArray:
        """(k, q) whether the estimated mean score meets the accuracy SLO."""
        meets = np.ones(self.accurate.shape, dtype=bool)
        for column, requirement in enumerate(self.slos.requirements):
            if (slo := requirement.accuracy) is not None:
                margins = self.means - slo.limit if slo.is_minimum else slo.limit - self.means
                meets[:, column] = margins >= -slo.tolerance
        return meets

    @cached_property
    def covered_by(self) -> IntArray:
        """(k, q) the cheapest configuration that certainly meets the requirement and may replace this one; else -1."""
        return self._covered(cheaper=False)

    @cached_property
    def open(self) -> BoolArray:
        """(k, q) undecided, and a decision would matter; without an item everywhere."""
        undecided = ~(self.meets | self.fails) & (self.decisive_items < self.confidence.items)[:, None]
        # A reference that is slightly too slow serves no query, where this configuration may.
        left_to_reference = self.dominated_on_accuracy[:, None] & ~self.slow[self.references]
        matters = ~self.pruned & (self.covered_by < 0) & ~left_to_reference
        return np.asarray(undecided & matters | (self.decisive_items == 0)[:, None])

    @cached_property
    def too_few_items(self) -> BoolArray:
        """(k, q) undecided, and a decision would matter, but all items are measured."""
        measured = (self.items >= self.confidence.items)[:, None] & ~self.failed[:, None]
        matters = (self.covered_by < 0) & ~self.dominated_on_accuracy[:, None]
        return ~(self.meets | self.fails) & measured & matters

    @cached_property
    def certainly_met(self) -> BoolArray:
        """(k, q) certainly met, and no other may replace it at lower usage or is certainly as accurate."""
        last = self._undominated_references
        yields = self.dominated_on_accuracy[:, None] & (self.meets[last] | self.open[last])
        return self.meets & (self._covered(cheaper=True) < 0) & ~yields

    @cached_property
    def planned(self) -> BoolArray:
        """(k, q) possibly planned with: certainly met, and not pruned."""
        return self.certainly_met & ~self.pruned

    @cached_property
    def needs_latency_items(self) -> BoolArray:
        """(k,) possibly planned with, but with too few items for its latency; without queries, all not dominated."""
        planned = self.planned.any(axis=1) if self.slos.requirements else ~self.dominated_on_accuracy
        return planned & (self.decisive_items < self.latency_items)

    @property
    def settled(self) -> BoolArray:
        """(k,) whether more items of a configuration would change no decision."""
        return ~(self.open.any(axis=1) | self.needs_latency_items)

    @property
    def _undominated_references(self) -> IntArray:
        """(k,) the end of each chain of references that dominate, which is mostly the configuration itself."""
        last = np.where(self.dominated_on_accuracy, self.references, np.arange(len(self.items)))
        while self.dominated_on_accuracy[last].any():
            last = last[last]
        return last

    def _covered(self, *, cheaper: bool) -> IntArray:
        """Return (k, q) the configuration with the fewest CPU seconds that certainly meets a requirement in its place.

        If `cheaper`, it must use fewer CPU seconds, so that one of two mutual replacements remains.
        """
        covered_by = np.full(self.meets.shape, -1, dtype=np.int64)
        feasible = np.flatnonzero(self.meets.any(axis=1))
        if not len(feasible):
            return covered_by
        feasible = feasible[np.argsort(self.usage.total_cpu_s[feasible], kind="stable")]  # the cheapest first
        replaceable = self.usage.replaceable_by(feasible)
        replaceable[np.arange(len(feasible)), feasible] = False
        if cheaper:
            replaceable &= self.usage.cheaper(feasible, np.arange(len(covered_by)))
        for column in range(len(self.slos.requirements)):
            covers = replaceable & self.meets[feasible, column][:, None]
            covered_by[:, column] = np.where(covers.any(axis=0), feasible[covers.argmax(axis=0)], -1)
        return covered_by


_MIN_MARGIN = 1e-3
"""Distance of an estimate from a threshold, as a share of the range, below which no number of items is told apart."""
_PRUNED = "it most likely misses the SLOs, or makes no plan much cheaper than feasible configurations do"
_NO_COSTLIER = f"at less or hardly more resource usage, compared on the first {PROFILING.usage_items} items"
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
    TOO_FEW_ITEMS = "too few items"
    """Measured on all items, which do not suffice to decide."""


@dataclass(frozen=True)
class ConfigurationVerdict:
    """Verdict with its reason."""

    verdict: Verdict
    reason: str


def assign_verdicts(
    state: RaceState, names: Sequence[str], bounds_of: Callable[[int], Interval]
) -> tuple[ConfigurationVerdict, ...]:
    """Return the verdict with its reason for each of k configurations, by their names and the bounds of their means."""
    return tuple(_verdict(state, names, row, bounds_of) for row in range(len(names)))


def _verdict(
    state: RaceState, names: Sequence[str], row: int, bounds_of: Callable[[int], Interval]
) -> ConfigurationVerdict:
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
        unclear = f"; {_more_items(state, row, bounds_of(row))}" if state.too_few_items[row].any() else ""
        return ConfigurationVerdict(Verdict.FEASIBLE, f"it certainly meets {slos}{unclear}")
    if state.dominated_on_accuracy[row]:
        reference = names[state.references[row]]
        return ConfigurationVerdict(
            Verdict.DOMINATED,
            f"{reference} is certainly as accurate {_NO_COSTLIER}",
        )
    if not requirements:
        return ConfigurationVerdict(Verdict.FEASIBLE, "no query uses the pipeline yet")
    covered_by = state.covered_by[row]
    if state.too_few_items[row].any():
        reason, met = _more_items(state, row, bounds_of(row)), state.meets[row] & (covered_by >= 0)
        if met.any():
            replacements = " and ".join(dict.fromkeys(names[index] for index in covered_by[met]))
            reason += (
                f"; it certainly meets {_accuracies(requirements, met)}, and so does {replacements} {_NO_COSTLIER}"
            )
        return ConfigurationVerdict(Verdict.TOO_FEW_ITEMS, reason)
    pruned = state.pruned[row] & ~state.fails[row] & (covered_by < 0)  # being covered is certain, and so comes first
    if pruned.any():
        met = pruned & state.meets[row]
        if (met == pruned).all():
            return ConfigurationVerdict(
                Verdict.UNLIKELY, f"it certainly meets {_accuracies(requirements, met)}, {_NO_CHEAPER}"
            )
        return ConfigurationVerdict(Verdict.UNLIKELY, _PRUNED)
    covering = dict.fromkeys(names[index] for index in covered_by[~state.fails[row]] if index >= 0)
    if not covering:
        return ConfigurationVerdict(Verdict.UNDECIDED, "no further measurements are available")
    return ConfigurationVerdict(
        Verdict.DOMINATED,
        f"its SLOs are certainly met by {' and '.join(covering)} {_NO_COSTLIER}",
    )


def _more_items(state: RaceState, row: int, bounds: Interval) -> str:
    """Return the SLOs that all items leave undecided, and how many more are expected to decide them."""
    low, high = state.confidence.metric.range
    requirements, undecided = state.slos.requirements, state.too_few_items[row]
    slos = [slo.accuracy for slo, is_undecided in zip(requirements, undecided, strict=True) if is_undecided]
    nearest = min((slo for slo in slos if slo is not None), key=lambda slo: abs(bounds.value - slo.threshold))
    is_met = nearest.is_met_by(bounds.value)
    bound = nearest.worst(bounds) if is_met else nearest.best(bounds)
    items = items_until_bounded(
        int(state.items[row]),
        max(abs(bounds.value - nearest.threshold), _MIN_MARGIN * (high - low)),
        max(abs(bound - bounds.value), _MIN_MARGIN * (high - low)),
        float((state.score_variances if is_met else state.variances)[row]),  # plans use that of scores
        high - low,
    )
    more = max(items - state.confidence.items, 1.0)
    return (
        f"the data set is too small to tell whether it meets {_accuracies(requirements, undecided)}: "
        f"about {ceil_significant(more, 2):,.0f} more items besides held-out ones would decide in about half of the "
        "cases"
    )


def _accuracies(requirements: Sequence[Slos], selected: BoolArray) -> str:
    slos = [
        requirement.accuracy for requirement, is_selected in zip(requirements, selected, strict=True) if is_selected
    ]
    return ", ".join(dict.fromkeys("any accuracy" if slo is None else f"accuracy {slo}" for slo in slos))


def _missed(requirements: Sequence[Slos], slow: BoolArray) -> str:
    latency_limits = dict.fromkeys(str(o.latency) for o, is_slow in zip(requirements, slow, strict=True) if is_slow)
    parts = [f"is certainly too slow for latency {', '.join(latency_limits)}"] if latency_limits else []
    if not slow.all():
        parts.append(f"certainly misses {_accuracies(requirements, ~slow)}")
    return f"it {' and '.join(parts)}"
