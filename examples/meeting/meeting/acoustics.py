"""Simulated room acoustics: reverberation, and noise at a given level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meeting.audio import SAMPLE_RATE_HZ

Samples = NDArray[np.float64]


def reverberate(speech: Samples, decay_s: float, rng: np.random.Generator) -> Samples:
    """Return `speech` with the reverberation of a room, at unchanged length and power.

    The impulse response is a direct path and, 5 ms later, noise that decays by 60 dB within `decay_s`, a model of dense
    reflections (Schroeder 1965). The power of the reflections is a sixth of the power of the direct path.
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
    """Return noise of a microphone and its amplifier, with equal power in every octave above 100 Hz."""
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.maximum(hz, 100.0))
    noise: Samples = np.fft.irfft(spectrum, count)
    return noise


def fan(count: int, rng: np.random.Generator) -> Samples:
    """Return noise of a fan: a hum with harmonics, and a rush of air that falls off above 500 Hz."""
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
    """Return the noise of several simultaneous voices in the background."""
    mixed = np.zeros(count)
    for _ in range(talkers):
        voice = voices[int(rng.integers(len(voices)))]
        voice = np.resize(voice / np.sqrt(power(voice)), count + len(voice))
        start = rng.integers(len(voice) - count)
        mixed += voice[start : start + count]
    return mixed


def add_noise(sound: Samples, noise: Samples, speech_power: float, snr_db: float) -> Samples:
    """Return `sound` plus `noise`, scaled to a signal-to-noise ratio of `snr_db` relative to the speech."""
    return sound + noise * float(np.sqrt(speech_power / 10.0 ** (snr_db / 10.0) / power(noise)))


def power(samples: Samples) -> float:
    """Return the mean square."""
    return float(np.mean(samples**2))
