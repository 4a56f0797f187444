"""Simulated traffic of a clip: vehicles that approach the camera on parallel lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driving.clip import Box, Truth

WIDTH, HEIGHT = 640, 360
"""Size of a frame, in pixels."""
FRAMES = 6
LANES = 3
READABLE_PX = 56
"""Minimum width of a readable plate."""

LANE_PX = 190
"""Width of a lane at distance 1, the lower edge of the frame. All sizes shrink with the distance."""
_HORIZON_PX, _GROUND_PX = -60, 360
_BODY_PX = (150, 100)
_PLATE_PX = (96, 24)
_PLATE_HEIGHT_PX = 30
"""Height of the centre of a plate above the ground."""
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
"""Letters of plates: without I, O and Q, as in many countries."""


@dataclass(frozen=True)
class Traffic:
    """Density and speed of the traffic."""

    name: str
    vehicles: tuple[int, int]
    """Smallest and largest number of vehicles."""
    gap: tuple[float, float]
    """Smallest and largest distance between vehicles of a lane."""
    speed: tuple[float, float]
    """Smallest and largest distance covered from one frame to the next."""


TRAFFIC = (
    Traffic("light", vehicles=(0, 4), gap=(0.6, 1.6), speed=(0.10, 0.28)),
    Traffic("busy", vehicles=(3, 8), gap=(0.45, 0.8), speed=(0.05, 0.12)),
    Traffic("jam", vehicles=(9, 21), gap=(0.40, 0.46), speed=(0.005, 0.05)),
)


@dataclass(frozen=True)
class Vehicle:
    """Vehicle with its place at the first frame."""

    plate: str
    lane: int
    distance: float
    speed: float
    """Distance covered from one frame to the next."""
    tone: int
    """Grey tone of the body."""
    is_van: bool
    tilt_deg: float
    """Angle by which the plate is tilted."""
    dirt: float
    """Fraction of the plate that is covered by dirt."""

    def distance_at(self, frame: int) -> float:
        """Return the distance from the camera; 1 is the lower edge of the frame."""
        return self.distance - self.speed * frame

    def scale_at(self, frame: int) -> float:
        """Return the size relative to that at distance 1."""
        return 1.0 / self.distance_at(frame)

    def is_visible(self, frame: int) -> bool:
        """Return whether any part of the vehicle is within the frame and near enough to be drawn."""
        return 0.75 < self.distance_at(frame) < 3.6

    def body(self, frame: int) -> Box:
        """Return the place of the body in a frame."""
        scale = self.scale_at(frame)
        x, y = self._foot(scale)
        width, height = _BODY_PX[0], _BODY_PX[1] * (1.25 if self.is_van else 1.0)
        return Box(x - width * scale / 2, y - height * scale, x + width * scale / 2, y - 6 * scale)

    def plate_box(self, frame: int) -> Box:
        """Return the place of the plate in a frame."""
        scale = self.scale_at(frame)
        x, y = self._foot(scale)
        width, height = (side * scale / 2 for side in _PLATE_PX)
        y -= _PLATE_HEIGHT_PX * scale
        return Box(x - width, y - height, x + width, y + height)

    def _foot(self, scale: float) -> tuple[float, float]:
        offset_px = (self.lane - (LANES - 1) / 2) * LANE_PX
        return WIDTH / 2 + offset_px * scale, _HORIZON_PX + (_GROUND_PX - _HORIZON_PX) * scale


def scale_at_row(y: float) -> float:
    """Return the size of things on the road whose foot is in row `y` of a frame, relative to the lower edge."""
    return (y - _HORIZON_PX) / (_GROUND_PX - _HORIZON_PX)


def vehicles(traffic: Traffic, rng: np.random.Generator) -> list[Vehicle]:
    """Return the vehicles of a clip."""
    low, high = traffic.vehicles
    # The exponent makes large numbers rare: the number of vehicles of a clip is as skewed as on a road.
    count = low + int((high - low + 1) * rng.uniform() ** 1.5)
    lanes = rng.permutation(np.arange(count) % LANES) if count > LANES else rng.permutation(LANES)[:count]
    speeds = rng.uniform(*traffic.speed, size=LANES)
    last = 0.9 + rng.uniform(0.0, 0.3, size=LANES) + speeds * rng.uniform(0, FRAMES / 2, size=LANES)
    result = []
    for lane in sorted(int(lane) for lane in lanes):
        result.append(
            Vehicle(
                plate=_plate(rng),
                lane=lane,
                distance=float(last[lane]),
                speed=float(speeds[lane]),
                tone=int(rng.integers(40, 200)),
                is_van=bool(rng.uniform() < 0.2),
                tilt_deg=float(rng.normal(0.0, 1.5)),
                dirt=float(max(0.0, rng.normal(-0.02, 0.05))),
            )
        )
        last[lane] += rng.uniform(*traffic.gap)
    return result


def truth(seen: list[Vehicle]) -> Truth:
    """Return the plates of `seen`, separated by whether they are readable in at least one frame."""
    readable = {vehicle.plate for vehicle in seen if any(_is_readable(vehicle, seen, f) for f in range(FRAMES))}
    others = {vehicle.plate for vehicle in seen} - readable
    return Truth(tuple(sorted(readable)), tuple(sorted(others)))


def _is_readable(vehicle: Vehicle, seen: list[Vehicle], frame: int) -> bool:
    if not vehicle.is_visible(frame):
        return False
    plate = vehicle.plate_box(frame)
    if plate.width < READABLE_PX or plate.bottom > HEIGHT or plate.left < 0 or plate.right > WIDTH:
        return False
    nearer = (v for v in seen if v.is_visible(frame) and v.distance_at(frame) < vehicle.distance_at(frame))
    return not any(plate.overlaps(other.body(frame)) for other in nearer)


def _plate(rng: np.random.Generator) -> str:
    letters = rng.choice(list(_LETTERS), size=5)
    return "".join([*letters[:2], f"{rng.integers(100):02d}", *letters[2:]])
