"""When a configuration needs no more items, and why."""

from __future__ import annotations

import re

import pytest
from sample_application import accuracy_query

from circinus.profiling.bounded import Bounded
from circinus.profiling.objectives import DEFAULT_RISK, Objectives
from circinus.profiling.percentile_items import LEAST_ITEMS
from circinus.spec import AccuracySlo, Query, Slos


def _bounds(lower: float, upper: float) -> Bounded:
    return Bounded((lower + upper) / 2, lower, upper)


def test_those_of_the_queries_on_the_pipeline() -> None:
    careful = accuracy_query(0.9).model_copy(update={"risk": 0.01})
    other = accuracy_query(0.5, pipeline="other").model_copy(update={"risk": 0.001})
    found = Objectives.of([careful, accuracy_query(0.7), other, accuracy_query(0.7)], "sample")
    assert [slo.threshold for slo in found.thresholds] == [0.9, 0.7]
    assert found.risk == 0.01
    assert not found.optional


def test_without_queries_accuracy_is_optional() -> None:
    found = Objectives.of([], "sample")
    assert (found.thresholds, found.optional, found.risk) == ((), True, DEFAULT_RISK)
    free = Query(name="free", pipeline="sample", source="here", rate_per_s=1.0)
    assert Objectives.of([free, accuracy_query(0.9)], "sample").optional


@pytest.mark.parametrize(
    ("lower", "upper", "items", "settled", "why"),
    [
        (0.6, 0.8, 100, False, "may or may not be >= 0.7"),
        (0.8, 0.95, 100, False, "may or may not be >= 0.9"),
        (0.5, 0.95, 8, False, r"\[0.500, 0.950\] may or may not be >= 0.9, >= 0.7"),
        (0.2, 0.6, 8, True, "not good enough for any query"),
        (0.75, 0.85, LEAST_ITEMS - 1, False, "latency"),
        (0.75, 0.85, LEAST_ITEMS, True, "decided"),
        (0.95, 1.0, LEAST_ITEMS, True, "decided"),
    ],
)
def test_settled_with_a_reason(lower: float, upper: float, items: int, settled: bool, why: str) -> None:
    objectives = Objectives.of([accuracy_query(0.9), accuracy_query(0.7)], "sample")
    found, reason = objectives.settled(_bounds(lower, upper), items)
    assert found is settled
    assert re.search(why, reason)


def test_where_less_is_better() -> None:
    slos = Slos(accuracy=AccuracySlo(threshold=0.2, comparison="<="))
    query = Query(name="errors", pipeline="sample", source="here", rate_per_s=1.0, slos=slos)
    objectives = Objectives.of([query], "sample")
    assert objectives.settled(_bounds(0.3, 0.5), 8) == (True, "its accuracy is not good enough for any query")
    assert objectives.undecided(_bounds(0.1, 0.3)) == (slos.accuracy,)
    assert objectives.settled(_bounds(0.05, 0.15), LEAST_ITEMS)[0]
