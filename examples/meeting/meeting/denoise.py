"""Operator that removes noise from a recording."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.operators import operator
from meeting.audio import Audio

_METHODS = ("none", "noisereduce")


@operator
class Denoise:
    """Noise reduction. Knob `method`: `none` is the identity; `noisereduce` gates each frequency at its noise floor.

    Spectral gating also removes weak consonants, so it may improve or degrade recognition; profiling measures which.
    """

    def __init__(self, *, method: str) -> None:
        """Select the method; raise ValueError if it is unknown."""
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        self._method = method
        if method == "noisereduce":
            from noisereduce import reduce_noise

            self._reduce_noise = reduce_noise

    def process(self, audio: Sequence[Audio]) -> list[Audio]:
        """Return the denoised recordings, of unchanged length."""
        return list(audio) if self._method == "none" else [self._reduced(recording) for recording in audio]

    def _reduced(self, audio: Audio) -> Audio:
        if len(audio.samples) == 0:
            return audio
        reduced = self._reduce_noise(
            y=audio.as_float(), sr=audio.sample_rate_hz, stationary=True, prop_decrease=0.7, n_fft=512
        )
        return audio.with_float(reduced)
