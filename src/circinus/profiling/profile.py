"""Profiles of operators, configurations and pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.profiling.batch_time_ratios import allowed_allocations, batch_ratios, measured_allocations
from circinus.profiling.hardware.machine import DECLARED, Machine, Speeds
from circinus.profiling.item_runs import ItemRuns, runs_of_items
from circinus.profiling.race.race_state import ConfigurationVerdict, Verdict
from circinus.profiling.race.slo_requirements import MIN_ITEMS
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration, HardwareClass, OperatorSpec, Population
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED

if TYPE_CHECKING:
    from circinus.profiling.store.store_queries import StoredReplica


@dataclass(frozen=True, eq=False)
class OperatorProfile:
    """Measurements of one operator under one prefix on n items and one hardware class."""

    operator: str
    prefix: Configuration
    """Knob values of the operator and of all its ancestors."""
    service_s: FloatArray
    """(n,) service times of unbatched items, with the fewest CPUs that the specification allows: of all runs for an
    item, if it has none or several."""
    output_bytes: FloatArray
    """(n,) serialized sizes of the outputs, of all runs for an item."""
    peak_memory_bytes: float
    """Peak resident memory of a process that has loaded the operator and processed the items."""
    load_s: float
    """Seconds to load the operator: imports and model."""
    batch_ratio: Mapping[tuple[float, int], float]
    """(CPUs, batch size) -> time of a full batch relative to one item on the fewest CPUs.

    Contains every allowed allocation. An unmeasured one has its batch size as ratio, which means no gain over
    processing the items one by one on the fewest CPUs."""
    measured_allocations: frozenset[tuple[float, int]] = frozenset()
    """Allocations of `batch_ratio` that were measured."""
    corrections: Mapping[tuple[str, float], float] = field(default_factory=dict)
    """(hardware class, its guaranteed speed for the operator) -> correction factor of the service time there, learnt
    from traffic (`circinus.estimation.corrections`). The measurements themselves stay unchanged."""
    startup_s: float | None = None
    """Seconds from requesting a replica until it is ready, including `load_s`; None if no replica was started."""
    speeds: Speeds = DECLARED
    """Relative speeds of the operator with its knob values on other hardware classes."""
    waited_share: float = 0.0
    """Share of the elapsed time of the runs in which they waited for a CPU, which `service_s` leaves out."""
    worker_waited_share: float = 0.0
    """Share in which they waited for their threads and child processes, and these for a CPU; `service_s` has it."""
    runs: tuple[ItemRuns, ...] | None = None
    """(n,) runs for each item; None if each item has one run, with one output without a branch."""

    @cached_property
    def run_counts(self) -> IntArray:
        """(n,) number of runs for each item."""
        if self.runs is None:
            return np.ones(len(self.service_s), dtype=np.int64)
        return np.array([len(runs.service_s) for runs in self.runs], dtype=np.int64)

    @cached_property
    def longest_run_s(self) -> FloatArray:
        """(n,) service time of the longest run for each item, 0 without a run."""
        if self.runs is None:
            return self.service_s
        return np.array([max(runs.service_s, default=0.0) for runs in self.runs])

    @cached_property
    def run_s(self) -> FloatArray:
        """(runs,) service times of all runs."""
        if self.runs is None:
            return self.service_s
        return np.array([seconds for runs in self.runs for seconds in runs.service_s])

    @property
    def has_elements(self) -> bool:
        """Whether an item may have several runs, which different replicas share."""
        return self.runs is not None and bool(self.run_counts.max(initial=0) > 1)

    def of_items(self, selection: slice | IntArray | BoolArray) -> OperatorProfile:
        """Return the profile of some of the items."""
        rows = np.arange(len(self.service_s))[selection].tolist()
        runs = None if self.runs is None else tuple(self.runs[row] for row in rows)
        return replace(self, service_s=self.service_s[selection], output_bytes=self.output_bytes[selection], runs=runs)

    def with_totals(self, service_s: FloatArray, output_bytes: FloatArray | None = None) -> OperatorProfile:
        """Return the profile with other service times, and sizes of outputs, of the items: their runs are scaled."""
        output_bytes = self.output_bytes if output_bytes is None else output_bytes
        runs = self.runs
        if runs is not None:
            totals = zip(runs, service_s.tolist(), output_bytes.tolist(), strict=True)
            runs = tuple(item.scaled_to(total_s, total_bytes) for item, total_s, total_bytes in totals)
        return replace(self, service_s=service_s, output_bytes=output_bytes, runs=runs)

    def with_replica(self, spec: OperatorSpec, replica: StoredReplica) -> OperatorProfile:
        """Return the profile with the stored statistics of replicas with the same knob values."""
        ratios = batch_ratios(allowed_allocations(spec), replica.batch_ratio)
        return replace(
            self,
            peak_memory_bytes=replica.peak_memory_bytes,
            load_s=replica.load_s,
            batch_ratio=ratios,
            measured_allocations=measured_allocations(ratios, replica.batch_ratio),
            startup_s=replica.startup_s,
        )

    def correction(self, hardware: HardwareClass) -> float:
        """Return the correction factor of the service time on `hardware`; 1 if none was learnt."""
        return self.corrections.get((hardware.name, self.speeds.guaranteed(hardware)), 1.0)

    def slowdown(self, hardware: HardwareClass) -> float:
        """Return the corrected upper bound of the service time on `hardware`, relative to the measured one."""
        return self.correction(hardware) / self.speeds.guaranteed(hardware)

    def batch_ratio_on(self, hardware: HardwareClass) -> Mapping[tuple[float, int], float]:
        """Return `batch_ratio` as it is on `hardware`: that of an imported table, else the profile's."""
        batches = self.speeds.batches(hardware)
        return self.batch_ratio if batches is None else batches.ratio

    def measured_allocations_on(self, hardware: HardwareClass) -> frozenset[tuple[float, int]]:
        """Return the measured allocations of `batch_ratio_on`."""
        batches = self.speeds.batches(hardware)
        return self.measured_allocations if batches is None else batches.measured

    def startup_on(self, hardware: HardwareClass) -> float | None:
        """Return the start-up time of a replica on `hardware`: the measured one, else the reference scaled by speed."""
        measured = self.speeds.measured.get(hardware.name)
        if measured is not None and measured.startup_s is not None:
            return measured.startup_s
        return None if self.startup_s is None else self.startup_s / self.speeds.guaranteed(hardware)


def runs_by_item(operators: Mapping[str, OperatorProfile]) -> list[Mapping[str, ItemRuns]]:
    """Return the runs of each operator for each of n items."""
    runs = {
        name: profile.runs or runs_of_items({}, profile.service_s, profile.output_bytes)
        for name, profile in operators.items()
    }
    return [dict(zip(runs, item, strict=True)) for item in zip(*runs.values(), strict=True)]


def waited_shares(seconds: FloatArray) -> tuple[float, float]:
    """Return the shares of the (3, n) times of runs (`read_run_times`) in which they and their workers waited."""
    elapsed_s, wait_s, worker_wait_s = map(float, seconds.sum(axis=1))
    return wait_s / max(elapsed_s, 1e-12), worker_wait_s / max(elapsed_s, 1e-12)


def disturbance(waited_share: float, worker_waited_share: float) -> float:
    """Return how much other programs disturbed a run; its service time is less exact above 1."""
    return max(waited_share / PROFILING.disturbed_share, worker_waited_share / PROFILING.disturbed_worker_share)


@dataclass(frozen=True, eq=False)
class ConfigurationProfile:
    """Measurements of one configuration on the first n items of the measurement order."""

    configuration: Configuration
    items: IntArray
    """(n,) indexes into the data set."""
    scores: FloatArray
    """(n,) metric values of the items."""
    accuracy: Interval
    """Mean score of the population (`PipelineProfile.stands_for`), with an anytime-valid confidence sequence at the
    profile's risk."""
    input_bytes: FloatArray
    """(n,) serialized sizes of the pipeline's inputs."""
    operators: Mapping[str, OperatorProfile]
    """Profiles by operator name; all arrays have the same n items in the same order."""

    @property
    def disturbed(self) -> frozenset[str]:
        """Names of the operators that waited for a CPU in a large share of their runs, whose times are less exact."""
        return frozenset(
            operator.operator
            for operator in self.operators.values()
            if disturbance(operator.waited_share, operator.worker_waited_share) > 1
        )

    @property
    def mean_service_s(self) -> float:
        """Mean seconds of an item in all operators."""
        return sum(float(operator.service_s.mean()) for operator in self.operators.values())


@dataclass(frozen=True)
class FailedConfiguration:
    """Configuration that failed during measurement and is excluded from the profile."""

    configuration: Configuration
    item_key: str | None
    """Key of the item that failed, or None if an operator failed to load."""
    reason: str


@dataclass(frozen=True)
class HardwareClassReport:
    """Result of a run on one hardware class."""

    hardware_class: str
    machine: Machine | None
    """Machine that was measured on; None if none was, and the declared speed applies."""
    ran_s: float = 0.0
    """Processing seconds of the run."""
    missing: int = 0
    """Number of operators with knob values whose speed is declared, not measured: they failed, or the budget was
    spent."""
    failed: tuple[FailedConfiguration, ...] = ()


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of a profiling run by their use."""

    operators_s: float
    """Processing of items."""
    loading_s: float
    """Start-up of operators."""
    deciding_s: float
    """Selection of what to measure."""
    other_s: float
    """Store, scores and transport."""

    def __add__(self, other: TimeSpent) -> TimeSpent:
        return TimeSpent(*(own + its for own, its in zip(astuple(self), astuple(other), strict=True)))


_MIN_PROBABILITY = 1e-6
"""Smallest reported probability; estimates are not more exact."""
_NEARLY_CERTAIN = 0.995
"""Probability from which only that it is nearly 1 is reported."""


@dataclass(frozen=True)
class StoppingCertificate:
    """Probability that an unmeasured configuration would make a query's plan cheaper."""

    unmeasured: int
    """Number of unmeasured configurations."""
    considered: int
    """Number of unmeasured configurations that were evaluated: all, unless there are too many to enumerate."""
    probability: float | None
    """Highest posterior probability that an evaluated configuration improves the plan of a query by more than
    `saving`; None if there are too few measurements."""
    saving: float
    """Saving as a share of a plan's cost."""
    conclusive: bool
    """True if probability and expected saving are low enough to stop, and no helpful configuration has too few items
    or is unmeasurable."""
    next: Configuration | None = None
    """Next configuration to measure; None if no measurable one is worthwhile."""
    prior: str = ""
    """Use of scores from transfer sources; empty if there are none."""
    is_computed: bool = True
    """False if nothing was estimated from the last measurements, for the current queries."""

    @classmethod
    def without_estimate(
        cls, unmeasured: int, *, conclusive: bool = False, is_complete: bool = False
    ) -> StoppingCertificate:
        """Return the certificate without an estimate, which complete measurements do not need."""
        return cls(unmeasured, 0, None, 0.0, conclusive=conclusive, is_computed=is_complete)

    def __str__(self) -> str:
        if not self.unmeasured:
            return "all configurations were tried"
        benefit = f"gives a query its first plan or one more than {self.saving:.0%} cheaper"
        if not self.is_computed:
            message = (
                "not estimated yet whether another configuration would make plans cheaper: `circinus profile` does so "
                "where its budget leaves time"
            )
        elif self.probability is None:
            message = f"too few measurements to estimate whether another configuration {benefit}"
        elif self.conclusive:
            subject = "most likely no unmeasured configuration"
            if self.considered < self.unmeasured:
                subject += f" ({self.considered:,} of {self.unmeasured:,} evaluated, mostly the most promising)"
            return f"{subject} {benefit}: the probability is at most {max(self.probability, _MIN_PROBABILITY):.2g} each"
        else:
            probability = max(self.probability, _MIN_PROBABILITY)
            share = f"{probability:.2g}" if probability < _NEARLY_CERTAIN else "> 0.99"
            message = f"with probability {share} an unmeasured configuration {benefit}"
        return message if self.next is None else f"{message}; next to measure: {self.next}"


@dataclass(frozen=True, eq=False)
class PipelineProfile:
    """Measurements of one pipeline on one data set and one hardware class."""

    pipeline: str
    dataset_fingerprint: str
    dataset_items: int
    held_out_items: int
    """Number of held-out items, which are never profiled."""
    hardware_class: str
    """Hardware class of the measuring machine, whose speed is 1."""
    risk: float
    """Probability that any accuracy bound of any configuration fails."""
    configurations: tuple[ConfigurationProfile, ...]
    unmeasured: int
    """Number of configurations without a measured item, excluding failed ones."""
    profiled_s: float
    """Processing seconds of the measurements."""
    saved_s: float
    """Processing seconds saved by the prefix cache."""
    code_versions: Mapping[str, str] = field(default_factory=dict)
    """`uses` reference of operators, metric and data set -> version of the measured code. Empty for a trace, which does
    not depend on the current code."""
    failed: tuple[FailedConfiguration, ...] = ()
    """Configurations excluded because their last measurement failed."""
    failed_in_run: frozenset[Configuration] = frozenset()
    """Configurations that failed in this run, which does not try them again."""
    machine: Machine | None = None
    """Machine that the service times were measured on, or None if it was not recorded. Scores and sizes do not
    depend on the machine."""
    on_pool: bool = False
    """True if `machine` is a node of class `local` of a pool, as opposed to the machine that ran the command."""
    verdicts: Mapping[Configuration, ConfigurationVerdict] = field(default_factory=dict)
    """Verdict and reason of each configuration that has not failed; empty if none were requested. Unmeasured
    configurations have one only if they are to be measured in any case."""
    certificate: StoppingCertificate | None = None
    """Certificate for the unmeasured configurations; None if it was not requested, or if all are to be measured."""
    interrupted: bool = False
    """True if the measurement was interrupted; the profile contains everything measured before."""
    class_reports: tuple[HardwareClassReport, ...] = ()
    """Results on further hardware classes in the same run."""
    spent: TimeSpent | None = None
    """Time of the run, without further hardware classes. None if loaded."""
    stands_for: Population = "items"
    """Population whose mean scores are bounded: the profiling items, or requests to come."""

    @property
    def population(self) -> int:
        """Number of items that may be profiled."""
        return self.dataset_items - self.held_out_items

    @property
    def promising(self) -> int:
        """Number of unmeasured configurations if any may still give a query its first plan or a cheaper one, else 0."""
        return 0 if self.certificate is not None and self.certificate.conclusive else self.unmeasured

    @property
    def score_population(self) -> int:
        """Number of items of the population whose mean scores are bounded; `UNLIMITED` for requests to come."""
        return UNLIMITED if self.stands_for == "requests" else self.population

    @property
    def usable(self) -> tuple[ConfigurationProfile, ...]:
        """Configurations eligible for guarantees: measured on at least `MIN_ITEMS` items, or on all profiling items."""
        min_items = min(MIN_ITEMS, self.population)
        return tuple(measured for measured in self.configurations if len(measured.items) >= min_items)

    @property
    def undecided(self) -> tuple[Configuration, ...]:
        """Configurations for which more items may change the verdict."""
        return tuple(c for c, judgement in self.verdicts.items() if judgement.verdict is Verdict.UNDECIDED)

    @property
    def all_decided(self) -> bool:
        """True if more measurements would change no decision."""
        inconclusive = self.certificate is not None and not self.certificate.conclusive
        return bool(self.verdicts) and not self.undecided and not inconclusive

    def after(self, earlier: PipelineProfile | None) -> PipelineProfile:
        """Return the profile with the time of an earlier part of the run added."""
        if earlier is None or earlier.spent is None or self.spent is None:
            return self
        return replace(self, spent=earlier.spent + self.spent)

    def with_operators(self, change: Callable[[OperatorProfile], OperatorProfile]) -> PipelineProfile:
        """Return the profile with every operator profile changed; configurations keep sharing them."""
        changed: dict[int, OperatorProfile] = {}
        for measured in self.configurations:
            for operator in measured.operators.values():
                if id(operator) not in changed:
                    changed[id(operator)] = change(operator)
        configurations = tuple(
            replace(measured, operators={name: changed[id(operator)] for name, operator in measured.operators.items()})
            for measured in self.configurations
        )
        return replace(self, configurations=configurations)
