"""Cheap features of a pipeline's inputs, by which items that declare no strata are told apart."""

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


PLAIN = "plain"
"""What `DatasetSpec.features` says for `plain_features`."""
NONE = "none"
"""What it says for no features, and so no strata found."""

_MOST_CHARACTERS = 1 << 14
_MOST_ELEMENTS = 16
_DEPTH = 2


def item_features(items: Sequence[Item], uses: str, module_paths: Sequence[Path], where: str) -> FloatArray:
    """Tell items apart by their values, neither by truths nor by scores.

    Args:
        items: N of them.
        uses: the field `features` of the data set.
        module_paths: where its code is looked for.
        where: what messages call the data set.

    Returns:
        (N, features) finite numbers; no column where nothing is asked for or known.

    Raises:
        OperatorError: the function is not found or fails.
        ProfileError: it gives something else than equally many finite numbers for every item.
    """
    if uses == NONE:
        return np.zeros((len(items), 0))
    if uses == PLAIN:
        return _aligned([default_features(item.value) for item in items])
    function = resolve(uses, module_paths)
    rows = [_declared(function, item, f"features {uses} of {where}: item {item.key}") for item in items]
    for item, row in zip(items, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ProfileError(
                f"features {uses} of {where}: item {item.key}: found {len(row)} numbers, expected "
                f"{len(rows[0])} as for item {items[0].key}"
            )
    return np.array(rows, dtype=np.float64)


def _declared(function: Callable[[Any], Any], item: Item, where: str) -> FloatArray:
    try:
        found = function(item.value)
    except Exception as error:  # whatever the user's function raises
        raise OperatorError(f"{where}: it failed with {type(error).__name__}: {error}") from error
    try:
        row = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProfileError(f"{where}: found {_brief(found)}, expected a sequence of numbers") from error
    if row.ndim != 1 or not len(row):
        raise ProfileError(f"{where}: found {_brief(found)}, expected a sequence of at least one number")
    if not np.isfinite(row).all():
        raise ProfileError(f"{where}: found {row[~np.isfinite(row)][0]} at index {np.argmin(np.isfinite(row))}, "
                           "expected finite numbers")  # fmt: skip
    return row


def _brief(found: Any) -> str:
    text = repr(found)
    return f"{type(found).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def default_features(value: Any) -> dict[str, float]:
    """Finite numbers that say how large a value is and what it is like, by name.

    For arrays (sound and pictures as arrays), texts, bytes, numbers, and dataclasses, mappings, lists and tuples of
    these: fields by their names, elements on average. Deep inside only the kind and length are told, of anything
    else only the kind. Of long values a fixed part is looked at, so that the cost hardly grows with their size.
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
    """Logarithmic beyond 1, so that outliers do not drown the others."""
    try:
        number = float(abs(value) if isinstance(value, np.complexfloating) else value)
    except OverflowError:  # an int beyond the range of floats
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return 0.0
    return math.copysign(math.log1p(min(abs(number), 1e300)), number)


def _text(text: str) -> dict[str, float]:
    part = text[:_MOST_CHARACTERS]
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
    found = {"fields": 1.0, "fields/count": math.log1p(len(value))}
    if depth:
        for name in list(value)[:_MOST_ELEMENTS]:
            found.update(_within(str(name), _features(value[name], depth - 1)))
    return found


def _sequence(value: Sequence[Any], depth: int) -> dict[str, float]:
    found = {"elements": 1.0, "elements/count": math.log1p(len(value))}
    if not depth or not value:
        return found
    if all(isinstance(element, int | float | np.number) for element in value):
        numbers = np.array([_number(element) for element in value])
        return {**found, **_within("elements", signal_features(numbers))}
    chosen = np.unique(np.linspace(0, len(value) - 1, min(len(value), _MOST_ELEMENTS)).astype(int))
    gathered: dict[str, list[float]] = {}
    for index in chosen:
        for name, feature in _features(value[index], depth - 1).items():
            gathered.setdefault(f"elements/{name}", []).append(feature)
    return {**found, **{name: math.fsum(features) / len(features) for name, features in gathered.items()}}


def _within(name: str, features: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{inner}": feature for inner, feature in features.items()}


def _aligned(rows: Sequence[Mapping[str, float]]) -> FloatArray:
    """(N, features): by name, so that values of different shapes go together.

    What an item has no feature of it does not have (a kind: 0), or is like the others in (the mean).
    """
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, math.nan) for name in names] for row in rows]).reshape(len(rows), len(names))
    present = np.isfinite(table)
    means = np.where(present, table, 0.0).sum(axis=0) / np.maximum(1, present.sum(axis=0))
    kinds = np.array([all(row.get(name, 1.0) == 1.0 for row in rows) for name in names], dtype=bool)
    filled: FloatArray = np.where(present, table, np.where(kinds, 0.0, means))
    return filled
