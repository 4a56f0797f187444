"""Loading a data set: what is refused, and what the fingerprint tells apart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item
from circinus.operators.pickling import pickle_value, pickled_bytes, unpickle_value
from circinus.profiling import Dataset, load_dataset
from circinus.specification import DatasetSpec, MetricSpec, OperatorSpec, Pipeline
from raised import raises_code

MODULE = "dataset_sample"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Dataset]]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second would share their bytecode

    def loaded(body: str, seed: int = 0, **arguments: Any) -> Dataset:
        sys.modules.pop(MODULE, None)
        (tmp_path / f"{MODULE}.py").write_text(f"from circinus.operators import Item\n{body}", encoding="utf-8")
        pipeline = Pipeline(
            name="sample",
            operators=(OperatorSpec(name="only", uses=f"{MODULE}:only"),),
            metric=MetricSpec(name="right", uses=f"{MODULE}:right"),
            dataset=DatasetSpec(uses=f"{MODULE}:items", arguments=arguments),
        )
        return load_dataset(pipeline, [tmp_path], seed=seed)

    yield loaded
    sys.modules.pop(MODULE, None)


GOOD = "def items(count=20):\n    return [Item(str(i), i * 'x', i % 3, {'kind': str(i % 2)}) for i in range(count)]\n"


def test_items_and_their_order(load: Callable[..., Dataset]) -> None:
    data = load(GOOD)
    assert data.items[3] == Item("3", "xxx", 0, {"kind": "1"})
    assert sorted(data.order) == list(range(20))
    assert data.input_bytes[3] == pickled_bytes("xxx")
    assert len(set(data.addresses)) == 20
    assert data.order != load(GOOD, seed=1).order
    assert load(GOOD, count=7).order == load(GOOD, count=7).order


def test_the_end_of_the_order_is_held_out(load: Callable[..., Dataset]) -> None:
    data = load(GOOD)
    assert (data.held_out_items, data.profiling_items) == (4, data.order[:16])
    assert data.traffic_items(3) == data.order[:-4:-1]
    assert data.traffic_items(100) == data.order[:-5:-1]  # never more than are held out
    assert data.traffic_items(0) == ()
    assert data.traffic_items() == data.order[:-5:-1]


def test_traffic_carries_profiled_items_where_none_is_held_out(load: Callable[..., Dataset]) -> None:
    data = load(GOOD, count=2)
    assert (data.held_out_items, data.profiling_items) == (0, data.order)
    assert data.traffic_items() == data.traffic_items(100) == data.order[::-1]


@pytest.mark.parametrize(
    ("change", "item_changes"),
    [
        (("i * 'x'", "i * 'y'"), True),
        (("i % 3", "i % 4"), True),
        (("str(i),", "str(i) + '.',"), True),
        (("str(i % 2)", "str(i % 4)"), False),
    ],
)
def test_content_decides_the_fingerprint(
    load: Callable[..., Dataset], change: tuple[str, str], item_changes: bool
) -> None:
    before, after = load(GOOD), load(GOOD.replace(*change))
    assert before.fingerprint != after.fingerprint
    assert (before.addresses != after.addresses) == item_changes


def test_code_does_not_decide_the_fingerprint(load: Callable[..., Dataset]) -> None:
    assert load(GOOD).fingerprint == load(GOOD + "# a remark").fingerprint


@pytest.mark.parametrize(
    ("body", "code", "value"),
    [
        ("def items(): return []", "dataset.empty", ""),
        ("def items(): return [Item('a', 1, 1), Item('b', 1, 1), Item('a', 2, 2)]", "dataset.duplicate_key", "key a"),
        ("def items(): return [('a', 1, 1)]", "dataset.not_an_item", "tuple at index 0"),
        ("def items(): return [Item(7, 1, 1)]", "dataset.invalid_key", "7 at index 0"),
        ("def items(): return [Item('a', lambda: 1, 1)]", "dataset.unpicklable_item", "item a"),
    ],
)
def test_what_cannot_be_measured_on_is_refused(load: Callable[..., Dataset], body: str, code: str, value: str) -> None:
    with raises_code(ProfileError, code) as caught:
        load(body)
    assert value in str(caught.value)
    assert "dataset_sample:items" in caught.value.location


def test_values_are_unpickled_when_they_are_read(load: Callable[..., Dataset], tmp_path: Path) -> None:
    first, second = load(
        "class Clip: pass\ndef items(): return [Item(key, Clip(), 1) for key in 'ab']\nprint('imported')"
    ).items
    assert MODULE not in sys.modules
    assert type(first.value).__name__ == "Clip"
    sys.modules.pop(MODULE)
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit(3)", encoding="utf-8")
    with raises_code(ProfileError, "dataset.unreadable_item"):
        _ = second.value


def test_a_failing_function_is_named(load: Callable[..., Dataset]) -> None:
    with raises_code(OperatorError, "dataset.failed") as caught:
        load("def items(): 1 / 0")
    assert "dataset_sample:items" in caught.value.location
    assert "ZeroDivisionError" in caught.value.message
    with pytest.raises(OperatorError, match="unexpected keyword argument 'size'"):
        load(GOOD, size=3)


def test_the_wire_size_is_that_of_the_pickle() -> None:
    assert pickled_bytes(b"x" * 1000) == len(pickle_value(b"x" * 1000))
    assert unpickle_value(pickle_value({"a": [1.5, None]})) == {"a": [1.5, None]}
