"""Comparison of profiles with the quiet ones right before and after."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.noise.profiles import Times, compared


def profile(elapsed_s: float, service_s: float, *, is_disturbed: bool = False) -> Times:
    return {"operator": (np.full(4, elapsed_s), np.full(4, service_s), is_disturbed)}


@pytest.mark.parametrize(("last_s", "error", "is_comparable"), [(1.05, 0.2, True), (1.4, 0.025, False)])
def test_truth_is_the_mean_of_quiet_profiles_that_agree(last_s: float, error: float, is_comparable: bool) -> None:
    profiles = [profile(9.0, 1.0), profile(2.1, 1.23, is_disturbed=True), profile(9.0, last_s)]
    found = compared("operator", "mean", 4, 0, profiles)
    assert found.error == pytest.approx(error)
    assert found.before == pytest.approx(2.1 / (1 + last_s) * 2 - 1)
    assert (found.noise, found.is_comparable) == (pytest.approx(last_s - 1), is_comparable)
    assert not found.is_sure
