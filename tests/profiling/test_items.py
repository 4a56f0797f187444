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

    def loaded(body: str, seed: int = 0, features: str = "plain", **arguments: Any) -> Dataset:
        sys.modules.pop(MODULE, None)
        (tmp_path / f"{MODULE}.py").write_text(f"from circinus.operators import Item\n{body}", encoding="utf-8")
        pipeline = Pipeline(
            name="sample",
            operators=(OperatorSpec(name="only", uses=f"{MODULE}:only"),),
            metric=MetricSpec(name="right", uses=f"{MODULE}:right"),
            dataset=DatasetSpec(uses=f"{MODULE}:items", arguments=arguments, features=features),
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


def test_traffic_carries_profiled_items_where_none_is_held_out(load: Callable[..., Dataset]) -> None:
    data = load(GOOD, count=2)
    assert (data.held_out_items, data.profiling_items) == (0, data.order)
    assert data.traffic_items(100) == data.order[::-1]


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


BARE = """
import numpy as np
def items(count=80):
    rng = np.random.default_rng(0)
    return [Item(str(i), rng.normal(size=(200, 2)) * (1 + 9 * (i % 2)), i % 2) for i in range(count)]
def sign(value): return [float(value[0, 0] > 0)]
"""


def test_strata_are_found_where_none_are_declared(load: Callable[..., Dataset]) -> None:
    data = load(BARE)
    loud = [item.strata["features/2"] for item in data.items]
    assert len(set(loud[::2])) == len(set(loud[1::2])) == 1
    assert loud[0] != loud[1]
    held_out = data.order[-data.held_out_items :]
    assert sum(index % 2 for index in held_out) == len(held_out) / 2  # balanced over what was found
    assert load(BARE, seed=1).items[3].strata == data.items[3].strata


def test_declared_strata_stay_alone(load: Callable[..., Dataset]) -> None:
    one = BARE.replace(", i % 2)", ", 0, {'kind': 'first'} if i == 0 else {})")
    assert [dict(item.strata) for item in load(one).items] == [{"kind": "first"}] + [{}] * 79


def test_other_features_change_the_order_and_no_measurement(load: Callable[..., Dataset]) -> None:
    found = [load(BARE, features=features) for features in ("plain", "none", f"{MODULE}:sign")]
    assert len({data.addresses for data in found}) == 1
    assert len({data.fingerprint for data in found}) == 3
    assert all(not item.strata for item in found[1].items)
    assert set(found[2].items[0].strata) == {"features/2"}
    with pytest.raises(OperatorError, match="signs"):
        load(BARE, features=f"{MODULE}:signs")


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
