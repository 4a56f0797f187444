"""Short form of a profile: a line for each configuration that plans may use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from printed import printed

from circinus.profiling import (
    ConfigurationProfile,
    ConfigurationVerdict,
    FailedConfiguration,
    OperatorProfile,
    PipelineProfile,
    Verdict,
)
from circinus.profiling.hardware.machine import Machine
from circinus.reporting.profile_frontier import ProfileFrontier
from circinus.specification import Configuration, KnobValues
from circinus.statistics.interval import Interval

LIMITS = (0.6, 0.75, 0.9)


def _measured(size: int, style: str, accuracy: Interval, service_s: float) -> ConfigurationProfile:
    knobs = {"split": {"mode": "dashes"}, "lookup": {"size": size}, "join": {"style": style, "mode": "short"}}
    configuration = Configuration.of({name: KnobValues.of(values) for name, values in knobs.items()})
    operators = {
        name: OperatorProfile(name, configuration, np.full(8, service_s / 3), np.ones(8), 1e6, 0.1, {(1.0, 1): 1.0})
        for name in knobs
    }
    items = np.arange(8)
    return ConfigurationProfile(configuration, items, np.full(8, accuracy.value), accuracy, np.ones(8), operators)


MEASURED = {
    _measured(40, "plain", Interval(0.532, 0.48, 0.59), 0.00401): Verdict.INFEASIBLE,
    _measured(80, "plain", Interval(0.741, 0.705, 0.772), 0.00625): Verdict.FEASIBLE,
    _measured(80, "an-unusually-long-name-of-a-style", Interval(0.741, 0.705, 0.772), 0.0067): Verdict.DOMINATED,
    _measured(120, "plain", Interval(0.962, 0.929, 0.982), 0.00702): Verdict.FEASIBLE,
    _measured(120, "an-unusually-long-name-of-a-style", Interval(0.962, 0.929, 0.982), 0.00733): Verdict.TOO_FEW_ITEMS,
    _measured(100, "title", Interval(0.99, 0.01, 1.0), 0.41): Verdict.UNDECIDED,
}
PROFILE = PipelineProfile(
    pipeline="notes",
    dataset_fingerprint="0123456789abcdef",
    dataset_items=480,
    held_out_items=96,
    hardware_class="local",
    risk=0.05,
    configurations=tuple(MEASURED),
    unmeasured=4,
    profiled_s=70.0,
    saved_s=280.0,
    failed=(FailedConfiguration(_measured(10, "plain", Interval(0, 0, 1), 1.0).configuration, None, "no memory"),),
    machine=Machine("A CPU", 2),
    verdicts={
        measured.configuration: ConfigurationVerdict(verdict, "about 160 more items would decide")
        for measured, verdict in MEASURED.items()
    },
)

AT_80 = """\
Profile of notes (bars: bounds of words right; ┊ ┿ ◉: SLOs of queries)
all of them: split mode=dashes, join mode=short
                                   words
size  style                        right   0.600  0.990      time  verdict
120   plain                        0.962   ┊   ┊   ┊━●━   7.02 ms  feasible
80    plain                        0.741   ┊  ━◉━  ┊      6.25 ms  feasible
120   an-unusually-…me-of-a-style  0.962   ┊   ┊   ┊━●━   7.33 ms  too few items
100   title                        0.990  ◂┿━━━┿━━━┿━━●▸   410 ms  undecided
7 others: 4 not measured, 1 certain to miss every SLO, 1 dominated, 1 failed;
--all lists what was measured
too few items (first of them): about 160 more items would decide
1.17 min of processing on a replica's CPUs; all words right bounds and verdicts
hold with probability 0.95 for the items of the data set (population: items)
undecided configurations: 1; profile longer to decide them
6 of 11 configurations were measured
excluded: join(mode=short,style=plain) lookup(size=10) split(mode=dashes): no
memory
"""
AT_100 = """\
Profile of notes (bars: bounds of words right; ┊ ┿ ◉: SLOs of queries)
all of them: split mode=dashes, join mode=short
                                         words
size  style                              right   0.600                0.990      time  verdict
120   plain                              0.962   ┊         ┊        ┊ ━━●━    7.02 ms  feasible
80    plain                              0.741   ┊      ━━●┿━       ┊         6.25 ms  feasible
120   an-unusually-long-name-of-a-style  0.962   ┊         ┊        ┊ ━━●━    7.33 ms  too few items
100   title                              0.990  ◂┿━━━━━━━━━┿━━━━━━━━┿━━━━━●▸   410 ms  undecided
7 others: 4 not measured, 1 certain to miss every SLO, 1 dominated, 1 failed; --all lists what was
measured
too few items (first of them): about 160 more items would decide
1.17 min of processing on a replica's CPUs; all words right bounds and verdicts hold with
probability 0.95 for the items of the data set (population: items)
undecided configurations: 1; profile longer to decide them
6 of 11 configurations were measured
excluded: join(mode=short,style=plain) lookup(size=10) split(mode=dashes): no memory
"""


@pytest.mark.parametrize(("width", "expected"), [(80, AT_80), (100, AT_100)])
def test_it_fits_the_screen(width: int, expected: str) -> None:
    text = printed(ProfileFrontier(PROFILE, "maximize", LIMITS, None, "words right"), width=width)
    assert "\n".join(line.rstrip() for line in text.splitlines()) == expected.rstrip()


@pytest.mark.parametrize("knobs", [{}, {"time": 3}])
def test_knobs_may_be_missing_or_have_the_name_of_a_column(knobs: dict[str, int]) -> None:
    configuration = Configuration.of({name: KnobValues.of(knobs) for name in ("split", "lookup", "join")})
    measured = replace(next(iter(MEASURED)), configuration=configuration)
    profile = replace(PROFILE, configurations=(measured,), verdicts={}, failed=())
    for width in (40, 100):
        text = printed(ProfileFrontier(profile, "maximize"), width=width)
        assert max(map(len, text.splitlines())) <= width
    assert text.count("4.01 ms") == 1
    assert text.count("split time") == len(knobs)


def test_more_rows_than_a_screen_has_are_counted() -> None:
    many = tuple(_measured(size, "plain", Interval(0.9, 0.8, 1.0), 0.01) for size in range(27))
    profile = replace(PROFILE, configurations=many, verdicts={}, unmeasured=0, failed=())
    shown = printed(ProfileFrontier(profile, "minimize"))
    assert shown.count("●") == 20
    assert "7 others: 7 feasible" in shown
