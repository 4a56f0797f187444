"""Drawn traffic clips: reproducible, balanced, and with ground truth that matches the frames."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from driving import dataset, make_data
from driving.camera import WEATHER, Weather, take
from driving.scene import draw, plate_image, road
from driving.traffic import FRAMES, HEIGHT, TRAFFIC, WIDTH, Traffic, Vehicle, truth, vehicles
from PIL import Image

from budget import share_of

VEHICLE = Vehicle("AB12CDE", lane=1, distance=1.2, speed=0.0, tone=90, is_van=False, tilt_deg=0.0, dirt=0.0)


@pytest.mark.thorough
def test_clips_are_drawn_alike_on_every_run_and_as_they_lie_on_disk() -> None:
    items, count = dataset.clips(), share_of(9)
    for first, second, item in zip(
        islice(make_data.recordings(), count), islice(make_data.recordings(), count), items[:count], strict=True
    ):
        assert first == second
        assert (first.key, first.clip, first.truth, first.strata) == (item.key, item.value, item.truth, item.strata)


def test_items_are_168_with_unique_keys_and_strata_that_take_turns() -> None:
    items = dataset.clips()
    assert len(items) == len({item.key for item in items}) == 168
    strata = [tuple(item.strata.values()) for item in items]
    assert set(Counter(strata).values()) == {make_data.PER_STRATUM}
    assert len(set(strata[:24])) == len(WEATHER) * len(TRAFFIC) * 2 == 24
    assert sum(path.stat().st_size for path in make_data.ensure_data().iterdir()) < 16e6
    for item in items[:24]:
        assert len(item.value.frames) == FRAMES
        with Image.open(io.BytesIO(item.value.frames[0])) as frame:
            assert (frame.size, frame.mode) == ((WIDTH, HEIGHT), "L")


def test_numbers_of_vehicles_have_a_heavy_tail() -> None:
    counts = [len(item.truth.readable) + len(item.truth.others) for item in dataset.clips()]
    assert counts.count(0) >= 10
    assert max(counts) > 3 * np.mean(counts)


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.name)
def test_vehicles_follow_their_traffic(traffic: Traffic) -> None:
    for seed in range(20):
        seen = vehicles(traffic, np.random.default_rng(seed))
        assert traffic.vehicles[0] <= len(seen) <= traffic.vehicles[1]
        assert len({vehicle.plate for vehicle in seen}) == len(seen)
        for lane in range(3):
            distances = [vehicle.distance for vehicle in seen if vehicle.lane == lane]
            assert all(gap >= traffic.gap[0] for gap in np.diff(distances))


@pytest.mark.parametrize(
    ("vehicle", "is_readable"),
    [
        (VEHICLE, True),
        (replace(VEHICLE, distance=1.9), False),
        (replace(VEHICLE, distance=1.9, speed=0.1), True),
        (replace(VEHICLE, distance=0.9), False),
        (replace(VEHICLE, distance=0.9, speed=0.1), False),
    ],
)
def test_plates_are_readable_where_they_are_large_and_within_the_frame(vehicle: Vehicle, is_readable: bool) -> None:
    expected = ((vehicle.plate,), ()) if is_readable else ((), (vehicle.plate,))
    assert (truth([vehicle]).readable, truth([vehicle]).others) == expected


def test_covered_plates_are_not_readable() -> None:
    covered = replace(VEHICLE, plate="ZZ99ZZZ", distance=VEHICLE.distance + 0.1)
    assert truth([VEHICLE, covered]).readable == (VEHICLE.plate,)
    assert truth([VEHICLE, replace(covered, lane=2)]).others == ()


def test_plates_lie_where_the_truth_has_them() -> None:
    rng = np.random.default_rng(1)
    background = road(rng)
    frame, lights = draw(background, [VEHICLE], {VEHICLE.plate: plate_image(VEHICLE, rng)}, 0)
    box = VEHICLE.plate_box(0)
    area = tuple(round(side) for side in (box.left, box.top, box.right, box.bottom))
    plate = np.asarray(frame.crop(area), dtype=float)
    assert plate.mean() > 150
    assert plate.min() < 60
    assert np.asarray(lights.crop(area)).min() > 0
    changed = np.asarray(frame) != np.asarray(background)
    assert not changed[:, : round(VEHICLE.body(0).left) - 8].any()


def test_weather_does_to_a_frame_what_it_says() -> None:
    rng = np.random.default_rng(2)
    drawing = draw(road(rng), [VEHICLE], {VEHICLE.plate: plate_image(VEHICLE, rng)}, 0)

    def taken(weather: Weather, blur_px: float = 0.0) -> np.ndarray:
        return take(*drawing, weather, blur_px, np.random.default_rng(3)).astype(float)

    plain = taken(Weather("plain", noise=0.0))
    assert np.array_equal(plain, np.asarray(drawing[0]))
    assert np.std(taken(Weather("noisy", noise=8.0)) - plain) == pytest.approx(8.0, rel=0.2)
    assert taken(Weather("dark", noise=0.0, brightness=0.3)).mean() < 0.5 * plain.mean()
    assert taken(Weather("fog", noise=0.0, fog=1.0))[:100].std() < 0.3 * plain[:100].std()
    assert 0.0 < (taken(Weather("rain", noise=0.0, drops=50)) != plain).mean() < 0.05
    assert np.abs(np.diff(taken(Weather("plain", noise=0.0), 1.5))).max() < np.abs(np.diff(plain)).max()


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(islice(make_data.recordings(), 1))

    def broken() -> object:
        yield from whole
        raise KeyboardInterrupt

    monkeypatch.setattr(make_data, "recordings", broken)
    with pytest.raises(KeyboardInterrupt):
        make_data.write(tmp_path / "data" / "version")
    assert list((tmp_path / "data").iterdir()) == []
