"""The machine that measures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from circinus.profiling.interval import Interval
from circinus.specification import HardwareClass


@dataclass(frozen=True)
class MeasuredSpeed:
    """One operator with its knobs on a node of one hardware class, against the profile, item by item."""

    speed: Interval
    """Seconds of the profile over seconds there: the median over items, with distribution-free bounds."""
    items: int
    """That it stands on."""
    startup_s: float | None = None
    """Seconds there from asking for a replica until it can take work; None: none was started there."""


@dataclass(frozen=True)
class Speeds:
    """Relative speeds of one operator with its knobs, by hardware class."""

    measured: Mapping[str, MeasuredSpeed] = field(default_factory=dict)
    """By the name of the class; nothing of classes that it was not measured on."""

    def expected(self, hardware: HardwareClass) -> float:
        """The speed as well as it is known."""
        found = self.measured.get(hardware.name)
        return hardware.speed if found is None else found.speed.value

    def guaranteed(self, hardware: HardwareClass) -> float:
        """The speed that it surely has, as far as bounds hold: what promises are made with."""
        found = self.measured.get(hardware.name)
        return hardware.guaranteed_speed if found is None else found.speed.lower


DECLARED = Speeds()
"""Nothing was measured on any other hardware."""


@dataclass(frozen=True)
class Machine:
    """What service times depend on besides the code: what was measured on one is not taken for another's."""

    cpu_model: str
    cores: int
    """Logical cores of the whole machine, whatever part of them a process may use."""

    def __str__(self) -> str:
        return f"{self.cpu_model}, {self.cores} cores"


@lru_cache(maxsize=1)
def current_machine() -> Machine:
    """The one that this process runs on."""
    return Machine(_cpu_model(), os.cpu_count() or 1)


def machine_mismatch(machine: Machine | None) -> str | None:
    """Why service times of `machine` are not to be taken for this one's; None: they are its own.

    Args:
        machine: None: the one that measured was not recorded.
    """
    here = current_machine()
    if machine == here:
        return None
    return (
        f"service times were measured on {'a machine that was not recorded' if machine is None else machine}; this "
        f"machine is {here}: measure here (circinus profile), or declare this machine's speed"
    )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"
