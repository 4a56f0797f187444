"""Sampled arrivals of queries, and recorded traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from circinus.errors import SpecError
from circinus.queueing.arrivals import MarkovModulatedPoisson, Periodic, Poisson
from circinus.serving.loadtest.open_loop import Arrival, poisson_arrivals, read_trace, sample_arrivals


def test_counts_and_gaps_are_those_of_a_poisson_process() -> None:
    arrivals = poisson_arrivals({"q": 20.0}, 5000.0, seed=1)
    times_s = np.array([arrival.time_s for arrival in arrivals])
    assert (np.diff(times_s) >= 0).all()
    assert (times_s >= 0).all()
    assert (times_s < 5000.0).all()
    # 100,000 expected: the bounds are 5 standard deviations wide.
    assert abs(len(times_s) - 100_000) < 5 * np.sqrt(100_000)
    gaps_s = np.diff(times_s)
    assert gaps_s.mean() == pytest.approx(1 / 20, rel=0.02)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.02)  # exponential
    counts, _ = np.histogram(times_s, bins=5000, range=(0.0, 5000.0))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.1)  # index of dispersion 1


def test_seed_fixes_arrivals_and_other_queries_do_not_change_them() -> None:
    single = poisson_arrivals({"a": 3.0}, 100.0, seed=7)
    both = poisson_arrivals({"b": 5.0, "a": 3.0}, 100.0, seed=7)
    assert single == tuple(arrival for arrival in both if arrival.query == "a")
    assert list(both) == sorted(both)
    assert single != poisson_arrivals({"a": 3.0}, 100.0, seed=8)


def test_every_query_has_a_stream_of_its_own_whatever_the_others_are() -> None:
    bursty, even = MarkovModulatedPoisson((20.0, 2.0), (1.0, 5.0)), Periodic(4.0)
    single = sample_arrivals({"bursty": bursty}, 100.0, seed=7)
    together = sample_arrivals({"even": even, "bursty": bursty, "poisson": Poisson(3.0)}, 100.0, seed=7)
    assert list(together) == sorted(together)
    assert single == tuple(arrival for arrival in together if arrival.query == "bursty")
    assert poisson_arrivals({"poisson": 3.0}, 100.0, seed=7) == tuple(a for a in together if a.query == "poisson")
    gaps_s = np.diff([arrival.time_s for arrival in together if arrival.query == "even"])
    assert gaps_s == pytest.approx(np.full(len(gaps_s), 0.25))
    twins = sample_arrivals({"one": bursty, "two": bursty}, 100.0, seed=7)
    assert [a.time_s for a in twins if a.query == "one"] != [a.time_s for a in twins if a.query == "two"]


def test_rates_scale_and_queries_are_independent() -> None:
    arrivals = poisson_arrivals({"slow": 1.0, "fast": 4.0}, 10_000.0, seed=3)
    seconds = {
        name: np.histogram([a.time_s for a in arrivals if a.query == name], bins=10_000, range=(0, 10_000))[0]
        for name in ("slow", "fast")
    }
    assert seconds["slow"].mean() == pytest.approx(1.0, rel=0.05)
    assert seconds["fast"].mean() == pytest.approx(4.0, rel=0.05)
    assert abs(np.corrcoef(seconds["slow"], seconds["fast"])[0, 1]) < 0.05


def test_trace_is_read_in_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("query,time_s,note\nb,2.5,x\na,0.5,y\n")
    assert read_trace(file, {"a", "b"}) == (Arrival(0.5, "a"), Arrival(2.5, "b"))


def test_every_faulty_row_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("time_s,query\n1,a\n-1,a\nsoon,a\n2,nobody\nnan,a\n3\n")
    with pytest.raises(SpecError) as caught:
        read_trace(file, {"a"})
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [
        (3, "time_s"),
        (4, "time_s"),
        (5, "query"),
        (6, "time_s"),
        (7, "query"),
    ]


@pytest.mark.parametrize("content", ["", "time,query\n1,a\n"])
def test_trace_without_its_columns_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(content)
    with pytest.raises(SpecError) as caught:
        read_trace(file, {"a"})
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (1, "header")
    assert "time_s and query" in fault.expected


def test_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read_trace(tmp_path / "none.csv", {"a"})
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [(0, "trace")]
