"""Observations in the store, and what traffic is held against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circinus.errors import ProfileError
from circinus.profiling import (
    Machine,
    ServiceTimeObservation,
    delete_observations,
    load_observations,
    save_observations,
)
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import KnobValues
from raised import raises_code

SEEN = ServiceTimeObservation(
    at="2025-06-01T00:00:00.000+00:00",
    mode="real",
    plan="fingerprint",
    pipeline="p",
    operator="op",
    uses="m:op",
    version="v",
    knobs=KnobValues.of({"size": 2, "name": "a", "fast": True, "share": 0.1}),
    hardware_class="edge",
    speed=1 / 3,
    profiled_on=Machine("CPU", 4),
    cpus=0.5,
    batch_size=4,
    log_ratio=-0.1,
    standard_error=0.02,
    requests=100,
    items=16,
)


def test_observations_come_back_as_they_were_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    ProfileStore(path, create=True).close()
    assert load_observations(path) == ()
    unknown = replace(SEEN, profiled_on=None, knobs=KnobValues(), mode="replay")
    save_observations(path, [SEEN, unknown])
    save_observations(path, [SEEN])
    assert load_observations(path) == (SEEN, unknown, SEEN)


@pytest.mark.parametrize(
    ("selection", "deleted"),
    [
        ({}, "abcd"),
        ({"pipeline": "p"}, "ac"),
        ({"operator": "other"}, "cd"),
        ({"hardware_class": "edge"}, "abc"),
        ({"pipeline": "p", "operator": "other"}, "c"),
        ({"pipeline": "' OR 1 --"}, ""),
    ],
)
def test_what_is_selected_is_deleted_and_the_rest_stays(
    tmp_path: Path, selection: dict[str, str], deleted: str
) -> None:
    path = tmp_path / "profiles.sqlite"
    ProfileStore(path, create=True).close()
    seen = {
        "a": SEEN,
        "b": replace(SEEN, pipeline="q"),
        "c": replace(SEEN, operator="other"),
        "d": replace(SEEN, pipeline="q", operator="other", hardware_class="cloud"),
    }
    save_observations(path, list(seen.values()))
    assert load_observations(path, **selection) == tuple(seen[name] for name in deleted)
    assert delete_observations(path, **selection) == tuple(seen[name] for name in deleted)
    assert load_observations(path) == tuple(seen[name] for name in seen if name not in deleted)


def test_all_are_kept_or_none(tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    ProfileStore(path, create=True).close()
    with pytest.raises(ProfileError):
        save_observations(path, [SEEN, replace(SEEN, log_ratio=np.nan)])  # NaN is NULL to SQLite
    assert load_observations(path) == ()


def test_no_store_is_made_for_them(tmp_path: Path) -> None:
    with raises_code(ProfileError, "store.missing"):
        save_observations(tmp_path / "none.sqlite", [SEEN])
    assert not (tmp_path / "none.sqlite").exists()
