"""Profiles on few items are extended to the items of another prefix, in the ratio of both."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.source_profile import ProfileImputer
from circinus.profiling import OperatorProfile
from circinus.specification import Configuration, KnobValues
from circinus.statistics.winsorizing import winsorized_mean
from planning.sampler.spaces import chain_of, knob

PIPELINE = chain_of([knob("size", 3, ordered=True)], [knob("width", 4, ordered=True), knob("idle", 2)])
SPACE = ConfigurationSpace.of(PIPELINE)
WORK = np.random.default_rng(0).gamma(4.0, 0.25, 64)


def _own(size: int, width: int, idle: int) -> Configuration:
    first = KnobValues.of({"size": size})
    return Configuration.of({"o0": first, "o1": KnobValues.of({"width": width, "idle": idle})})


def _profile(own: Configuration, factor: float, items: int, memory: float = 1e6) -> OperatorProfile:
    return OperatorProfile("o1", own, factor * WORK[:items], 10 * factor * WORK[:items], memory, 0.1, {(1.0, 1): 1.0})


def _imputers(*profiles: OperatorProfile) -> ProfileImputer:
    return ProfileImputer.of(SPACE, PIPELINE, "o1", {profile.prefix: profile for profile in profiles})


def _code(own: Configuration) -> np.ndarray:
    return SPACE.prefix_codes([own])[0]


def test_a_few_items_give_what_all_items_take() -> None:
    short, long = _profile(_own(0, 1, 0), 3.0, 8), _profile(_own(1, 2, 1), 0.5, 64)
    found = _imputers(short, long).extend(short, _code(short.prefix), 8)
    np.testing.assert_allclose(found.service_s, 3.0 * WORK)
    np.testing.assert_allclose(found.output_bytes, 30.0 * WORK)
    assert (found.prefix, found.peak_memory_bytes) == (short.prefix, short.peak_memory_bytes)


@pytest.mark.parametrize("slow_run", ["own", "donor"])
@pytest.mark.parametrize("item", range(8))
def test_one_slow_run_makes_no_further_item_slow_or_fast(slow_run: str, item: int) -> None:
    short, long = _profile(_own(0, 1, 0), 3.0, 8), _profile(_own(1, 2, 1), 0.5, 64)
    assert _imputers(short, long).ratio_error(short, _code(short.prefix), 8) == pytest.approx(0.0, abs=1e-12)
    slow = short if slow_run == "own" else long
    slow.service_s[item] *= 100.0
    imputer = _imputers(short, long)
    extended = imputer.extend(short, _code(short.prefix), 8).service_s[8:] / (3.0 * WORK[8:])
    assert np.abs(np.log(extended)).max() < 2.0 * imputer.ratio_error(short, _code(short.prefix), 8)
    assert np.abs(np.log(extended)).max() < 0.3


def test_what_is_known_on_most_items_is_kept_as_it_is() -> None:
    short, long = _profile(_own(0, 1, 0), 3.0, 8), _profile(_own(1, 2, 1), 0.5, 64)
    assert _imputers(short, long).extend(long, _code(long.prefix), 64) is long


def test_a_guess_has_its_mean_on_the_common_items_and_the_memory_of_the_most_similar() -> None:
    similar, long = _profile(_own(0, 1, 0), 3.0, 8, memory=5e6), _profile(_own(1, 2, 1), 0.5, 64)
    guess = _imputers(similar, long).impute(_code(_own(2, 1, 0)), 2.0, 40.0)
    assert winsorized_mean(guess.service_s[:8]) == pytest.approx(2.0)
    assert guess.output_bytes[:8].mean() == pytest.approx(40.0)
    np.testing.assert_allclose(guess.service_s / guess.service_s[0], WORK / WORK[0])
    assert guess.peak_memory_bytes == similar.peak_memory_bytes
