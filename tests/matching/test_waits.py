"""By how much waits grow at most."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.matching.waits import _longer_s
from circinus.queueing.formulas import Wait

WAITS = st.builds(
    lambda probability, mean_s: Wait(np.asarray(probability), np.asarray(mean_s)),
    st.floats(0.0, 1.0),
    st.floats(0.0, 10.0),
)


@given(WAITS, WAITS, st.floats(0.5, 12.0))
def test_no_draw_waits_longer_than_said_and_some_draw_does(before: Wait, now: Wait, most: float) -> None:
    draws = np.append(np.linspace(0.0, most, 4001), most)
    longer_s = now.at(draws) - before.at(draws)
    said_s = _longer_s(before, now, most)
    assert (longer_s <= said_s + 1e-9).all()
    assert said_s <= longer_s.max() + 20.0 * most / 4000 + 1e-9
