"""What a query's pins leave to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circinus.planning.frontier import Frontier
from circinus.profiling import PipelineProfile
from circinus.spec import Configuration, Query


def matches_pins(query: Query, configuration: Configuration) -> bool:
    """Whether a configuration has the values that the query's knobs are pinned to; a knob that it lacks has none."""
    return all((knob, value) in configuration[operator].values for operator, knob, value in query.pinned_knobs)


def pin_mask(query: Query, listed: Sequence[Configuration]) -> NDArray[np.bool_]:
    """(k,) which of k configurations have them."""
    if not query.pinned_knobs:
        return np.ones(len(listed), dtype=bool)
    return np.array([matches_pins(query, configuration) for configuration in listed], dtype=bool)


def pinned_profile(query: Query, profile: PipelineProfile) -> PipelineProfile:
    """What was measured of the configurations that the query's pins leave."""
    if not query.pinned_knobs:
        return profile
    left = tuple(found for found in profile.configurations if matches_pins(query, found.configuration))
    return replace(profile, configurations=left)


def no_profile_matches_pins(query: Query, profile: PipelineProfile) -> Frontier:
    """A frontier without candidates: no configuration that the pins leave was measured on enough items."""
    pins = " ".join(f"{operator}.{knob}={value}" for operator, knob, value in query.pinned_knobs)
    reason = (
        f"pinned to {pins}, and none of the {len(profile.usable)} configurations of pipeline {profile.pipeline} that "
        "were measured on enough items has that; measure them (circinus profile)"
    )
    return Frontier(query, (), {}, (), (), reason, measured=False)
