"""Features of a pipeline's inputs, cheap to compute, for stratifying items that declare no strata."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item, resolve

_WINDOWS, _WINDOW = 32, 512
_BANDS = 5
_FLOOR = 1e-12


def signal_features(array: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return features of a numeric array of at least one element, from at most 32 windows of 512 elements.

    The features are quantiles of the windows' levels (in speech: the noise, and how far the voice stands above it), the
    rate of mean crossings, and the distribution of power over octaves. NaN counts as 0; infinite and huge values are
    clipped.

    Args:
        array: array of any shape, of bool, integer, float or complex type (complex numbers count by magnitude).
    """
    windows = _windows(array)
    mean = float(windows.mean())
    windows = windows - windows.mean(axis=1, keepdims=True)
    levels = np.log(np.sqrt((windows**2).mean(axis=1)) + _FLOOR)
    quiet, median, loud = (float(np.quantile(levels, share)) for share in (0.1, 0.5, 0.9))
    crossings = (windows[:, 1:] * windows[:, :-1] < 0).mean() if windows.shape[1] > 1 else 0.0
    features = {
        "mean": math.copysign(math.log1p(abs(mean)), mean),
        "quiet": quiet,
        "middle": median,
        "loud": loud,
        "contrast": loud - quiet,
        "crossings": float(crossings),
    }
    if windows.shape[1] >= 2 ** (_BANDS + 1):
        features.update({f"octave_{band}": share for band, share in enumerate(_octaves(windows))})
    return features


def byte_features(data: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, float]:
    """Return length, mean and entropy of bytes, which separate compressed data, text and zeros."""
    if not len(data):
        return {"length": 0.0, "mean": 0.0, "entropy": 0.0}
    part = _windows(data).astype(np.uint8).reshape(-1)
    shares = np.bincount(part, minlength=256) / len(part)
    entropy = -math.fsum(share * math.log2(share) for share in shares.tolist() if share > 0)
    return {"length": math.log1p(len(data)), "mean": float(part.mean()), "entropy": entropy}


def _windows(array: np.ndarray[Any, Any]) -> FloatArray:
    """Return (windows, elements) spread evenly over the array, or the whole array if it is short."""
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
    """Return the log power of each octave relative to the total, from the highest down, averaged over windows."""
    largest = max(float(np.abs(windows).max()), _FLOOR)
    power = np.abs(np.fft.rfft(windows / largest * np.hanning(windows.shape[1]), axis=1)[:, 1:]) ** 2
    total, end = power.mean(axis=1), power.shape[1]
    shares = []
    for _ in range(_BANDS):
        octave = power[:, end // 2 : end].mean(axis=1)
        shares.append(float(np.log((octave + _FLOOR) / (total + _FLOOR)).mean()))
        end //= 2
    return shares


PLAIN = "plain"
"""Value of `DatasetSpec.features` for `default_features`."""
NONE = "none"
"""Value of `DatasetSpec.features` for no features, and so no derived strata."""

_MAX_CHARACTERS = 1 << 14
_MAX_ELEMENTS = 16
_DEPTH = 2


def item_features(items: Sequence[Item], uses: str, module_paths: Sequence[Path], dataset: str) -> FloatArray:
    """Return features of the values of items; neither ground truth nor scores are used.

    Args:
        items: N items.
        uses: field `features` of the data set.
        module_paths: folders of the user's code.
        dataset: name of the data set in messages.

    Returns:
        (N, features) finite numbers; no column if no features are requested or available.

    Raises:
        OperatorError: the function cannot be found or fails.
        ProfileError: the function returns no fixed number of finite numbers.
    """
    if uses == NONE:
        return np.zeros((len(items), 0))
    if uses == PLAIN:
        return _aligned([default_features(item.value) for item in items])
    function = resolve(uses, module_paths)
    rows = [_declared(function, item, f"{dataset}: features {uses}: item {item.key}") for item in items]
    for item, row in zip(items, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ProfileError(
                f"found {len(row)} features, expected {len(rows[0])} as for item {items[0].key}",
                code="dataset.inconsistent_features",
                location=f"{dataset}: features {uses}: item {item.key}",
            )
    return np.array(rows, dtype=np.float64)


def _declared(function: Callable[[Any], Any], item: Item, location: str) -> FloatArray:
    try:
        result = function(item.value)
    except Exception as error:  # the user's function may raise anything
        raise OperatorError(
            f"failed with {type(error).__name__}: {error}", code="dataset.features_failed", location=location
        ) from error
    try:
        row = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _invalid_features(f"found {_brief(result)}, expected a sequence of numbers", location) from error
    if row.ndim != 1 or not len(row):
        raise _invalid_features(f"found {_brief(result)}, expected a sequence of at least one number", location)
    if not np.isfinite(row).all():
        index = int(np.argmin(np.isfinite(row)))
        raise _invalid_features(f"found {row[index]} at index {index}, expected finite numbers", location)
    return row


def _invalid_features(message: str, location: str) -> ProfileError:
    return ProfileError(message, code="dataset.invalid_features", location=location)


def _brief(result: Any) -> str:
    text = repr(result)
    return f"{type(result).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def default_features(value: Any) -> dict[str, float]:
    """Return finite numbers that describe the size and content of a value, by name.

    Supported are arrays (including sound and pictures), texts, bytes, numbers, and dataclasses, mappings, lists and
    tuples of these: fields by their names, elements by their average. Deep nesting levels contribute kind and length
    only, other types their kind only. Only a fixed part of a long value is read, so that the cost hardly grows with its
    size.
    """
    return _features(value, _DEPTH)


def _features(value: Any, depth: int) -> dict[str, float]:
    if value is None:
        return {"nothing": 1.0}
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return {"number": 1.0, "number/value": _number(value)}
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": 1.0, **_within("bytes", byte_features(np.frombuffer(value, dtype=np.uint8)))}
    if isinstance(value, np.ndarray):
        return _array(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _mapping(value, depth)
    if isinstance(value, list | tuple):
        return _sequence(value, depth)
    return {type(value).__name__: 1.0}


def _number(value: Any) -> float:
    """Return the number, logarithmic beyond 1 so that outliers do not dominate."""
    try:
        number = float(abs(value) if isinstance(value, np.complexfloating) else value)
    except OverflowError:  # an int beyond the range of floats
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return 0.0
    return math.copysign(math.log1p(min(abs(number), 1e300)), number)


def _text(text: str) -> dict[str, float]:
    part = text[:_MAX_CHARACTERS]
    length, words = max(1, len(part)), part.split()
    return {
        "text": 1.0,
        "text/characters": math.log1p(len(text)),
        "text/words": math.log1p(len(words)),
        "text/word_characters": len(part) / max(1, len(words)) if words else 0.0,
        "text/distinct_words": len(set(words)) / max(1, len(words)),
        "text/letters": sum(map(str.isalpha, part)) / length,
        "text/capitals": sum(map(str.isupper, part)) / length,
        "text/digits": sum(map(str.isdigit, part)) / length,
        "text/foreign": sum(character > "\x7f" for character in part) / length,
        "text/lines": math.log1p(part.count("\n")),
    }


def _array(array: np.ndarray[Any, Any]) -> dict[str, float]:
    sizes = {"array": 1.0, "array/axes": float(array.ndim), "array/size": math.log1p(array.size)}
    if array.dtype.kind not in "biufc" or not array.size:
        return sizes
    lengths = {f"array/axis_{axis}": math.log1p(length) for axis, length in enumerate(array.shape[:4])}
    return {**sizes, **lengths, **_within("array", signal_features(array))}


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, float]:
    features = {"fields": 1.0, "fields/count": math.log1p(len(value))}
    if depth:
        for name in list(value)[:_MAX_ELEMENTS]:
            features.update(_within(str(name), _features(value[name], depth - 1)))
    return features


def _sequence(value: Sequence[Any], depth: int) -> dict[str, float]:
    features = {"elements": 1.0, "elements/count": math.log1p(len(value))}
    if not depth or not value:
        return features
    if all(isinstance(element, int | float | np.number) for element in value):
        numbers = np.array([_number(element) for element in value])
        return {**features, **_within("elements", signal_features(numbers))}
    indexes = np.unique(np.linspace(0, len(value) - 1, min(len(value), _MAX_ELEMENTS)).astype(int))
    gathered: dict[str, list[float]] = {}
    for index in indexes:
        for name, feature in _features(value[index], depth - 1).items():
            gathered.setdefault(f"elements/{name}", []).append(feature)
    return {**features, **{name: math.fsum(values) / len(values) for name, values in gathered.items()}}


def _within(name: str, features: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{inner}": feature for inner, feature in features.items()}


def _aligned(rows: Sequence[Mapping[str, float]]) -> FloatArray:
    """Return (N, features) aligned by name, so that values of different shapes can be compared.

    A missing feature is 0 if it is a kind, and otherwise the mean of the other items.
    """
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, math.nan) for name in names] for row in rows]).reshape(len(rows), len(names))
    present = np.isfinite(table)
    means = np.where(present, table, 0.0).sum(axis=0) / np.maximum(1, present.sum(axis=0))
    kinds = np.array([all(row.get(name, 1.0) == 1.0 for row in rows) for name in names], dtype=bool)
    filled: FloatArray = np.where(present, table, np.where(kinds, 0.0, means))
    return filled
