"""Taking noise out of a recording."""

from __future__ import annotations

from collections.abc import Sequence

from circinus.operators import operator
from meeting.audio import Audio

_METHODS = ("none", "noisereduce")


@operator
class Denoise:
    """Knob `method`: `none` passes the sound on; `noisereduce` gates each frequency by its own noise floor.

    Gating takes weak consonants away with the noise, so it may help a recognizer or hurt it; the profile tells.
    """

    def __init__(self, *, method: str) -> None:
        """Raises ValueError for an unknown method."""
        if method not in _METHODS:
            raise ValueError(f"method: found {method!r}, expected one of {', '.join(_METHODS)}")
        self._method = method
        if method == "noisereduce":
            from noisereduce import reduce_noise

            self._reduce_noise = reduce_noise

    def process(self, audio: Sequence[Audio]) -> list[Audio]:
        """One sound for each sound, of the same length."""
        return list(audio) if self._method == "none" else [self._reduced(one) for one in audio]

    def _reduced(self, audio: Audio) -> Audio:
        if len(audio.samples) == 0:
            return audio
        reduced = self._reduce_noise(
            y=audio.as_float(), sr=audio.sample_rate_hz, stationary=True, prop_decrease=0.7, n_fft=512
        )
        return audio.with_float(reduced)
