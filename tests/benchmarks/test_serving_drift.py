"""Drift benchmark: detection according to the events of a controller, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.control.drift import (
    ANSWERS,
    DATA,
    TIMES,
    TRUTHS,
    Change,
    Watched,
    detection_row,
    drift_figures,
    noticed,
    spans,
)
from benchmarks.control.drift_false_alarms import DAY_S, QuietRun, quiet_figures, quiet_run
from benchmarks.workloads.code_reader import NOISY, QUIET, Read, digits_right, pictures, smooth

from circinus.control.state_store import Event, EventKind
from circinus.serving.loadtest.open_loop import RequestOutcome

CHANGE = Change(DATA, 30.0, 100.0, (ANSWERS,))
MOVED = {"since_s": 0.0, "now": 0.7, "before": 0.9, "values": 40}


def _replan(time_s: float, changed: tuple[str, ...], why: str = "drift") -> Event:
    return Event(time_s, EventKind.REPLAN, "plans", f"at {time_s:g}", {"why": why, "changed": changed, "stopped": ()})


def test_what_was_noticed_first_counts_and_only_plans_that_differ_do() -> None:
    events = [
        Event(-1.0, EventKind.APPLIED, "engine", "in force"),
        Event(20.0, EventKind.DRIFT, "accuracy of a", "early", MOVED),
        Event(40.0, EventKind.DRIFT, "late requests of a", "late", MOVED),
        Event(45.0, EventKind.DRIFT, "accuracy of b", "first", MOVED),
        Event(50.0, EventKind.DRIFT, "accuracy of a", "second", {**MOVED, "values": 50}),
        _replan(52.0, ("a",), why="nodes"),
        Event(53.0, EventKind.APPLIED, "engine", "in force"),
        _replan(55.0, ()),
        _replan(60.0, ("a", "b")),
        Event(61.0, EventKind.APPLIED, "engine", "in force"),
        Event(71.0, EventKind.APPLIED, "engine", "in force"),
    ]
    found = noticed(events, CHANGE)
    assert (found.noticed_s, found.values, found.reason, found.early) == (15.0, 40, "first", 1)
    assert found.in_force_s == 31.0
    assert found.plans == ["at 55", "at 60"]
    assert spans(CHANGE, found.in_force_s) == {"before": (0.0, 30.0), "between": (30.0, 63.0), "after": (63.0, 100.0)}


def test_where_nothing_was_noticed_all_is_until_other_plans() -> None:
    found = noticed([Event(50.0, EventKind.DRIFT, "codes/read on edge", "slow", MOVED)], CHANGE)
    assert (found.noticed_s, found.in_force_s, found.early) == (None, None, 0)
    assert spans(CHANGE, None) == {"before": (0.0, 30.0), "between": (30.0, 100.0)}
    slower = noticed(
        [Event(50.0, EventKind.DRIFT, "codes/read on edge", "slow", MOVED)], Change(TIMES, 30.0, 90.0, (ANSWERS,))
    )
    assert slower.noticed_s == 20.0


def test_failures_count_also_in_spans_too_short_for_a_goodput() -> None:
    assert "between" not in spans(CHANGE, 0.5)
    answers = [RequestOutcome("a", "key", due_s, error="gone") for due_s in (10.0, 30.5, 50.0)]
    assert detection_row(
        Watched(ANSWERS, answers, [_replan(30.2, ("a",)), Event(30.5, EventKind.APPLIED, "engine", "")]), CHANGE
    ) == {
        "part": "drift",
        "what": DATA,
        "way": ANSWERS,
        "noticed_s": None,
        "values": None,
        "in_force_s": 0.5,
        "reason": "",
        "plans": ["at 30.2"],
        "early": 0,
        "watched_s": 70.0,
        "failed": 3,
        "events": ["30.2 s replan plans: at 30.2", "30.5 s applied engine: "],
    }


def test_figures_are_medians_and_what_was_never_noticed_took_as_long_as_was_watched() -> None:
    def row(way: str, noticed_s: float | None, goodput: float) -> dict[str, Any]:
        span = {"goodput": goodput, "failed": 1, "requests": 10}
        after = {} if noticed_s is None else {"after": span, "after unwatched": {**span, "goodput": 0.0}}
        return {
            "what": DATA,
            "way": way,
            "noticed_s": noticed_s,
            "in_force_s": noticed_s,
            "values": 7,
            "early": 0,
            "watched_s": 110.0,
            "failed": 2,
            "before": span,
            "before unwatched": span,
            **after,
        }

    rows = [row(TRUTHS, 10.0, 1.0), row(TRUTHS, 30.0, 0.5), row(TRUTHS, None, 0.25), row(ANSWERS, None, 0.0)]
    values = {figure.name: figure.value for figure in drift_figures(rows)}
    assert values[f"{DATA}, {TRUTHS}: until noticed"] == 30.0
    assert values[f"{DATA}, {ANSWERS}: until noticed"] == 110.0
    assert values[f"{DATA}, {TRUTHS}: goodput before"] == 0.5
    assert values[f"{DATA}, {TRUTHS}: goodput after"] == 0.75
    assert values[f"{DATA}, {TRUTHS}: goodput after, where nobody looks"] == 0.0
    assert values["requests that failed while plans followed what moved"] == 8.0


@pytest.mark.parametrize("noise", [QUIET, NOISY])
def test_codes_are_read_the_better_the_larger_the_model_and_the_clearer_the_picture(
    noise: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.workloads.code_reader.time.sleep", lambda seconds: None)
    items = pictures(150, noise)
    assert pictures(150, noise)[3].truth == items[3].truth
    right = {}
    for model in ("small", "medium", "large"):
        read = Read(model=model)
        for passes in (0, 1):
            smoothed = [smooth(item.value, passes=passes) for item in items]
            seen = read.process(smoothed)
            scores = [digits_right(one, item.truth) for one, item in zip(seen, items, strict=True)]
            right[model, passes] = float(np.mean(scores))
    assert right["small", 0] < right["medium", 0] < right["large", 0]
    assert right["small", 0] < right["small", 1]
    assert (right["small", 0] > 0.9) == (noise == QUIET)
    assert right["large", 0] > 0.98


def test_false_alarms_are_counted_over_what_is_promised() -> None:
    runs = [QuietRun(DAY_S, 60.0, 5.0, seed, 8, ["a"] * seed) for seed in range(3)]
    runs.append(QuietRun(1_000.0, 5.0, 0.5, 0, 8, ["a", "b"]))
    simulated = {"hours": 4.0, "requests": 10, "alarms": ["c"], "replans": 0, "wall_s": 1.0}
    daily, often, controller = quiet_figures(runs, simulated)
    assert daily.value == pytest.approx(3 / 15)
    assert often.value == pytest.approx(2 / 43.2)
    assert controller.value == 6.0
    assert (daily.met, controller.met) == (True, False)


def test_quiet_runs_are_the_same_again_and_quiet() -> None:
    first = quiet_run(DAY_S, 60.0, 0.2, seed=3)
    assert first == quiet_run(DAY_S, 60.0, 0.2, seed=3)
    assert (first.watches, first.alarms) == (8, [])
