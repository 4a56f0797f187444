"""Table of a profile."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from printed import printed

from circinus.profiling import FailedConfiguration, PipelineProfile, TraceBackend, profile_pipeline
from circinus.profiling.hardware.machine import Machine
from circinus.reporting.profile_table import profile_table
from random_traces import random_trace, specification_of, trace_pipeline


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> PipelineProfile:
    pipeline = trace_pipeline(held_out=0.25)
    trace = replace(random_trace(pipeline, 40, seed=0), machine=Machine("A CPU", 8))
    specification = specification_of(pipeline)
    store = tmp_path_factory.mktemp("profile") / "store"
    return profile_pipeline(specification, pipeline.name, store, budget_s=200.0, source=TraceBackend(trace))


def test_it_says_what_is_known_how_sure_and_what_it_cost(profile: PipelineProfile) -> None:
    shown = printed(profile_table(profile, "maximize"), width=300)
    rows = [row for line in shown.splitlines() if len(row := re.split(r" {2,}", line.strip())) == 6]
    titles = 2
    assert len(rows) == titles + len(profile.configurations) + 7  # three operators with two, two and no knob values
    best = max(profile.configurations, key=lambda c: c.accuracy.value)
    assert rows[1][:2] == [str(best.configuration), str(len(best.items))]
    for found in profile.configurations:
        (row,) = (row for row in rows if row[0] == str(found.configuration))
        assert row[5].startswith(f"{profile.verdicts[found.configuration].verdict}: ")
    assert profile.undecided
    assert "profile longer to decide them" in shown
    assert "data set: 40 items, 10 of them held out; version items 40" in shown
    assert "measured on: A CPU, 8 cores" in shown
    assert "saved by shared prefixes" in shown
    assert "all accuracy bounds and verdicts hold with probability 0.95 for requests to come" in shown
    assert "warning" not in shown


def test_a_configuration_takes_at_most_three_lines_of_a_narrow_terminal(profile: PipelineProfile) -> None:
    shown = printed(profile_table(profile, "maximize"), width=80)
    items = shown[: shown.index("Operators")].split("•")[1:]
    assert len(items) == len(profile.configurations)
    assert max(len(item.splitlines()) for item in items) <= 3


def test_doubts_and_failures_are_told(profile: PipelineProfile) -> None:
    failed = tuple(FailedConfiguration(c.configuration, None, "no memory") for c in profile.configurations[:2])
    shown = printed(profile_table(replace(profile, failed=failed, machine=None), "maximize", "far"))
    assert "warning: far" in shown
    assert "measured on: not recorded" in shown
    assert f"excluded: {failed[0].configuration} and 1 more: no memory" in shown


def test_failures_are_grouped_whatever_the_operator_printed(profile: PipelineProfile) -> None:
    failed = tuple(
        FailedConfiguration(c.configuration, None, f"no memory; last output: line {number}")
        for number, c in enumerate(profile.configurations[:3])
    )
    shown = printed(profile_table(replace(profile, failed=failed), "maximize"))
    assert f"excluded: {failed[0].configuration} and 2 more: no memory; last output: line 0" in shown
    assert shown.count("excluded: ") == 1


def test_of_nothing_the_table_is_empty(profile: PipelineProfile) -> None:
    shown = printed(profile_table(replace(profile, configurations=(), verdicts={}), "minimize"))
    assert "Profile of traced" in shown
    assert "Operators" not in shown
