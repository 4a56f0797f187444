"""Recorded traffic and recorded uplinks: see `load/` of the published traces for their sources and licences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.workloads.published.speech import read_table
from circinus.arrays import FloatArray

ARRIVALS = ("azure-conversation", "azure-code")


@dataclass(frozen=True, eq=False)
class Uplink:
    """Bandwidth of an uplink, which changes n times."""

    time_s: FloatArray
    """(n,) ascending times from which a bandwidth holds."""
    mbit_per_s: FloatArray
    """(n,)"""

    def at(self, time_s: float) -> float:
        """Return the bandwidth in Mbit/s at a time; the last one holds for ever."""
        return float(self.mbit_per_s[max(int(np.searchsorted(self.time_s, time_s, side="right")) - 1, 0)])

    def exceeded_for(self, share: float, begin_s: float, length_s: float) -> float:
        """Return the bandwidth in Mbit/s that the uplink has for a share of a period at least."""
        seconds = np.arange(begin_s, begin_s + length_s)
        return float(np.quantile([self.at(second) for second in seconds], 1 - share, method="lower"))


def read_arrivals(folder: Path) -> Mapping[str, FloatArray]:
    """Return the ascending times in seconds of recorded requests, by recording.

    Raises:
        TracesAbsentError: `pyarrow` is not installed.
    """
    return {name: np.sort(_columns(folder, name, "time_s")[0]) for name in ARRIVALS}


def read_uplinks(folder: Path) -> tuple[Uplink, ...]:
    """Return the recorded uplinks.

    Raises:
        TracesAbsentError: `pyarrow` is not installed.
    """
    link, time_s, mbit_per_s = _columns(folder, "uplinks", "link", "time_s", "mbit_per_s")
    return tuple(Uplink(time_s[link == number], mbit_per_s[link == number]) for number in np.unique(link))


def _columns(folder: Path, name: str, *columns: str) -> list[FloatArray]:
    table = read_table(folder / "load" / f"{name}.parquet", columns)
    return [np.asarray(table[column], dtype=np.float64) for column in columns]
