"""Speech synthesis with espeak-ng, from the package `espeakng-loader`.

espeak-ng (GPL-3.0) is only a tool that makes the data set. It is not part of the pipeline.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meeting.audio import SAMPLE_RATE_HZ

# Constants of espeak-ng's public header speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_PARAMETER_RANGE = 4
_OK = 0

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """Voice and speaking style."""

    name: str
    """Language and variant, such as `en-us+f3`."""
    words_per_minute: int
    pitch: int
    """Pitch from 0 to 100."""


class Speaker:
    """Speech synthesizer. espeak-ng has global state, so create only one per process."""

    def __init__(self) -> None:
        """Start the library; raise RuntimeError if it fails."""
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._rate_hz = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self._rate_hz <= 0:
            raise RuntimeError(f"espeak-ng did not start with its data in {data.decode()}")
        self._chunks: list[NDArray[np.int16]] = []
        self._callback = _Callback(self._receive)  # a reference is kept because the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: Voice) -> NDArray[np.float64]:
        """Return `text` as samples in -1..1 at 16 kHz, shape (n,), without silence at either end.

        Raises:
            ValueError: the voice does not exist.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != _OK:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        self._library.espeak_SetParameter(_PARAMETER_RATE, voice.words_per_minute, 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
        self._library.espeak_SetParameter(_PARAMETER_RANGE, 60, 0)
        self._chunks.clear()
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        spoken = np.concatenate(self._chunks).astype(np.float64) / 32768.0
        return resample(_without_silence(spoken), self._rate_hz, SAMPLE_RATE_HZ)

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0


def resample(samples: NDArray[np.float64], from_hz: int, to_hz: int) -> NDArray[np.float64]:
    """Change the sample rate by truncating the spectrum, which also removes frequencies above the new Nyquist limit."""
    count = round(len(samples) * to_hz / from_hz)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.fft.irfft(spectrum, n=count) * (count / len(samples))


def _without_silence(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    loud = np.flatnonzero(np.abs(samples) > 0.003)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples
