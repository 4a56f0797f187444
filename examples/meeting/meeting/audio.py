"""Audio data type that the operators exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""Sample rate that all models of this example were trained on."""


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono recording with 16-bit samples."""

    samples: NDArray[np.int16]
    """Shape (n,)."""
    sample_rate_hz: int = SAMPLE_RATE_HZ

    @property
    def duration_s(self) -> float:
        """Return the duration in seconds."""
        return len(self.samples) / self.sample_rate_hz

    def as_float(self) -> NDArray[np.float32]:
        """Return the samples scaled to -1..1."""
        return self.samples.astype(np.float32) / 32768.0

    def with_float(self, samples: NDArray[np.floating]) -> Audio:
        """Return audio of equal sample rate with new samples in -1..1; values beyond this range are clipped."""
        scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767)
        return Audio(scaled.astype(np.int16), self.sample_rate_hz)
