"""What rooms and machines do to speech: reverberation and noise at a given level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meeting.audio import SAMPLE_RATE_HZ

Samples = NDArray[np.float64]


def reverberate(speech: Samples, decay_s: float, rng: np.random.Generator) -> Samples:
    """`speech` as heard in a room, of the same length and power.

    The room is a direct path followed, 5 ms later, by noise that falls by 60 dB within `decay_s`, which is how dense
    reflections behave (Schroeder 1965); its power is a sixth of that of the direct path.
    """
    count = int(decay_s * SAMPLE_RATE_HZ)
    gap = int(0.005 * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(count) * 10.0 ** (-3.0 * np.arange(count) / count)
    tail *= np.sqrt(1 / 6 / np.sum(tail**2))
    response = np.concatenate([[1.0], np.zeros(gap), tail])
    size = len(speech) + len(response) - 1
    heard: Samples = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(response, size), size)[: len(speech)]
    return heard * float(np.sqrt(power(speech) / power(heard)))


def hiss(count: int, rng: np.random.Generator) -> Samples:
    """Noise of a microphone and its amplifier: equal power in every octave above 100 Hz."""
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.maximum(hz, 100.0))
    noise: Samples = np.fft.irfft(spectrum, count)
    return noise


def fan(count: int, rng: np.random.Generator) -> Samples:
    """A ventilator: a hum with its harmonics, and a rush of air that falls off above 500 Hz."""
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    base_hz = rng.uniform(95.0, 125.0)
    hum = np.zeros(count)
    for harmonic in range(1, 7):
        hum += np.sin(2 * np.pi * (harmonic * base_hz * time_s + rng.uniform())) / harmonic
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    rush = np.fft.irfft(spectrum / np.sqrt(1.0 + (hz / 500.0) ** 2), count)
    noise: Samples = hum / np.sqrt(power(hum)) + 2.0 * rush / np.sqrt(power(rush))
    return noise


def babble(count: int, voices: Sequence[Samples], rng: np.random.Generator, talkers: int = 5) -> Samples:
    """Several people talking at once in the background."""
    mixed = np.zeros(count)
    for _ in range(talkers):
        voice = voices[int(rng.integers(len(voices)))]
        voice = np.resize(voice / np.sqrt(power(voice)), count + len(voice))
        start = rng.integers(len(voice) - count)
        mixed += voice[start : start + count]
    return mixed


def add_noise(sound: Samples, noise: Samples, speech_power: float, snr_db: float) -> Samples:
    """`sound` with `noise` scaled so that speech stands `snr_db` above it."""
    return sound + noise * float(np.sqrt(speech_power / 10.0 ** (snr_db / 10.0) / power(noise)))


def power(samples: Samples) -> float:
    """Mean square."""
    return float(np.mean(samples**2))
