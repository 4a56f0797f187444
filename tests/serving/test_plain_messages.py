"""Messages between the local engine and its replicas, there and back."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.local.plain_messages import batch_of, plain_batch, plain_result, result_of
from circinus.serving.replicas.messages import Batch, BatchResult, WorkItem, WorkResult

SECONDS = st.floats(0.0, 1e9)
COUNTS = st.integers(0, 1000)
ITEMS = st.lists(st.builds(WorkItem, st.text(), COUNTS, st.one_of(st.none(), COUNTS, st.text())), max_size=4)
RESULTS = st.lists(st.builds(WorkResult, st.text(), SECONDS, SECONDS, SECONDS, st.booleans()), max_size=4)


@given(st.builds(Batch, SECONDS, ITEMS.map(tuple)))
def test_batches_come_back_as_they_were(batch: Batch) -> None:
    found = batch_of(plain_batch(batch))
    assert found == batch
    assert all(type(item) is WorkItem for item in found.items)


@given(st.builds(BatchResult, SECONDS, RESULTS, COUNTS))
def test_results_come_back_as_they_were(result: BatchResult) -> None:
    found = result_of(plain_result(result))
    assert found == result
    assert all(type(its_result) is WorkResult for its_result in found.results)


def test_no_type_is_named_on_the_way() -> None:
    batch = Batch(1.0, (WorkItem("item", 1, None),))
    result = BatchResult(2.0, [WorkResult("", 1.0, 1.0, 5.0, has_payload=True)], 3)
    for message, plain in ((batch, plain_batch(batch)), (result, plain_result(result))):
        assert b"circinus" in pickle.dumps(message)
        assert b"circinus" not in pickle.dumps(plain)
