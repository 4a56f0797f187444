"""Cheap features of sampled signals: sound, pictures, series and bytes as arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from circinus.profiling.profile import FloatArray

_WINDOWS, _WINDOW = 32, 512
_BANDS = 5
_FLOOR = 1e-12


def signal_features(array: np.ndarray[Any, Any]) -> dict[str, float]:
    """What a numeric array of at least one element is like, from at most 32 windows of 512 elements each.

    Levels of windows (their quiet, middle and loud ones: in speech the noise, and how far the voice stands above it),
    how often the signal crosses its mean, and how its power is spread over octaves. NaN counts as 0; infinite and
    huge values are cut off.

    Args:
        array: of any shape, of bool, integers, floats or complex numbers (whose size counts).
    """
    windows = _windows(array)
    mean = float(windows.mean())
    windows = windows - windows.mean(axis=1, keepdims=True)
    levels = np.log(np.sqrt((windows**2).mean(axis=1)) + _FLOOR)
    quiet, middle, loud = (float(np.quantile(levels, share)) for share in (0.1, 0.5, 0.9))
    crossings = (windows[:, 1:] * windows[:, :-1] < 0).mean() if windows.shape[1] > 1 else 0.0
    found = {
        "mean": math.copysign(math.log1p(abs(mean)), mean),
        "quiet": quiet,
        "middle": middle,
        "loud": loud,
        "contrast": loud - quiet,
        "crossings": float(crossings),
    }
    if windows.shape[1] >= 2 ** (_BANDS + 1):
        found.update({f"octave_{band}": share for band, share in enumerate(_octaves(windows))})
    return found


def byte_features(data: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, float]:
    """Length, mean and entropy of bytes: compressed ones are told from text and from zeros."""
    if not len(data):
        return {"length": 0.0, "mean": 0.0, "entropy": 0.0}
    part = _windows(data).astype(np.uint8).reshape(-1)
    shares = np.bincount(part, minlength=256) / len(part)
    entropy = -math.fsum(share * math.log2(share) for share in shares.tolist() if share > 0)
    return {"length": math.log1p(len(data)), "mean": float(part.mean()), "entropy": entropy}


def _windows(array: np.ndarray[Any, Any]) -> FloatArray:
    """(windows, elements) spread evenly over the array; all of it where it is short."""
    flat = array.reshape(-1)
    if len(flat) > _WINDOWS * _WINDOW:
        begins = np.linspace(0, len(flat) - _WINDOW, _WINDOWS).astype(np.int64)
        part = flat[begins[:, None] + np.arange(_WINDOW)]
    elif len(flat) >= 2 * _WINDOW:
        part = flat[: len(flat) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    else:
        part = flat[None]
    if part.dtype.kind == "c":
        part = np.abs(part)
    finite: FloatArray = np.nan_to_num(part.astype(np.float64), nan=0.0, posinf=1e100, neginf=-1e100)
    return np.clip(finite, -1e100, 1e100)


def _octaves(windows: FloatArray) -> list[float]:
    """Logarithm of the power in each octave from the highest down, over that of all; the mean of all windows."""
    largest = max(float(np.abs(windows).max()), _FLOOR)
    power = np.abs(np.fft.rfft(windows / largest * np.hanning(windows.shape[1]), axis=1)[:, 1:]) ** 2
    whole, end = power.mean(axis=1), power.shape[1]
    shares = []
    for _ in range(_BANDS):
        octave = power[:, end // 2 : end].mean(axis=1)
        shares.append(float(np.log((octave + _FLOOR) / (whole + _FLOOR)).mean()))
        end //= 2
    return shares
