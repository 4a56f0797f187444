"""Sound as it travels between the operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""What every model of this example was trained on."""


@dataclass(frozen=True, eq=False)
class Audio:
    """One channel of 16-bit sound."""

    samples: NDArray[np.int16]
    """Shape (n,)."""
    sample_rate_hz: int = SAMPLE_RATE_HZ

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz

    def as_float(self) -> NDArray[np.float32]:
        """The samples scaled to -1..1."""
        return self.samples.astype(np.float32) / 32768.0

    def with_float(self, samples: NDArray[np.floating]) -> Audio:
        """The same kind of sound with other samples, given in -1..1; louder ones are clipped."""
        scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767)
        return Audio(scaled.astype(np.int16), self.sample_rate_hz)
