"""Features of values: finite whatever the value, equally many for all items, and telling of what differs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item
from circinus.profiling.dataset.item_features import default_features, item_features
from raised import raises_code


@dataclass(frozen=True)
class Sound:
    samples: np.ndarray
    rate_hz: int = 16_000


def _plain(*values: Any) -> np.ndarray:
    return item_features([Item(str(i), value, None) for i, value in enumerate(values)], "plain", (), "data")


numbers = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.complex_numbers(), st.sampled_from([10**400, -(10**400)])
)
leaves = st.one_of(st.none(), numbers, st.text(max_size=30), st.binary(max_size=30))
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
arrays = st.builds(
    lambda shape, dtype, fill: np.full(shape, fill).astype(dtype),
    shapes, st.sampled_from(["i2", "u1", "f4", "f8", "c16", "?", "U3", "O"]),
    st.sampled_from([0, 1, 7]),
) | st.builds(np.full, shapes, st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-320]))  # fmt: skip
values = st.recursive(
    leaves | arrays,
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(values, min_size=1, max_size=6))
def test_whatever_the_values_features_are_finite_and_equally_many(found: list[Any]) -> None:
    features = _plain(*found)
    assert features.shape[0] == len(found)
    assert features.shape[1] > 0
    assert np.isfinite(features).all()
    assert np.array_equal(features, _plain(*found))


@pytest.mark.parametrize(
    "array",
    [
        np.full(40_000, np.nan), np.tile([np.inf, -np.inf], 30_000), np.full(5000, 1e308), np.zeros((300, 200, 3)),
        np.array(5.0), np.zeros((0, 7)), np.arange(40_000)[::-3], np.full(3, 2 + 1e200j),
        np.array([1, None], dtype=object), np.array(["2026-01-01"], dtype="datetime64[D]"),
    ],
)  # fmt: skip
def test_odd_arrays(array: np.ndarray) -> None:
    assert np.isfinite(_plain(array, np.random.default_rng(0).random(100))).all()


def _separation(one: list[Any], other: list[Any]) -> float:
    """By how many deviations within the kinds the feature that tells them best does so."""
    features = _plain(*one, *other)
    first, second = features[: len(one)], features[len(one) :]
    within = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    return float((np.abs(first.mean(axis=0) - second.mean(axis=0)) / (within + 1e-3)).max())


def _voice(rng: np.random.Generator, noise: float, filtered: bool = False) -> np.ndarray:
    time_s = np.arange(60_000) / 16_000
    voice = np.sin(2 * np.pi * rng.uniform(100, 200) * time_s) * (np.sin(2 * np.pi * rng.uniform(1, 2) * time_s) > 0)
    hiss = rng.normal(size=len(time_s))
    if filtered:
        hiss = np.convolve(hiss, np.ones(32) / np.sqrt(32), mode="same")
    loudness: float = rng.uniform(0.7, 1.4)
    sound: np.ndarray = (3000 * loudness * (voice + noise * hiss)).astype(np.int16)
    return sound


def _words(rng: np.random.Generator, letters: str) -> str:
    return " ".join("".join(rng.choice(list(letters), 6)) for _ in range(rng.integers(20, 60)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda r: Sound(_voice(r, 0.01)), lambda r: Sound(_voice(r, 0.3))),
        (lambda r: _voice(r, 0.3), lambda r: _voice(r, 0.3, filtered=True)),
        (lambda r: r.random((64, 64, 3)), lambda r: np.kron(r.random((8, 8, 3)), np.ones((8, 8, 1)))),
        (lambda r: r.random(r.integers(50, 99)), lambda r: r.random(r.integers(500, 999))),
        (lambda r: _words(r, "abcdefg"), lambda r: _words(r, "aBCdefg")),
        (lambda r: {"text": _words(r, "abc")}, lambda r: {"text": _words(r, "ab3")}),
        (lambda r: r.bytes(4000), lambda r: bytes(r.integers(97, 120, 4000, dtype=np.uint8))),
        (lambda r: r.uniform(0, 1), lambda r: r.uniform(3, 4)),
        (lambda r: [_words(r, "abc")] * 2, lambda r: [_words(r, "abc")] * 9),
        (lambda r: (1, "a"), lambda r: (1, b"a")),
        (lambda r: list(r.uniform(0, 1, 30)), lambda r: list(r.uniform(5, 6, 30))),
    ],
    ids=["noise", "spectrum", "texture", "length", "capitals", "field", "bytes", "number", "elements", "kinds", "list"],
)  # fmt: skip
def test_what_differs_is_told(one: Callable[..., Any], other: Callable[..., Any]) -> None:
    rng = np.random.default_rng(5)
    ones, others = [one(rng) for _ in range(20)], [other(rng) for _ in range(20)]
    assert _separation(ones, others) > 3
    assert _separation(ones[::2], ones[1::2]) < 3


def test_deep_values_are_told_by_their_length_alone() -> None:
    deep: list[Any] = [[["text", "other"]]]
    assert default_features(deep) == default_features([[[1.0, b"x"]]]) != default_features([[[1.0]]])


MODULE = """
def first(value): return [value, value ** 2]
def failing(value): return [1 / value]
def uneven(value): return [1.0] * (value + 1)
def words(value): return ["a"]
def nothing(value): return []
def table(value): return [[1.0]]
def single(value): return 1.0
def infinite(value): return [0.0, 1 / value if value else float("inf")]
"""


def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> np.ndarray:
    (tmp_path / "own_features.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own_features", raising=False)
    items = [Item("one", 1, None), Item("zero", 0, None)]
    return item_features(items, f"own_features:{function}", [tmp_path], "data set d of pipeline p")


def test_own_features_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _own(tmp_path, monkeypatch, "first").tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("function", "code", "item", "value"),
    [
        ("failing", "dataset.features_failed", "zero", "ZeroDivisionError"),
        ("uneven", "dataset.inconsistent_features", "zero", "found 1 features, expected 2 as for item one"),
        ("words", "dataset.invalid_features", "one", "list ['a']"),
        ("nothing", "dataset.invalid_features", "one", "list []"),
        ("table", "dataset.invalid_features", "one", "list [[1.0]]"),
        ("single", "dataset.invalid_features", "one", "float 1.0"),
        ("infinite", "dataset.invalid_features", "zero", "inf at index 1"),
    ],
)
def test_wrong_features_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: str, item: str, value: str
) -> None:
    with raises_code(OperatorError if function == "failing" else ProfileError, code) as caught:
        _own(tmp_path, monkeypatch, function)
    assert caught.value.location == f"data set d of pipeline p: features own_features:{function}: item {item}"
    assert value in caught.value.message


def test_features_that_do_not_exist_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError, match="missing"):
        _own(tmp_path, monkeypatch, "missing")


def test_none_are_asked_for() -> None:
    assert item_features([Item("a", "text", None)] * 3, "none", (), "data").shape == (3, 0)
