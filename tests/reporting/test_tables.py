"""Names of metrics in tables and texts."""

from __future__ import annotations

import pytest
from printed import printed

from circinus.reporting.tables import FirstFitting, MetricNames, OneLine, bar, stacked_bar
from circinus.specification.formatting import with_metric


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency p95 <= 1s, accuracy >= 0.9", "latency p95 <= 1s, f1 >= 0.9"),
        ("accuracy <= 0.1 instead of 0.05", "f1 <= 0.1 instead of 0.05"),
        ("accuracy 0.812 (at least 0.8) < 0.9", "f1 0.812 (at least 0.8) < 0.9"),
        ("guaranteed error 0.3 (measured 0.2) > 0.25", "guaranteed f1 0.3 (measured 0.2) > 0.25"),
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


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0), (1e-6, 1), (0.31, 4), (1.0, 10), (1.7, 10)])
def test_a_bar_shows_whatever_is_used(share: float, filled: int) -> None:
    assert bar(share) == "█" * filled + "░" * (10 - filled)


def test_parts_of_a_bar_add_up() -> None:
    assert stacked_bar("─░█", (1.0, 1.0, 2.0), 4.0) == "─" * 5 + "░" * 5 + "█" * 10
    assert stacked_bar("─░█", (0.0, 0.0, 0.0), 0.0) == ""


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("phone → office-server: 2+2", 30, "phone → office-server: 2+2"),
        ("phone → office-server: 2+2", 20, "phone → offi…er: 2+2"),
        ("phone → office-server: 2+2", 9, "phon… 2+2"),
        ("relative error 0.0324", 17, "re…e error 0.0324"),
        ("cost <= $0.05/h", 14, "c…t <= $0.05/h"),
    ],
)
def test_what_does_not_fit_is_shortened_in_the_middle(text: str, width: int, shown: str) -> None:
    assert printed(OneLine(text), width=width).rstrip() == shown
    fitting = printed(FirstFitting(OneLine(text, whole=True), "short"), width=width)
    assert fitting.rstrip() == (text if shown == text else "short")
