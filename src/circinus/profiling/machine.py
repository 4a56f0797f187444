"""The machine that measures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


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
