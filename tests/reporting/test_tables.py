"""Names of metrics in tables and texts."""

from __future__ import annotations

import pytest

from circinus.reporting.tables import MetricNames
from circinus.specification.formatting import with_metric


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency p95 <= 1s, accuracy >= 0.9", "latency p95 <= 1s, f1 >= 0.9"),
        ("accuracy <= 0.1 instead of 0.05", "f1 <= 0.1 instead of 0.05"),
        ("accuracy 0.812 (at least 0.8) < 0.9", "f1 0.812 (at least 0.8) < 0.9"),
        ("error 0.2 is so far only guaranteed to be at most 0.3", "f1 0.2 is so far only guaranteed to be at most 0.3"),
        ("`accuracy >= 0.9` (measured accuracy 0.95)", "`accuracy >= 0.9` (measured f1 0.95)"),
        ("the accuracy SLO, no accuracy, inaccuracy 3", "the accuracy SLO, no accuracy, inaccuracy 3"),
        ("error 0.2 (at most 0.3) > 0.1", "f1 0.2 (at most 0.3) > 0.1"),
        ("standard error 0.2; error: 3, HTTP error 503", "standard error 0.2; error: 3, HTTP error 503"),
    ],
)
def test_scores_and_limits_get_the_name_of_the_metric(text: str, named: str) -> None:
    assert with_metric(text, "f1") == named
    assert with_metric(text, r"\1[x]") == named.replace("f1", r"\1[x]")


@pytest.mark.parametrize(
    "metric", ["accuracy", "a", "balanced accuracy", "word error", "accuracy at 5", "accuracy (top)"]
)
@pytest.mark.parametrize("text", ["accuracy >= 0.9, accuracy 0.8", "error 0.2 (at most 0.3) > 0.1; accuracy <= 0.1"])
def test_a_named_metric_stays(metric: str, text: str) -> None:
    named = with_metric(text, metric)
    assert named.count(metric) >= 2
    assert with_metric(named, metric) == named


def test_one_metric_is_the_title_and_several_are_named_in_the_cells() -> None:
    same = MetricNames({"a": "f1", "b": "f1", "c": "bleu"}, ["a", "b"])
    assert (same.column, same.cell("a", "0.5"), same.of("b")) == ("f1", "0.5", "f1")
    differing = MetricNames({"a": "f1", "b": "bleu"}, ["a", "b"])
    assert (differing.column, differing.cell("b", "0.5"), differing.cell("b", "")) == ("score", "bleu 0.5", "")
    unnamed = MetricNames({}, ["a"])
    assert (unnamed.column, unnamed.text("a", "accuracy >= 1")) == ("accuracy", "accuracy >= 1")
