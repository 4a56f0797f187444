"""Figures of plan changes under load."""

from __future__ import annotations

import math

import pytest
from benchmarks.serving.plan_changes import Change, change_figures

NAN = math.nan


def test_what_a_change_takes_is_held_against_starting_the_same_alone() -> None:
    found = [
        Change("a", deployed=True, asked=10, failed=0, switched_s=0.05, alone_s=NAN),
        *(Change("a", False, 10, 1, 4.0 + late_s, 4.0) for late_s in (0.5, 0.8, 3.0)),
    ]
    failed, there, started, beyond = change_figures(found, ["a"])
    assert (failed.value, failed.note, failed.met) == (3.0, "of 40", False)
    assert (there.value, there.met) == (0.05, True)
    assert (started.value, started.aim) == (4.8, None)
    assert beyond.value == pytest.approx(0.8)
    assert beyond.met
    assert "4.000 s alone" in beyond.note


def test_a_route_that_was_never_seen_in_force_meets_no_aim() -> None:
    found = [Change("a", True, 10, 0, 0.01, NAN), Change("a", True, 10, 0, NAN, NAN), Change("a", False, 10, 0, NAN, 4)]
    _, there, started, beyond = change_figures(found, ["a"])
    assert all(math.isnan(figure.value) for figure in (there, started, beyond))
    assert there.met is False
    assert beyond.met is False
