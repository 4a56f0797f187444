"""Encoding of messages between the local engine and its replicas."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.local.replica_executor import decode_batch, decode_result, encode_batch, encode_result
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult

SECONDS = st.floats(0.0, 1e9)
COUNTS = st.integers(0, 1000)
ITEMS = st.lists(st.builds(BatchItem, st.text(), COUNTS, st.one_of(st.none(), COUNTS, st.text())), max_size=4)
RESULTS = st.lists(st.builds(ItemResult, st.text(), SECONDS, SECONDS, SECONDS, st.booleans()), max_size=4)


@given(st.builds(Batch, SECONDS, ITEMS.map(tuple)))
def test_batches_come_back_as_they_were(batch: Batch) -> None:
    found = decode_batch(encode_batch(batch))
    assert found == batch
    assert all(type(item) is BatchItem for item in found.items)


@given(st.builds(BatchResult, SECONDS, RESULTS, COUNTS))
def test_results_come_back_as_they_were(result: BatchResult) -> None:
    found = decode_result(encode_result(result))
    assert found == result
    assert all(type(its_result) is ItemResult for its_result in found.results)


def test_no_type_is_named_on_the_way() -> None:
    batch = Batch(1.0, (BatchItem("item", 1, None),))
    result = BatchResult(2.0, [ItemResult("", 1.0, 1.0, 5.0, has_payload=True)], 3)
    for message, plain in ((batch, encode_batch(batch)), (result, encode_result(result))):
        assert b"circinus" in pickle.dumps(message)
        assert b"circinus" not in pickle.dumps(plain)
