"""What was measured: of an operator under one prefix, of a configuration, of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.hardware.machine import DECLARED, Machine, Speeds
from circinus.profiling.interval import Interval
from circinus.profiling.race.slo_requirements import MIN_ITEMS
from circinus.profiling.race.stopping_certificate import StoppingCertificate
from circinus.profiling.race.verdicts import ConfigurationVerdict, Verdict
from circinus.specification import Configuration, HardwareClass


@dataclass(frozen=True, eq=False)
class OperatorProfile:
    """One operator under one prefix, measured on n items on one hardware class."""

    operator: str
    prefix: Configuration
    """The operator's own knob values and those of all its ancestors."""
    service_s: FloatArray
    """(n,) seconds to process one item alone, with the fewest CPUs the operator may be given."""
    output_bytes: FloatArray
    """(n,) size of the output as it is sent."""
    peak_memory_bytes: float
    """Resident memory of a process that has loaded the operator and processed the items."""
    load_s: float
    """Seconds to load the operator: its imports and its model."""
    batch_ratio: Mapping[tuple[float, int], float]
    """(CPUs, batch size) -> seconds for a full batch over the seconds of one of its items with the fewest CPUs.
    Has every combination the operator's specification allows; one that was not measured stands at the batch size,
    that is: no gain over one item after the other on the fewest CPUs."""
    measured_allocations: frozenset[tuple[float, int]] = frozenset()
    """The combinations of `batch_ratio` that were measured."""
    corrections: Mapping[tuple[str, float], float] = field(default_factory=dict)
    """(hardware class, its promised speed for the operator) -> factor on the seconds in service there, learnt from
    traffic; see `circinus.estimation.corrections`. What was measured is not changed by it."""
    startup_s: float | None = None
    """Seconds from asking for a replica until it can take work, `load_s` among them; None: none was started."""
    speeds: Speeds = DECLARED
    """How fast the operator with its knobs is on other hardware classes."""

    def correction(self, hardware: HardwareClass) -> float:
        """The factor on the seconds in service on `hardware`; 1 where nothing was learnt."""
        return self.corrections.get((hardware.name, self.speeds.guaranteed(hardware)), 1.0)

    def slowdown(self, hardware: HardwareClass) -> float:
        """What the seconds in service on `hardware` surely do not exceed, over those measured; corrected."""
        return self.correction(hardware) / self.speeds.guaranteed(hardware)

    def startup_on(self, hardware: HardwareClass) -> float | None:
        """Seconds from asking for a replica on `hardware` until it can take work: as measured there, else by speed."""
        measured = self.speeds.measured.get(hardware.name)
        if measured is not None and measured.startup_s is not None:
            return measured.startup_s
        return None if self.startup_s is None else self.startup_s / self.speeds.guaranteed(hardware)


@dataclass(frozen=True, eq=False)
class ConfigurationProfile:
    """One configuration, measured on the first n items of the data set's order."""

    configuration: Configuration
    items: IntArray
    """(n,) indexes into the data set."""
    scores: FloatArray
    """(n,) metric of each item."""
    accuracy: Interval
    """Mean score over the items that may be profiled; an anytime-valid confidence sequence at the profile's risk."""
    input_bytes: FloatArray
    """(n,) size of the pipeline's input as it is sent."""
    operators: Mapping[str, OperatorProfile]
    """By operator name; all arrays belong to the same n items in the same order."""


@dataclass(frozen=True)
class FailedConfiguration:
    """A configuration that could not be measured and is left out of the profile."""

    configuration: Configuration
    item_key: str | None
    """The item it failed on; None: it failed before the first one, while an operator loaded."""
    reason: str


@dataclass(frozen=True, eq=False)
class PipelineProfile:
    """What is known of one pipeline on one data set and hardware class."""

    pipeline: str
    dataset_fingerprint: str
    dataset_items: int
    held_out_items: int
    """How many of them are never profiled."""
    hardware_class: str
    """Of the machine that measured; its speed is 1."""
    risk: float
    """Probability with which any accuracy bound of any configuration may fail."""
    configurations: tuple[ConfigurationProfile, ...]
    unmeasured: int
    """How many configurations have not a single item; those that failed are not counted."""
    profiled_s: float
    """Seconds of processing that the measurements took."""
    saved_s: float
    """Seconds of processing that the prefix cache saved."""
    code_versions: Mapping[str, str] = field(default_factory=dict)
    """`uses` reference of operators, metric and data set -> version of the code that was measured; nothing of a trace,
    which stands for itself whatever the code is now."""
    failed: tuple[FailedConfiguration, ...] = ()
    """Configurations that are left out because they failed when they were last tried."""
    machine: Machine | None = None
    """The one that the service times were measured on; None: it was not recorded. Scores and sizes are the same
    everywhere."""
    on_pool: bool = False
    """Whether that is a node of the class `local` of a pool, and not the machine that the command ran on."""
    verdicts: Mapping[Configuration, ConfigurationVerdict] = field(default_factory=dict)
    """What is decided of each configuration that has not failed, and why; empty where nobody asked for it. Of those
    that were not measured only what is to be measured in any case."""
    certificate: StoppingCertificate | None = None
    """What is said of the configurations that were not measured; None: nobody asked, or all are to be measured."""
    interrupted: bool = False
    """Whether the measurement was interrupted before its end; what was measured until then is in the profile."""

    @property
    def usable(self) -> tuple[ConfigurationProfile, ...]:
        """Configurations that anything is promised on: known on `LEAST_ITEMS` items, or on all there are."""
        least = min(MIN_ITEMS, self.dataset_items - self.held_out_items)
        return tuple(found for found in self.configurations if len(found.items) >= least)

    @property
    def undecided(self) -> tuple[Configuration, ...]:
        """Configurations of which more items may decide something."""
        return tuple(c for c, judgement in self.verdicts.items() if judgement.verdict is Verdict.UNDECIDED)

    @property
    def all_decided(self) -> bool:
        """Whether measuring longer would change nothing."""
        inconclusive = self.certificate is not None and not self.certificate.conclusive
        return bool(self.verdicts) and not self.undecided and not inconclusive
