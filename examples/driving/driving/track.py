"""Operator that links the readings of a clip over its frames, and votes on one plate per vehicle."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from circinus.operators import operator
from driving.clip import Reading
from driving.plate_format import FORMAT, in_format

_MAX_COST = 0.6
_COST_PER_WIDTH = 0.2
"""Cost of a distance of one width of the plate per frame, relative to the fraction of characters that differ."""
_MIN_EVIDENCE = 0.6
"""Minimum sum of confidences of a plate."""


@dataclass
class Track:
    """Readings of one vehicle."""

    readings: list[Reading]
    """At least one, in order of their frames."""

    def cost(self, reading: Reading) -> float:
        """Return the cost of adding `reading`: infinite unless it is of a later frame."""
        last = self.readings[-1]
        frames = reading.frame - last.frame
        if frames <= 0:
            return math.inf
        distance = math.dist(reading.box.center, last.box.center) / (reading.box.width * frames)
        differing = min(_differing(reading.text, other.text) for other in self.readings)
        return differing / len(FORMAT) + _COST_PER_WIDTH * distance

    def plate(self) -> str:
        """Return the plate: at each position the character with the largest sum of confidences."""
        return "".join(_most_confident(self.readings, position) for position in range(len(FORMAT)))

    def evidence(self) -> float:
        """Return the sum of confidences."""
        return sum(reading.confidence for reading in self.readings)


@operator
def track(readings: Sequence[Reading]) -> tuple[str, ...]:
    """Return the plates of the vehicles in a clip, sorted. Readings without the format of plates are ignored."""
    tracks: list[Track] = []
    for reading in sorted(_plates(readings), key=lambda r: (r.frame, -r.confidence)):
        costs = [vehicle.cost(reading) for vehicle in tracks]
        if min(costs, default=math.inf) <= _MAX_COST:
            tracks[costs.index(min(costs))].readings.append(reading)
        else:
            tracks.append(Track([reading]))
    return tuple(sorted({vehicle.plate() for vehicle in tracks if vehicle.evidence() >= _MIN_EVIDENCE}))


def _plates(readings: Iterable[Reading]) -> Iterator[Reading]:
    for reading in readings:
        plate = in_format(reading.text)
        if plate is not None:
            yield replace(reading, text=plate)


def _differing(first: str, second: str) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def _most_confident(readings: list[Reading], position: int) -> str:
    votes: defaultdict[str, float] = defaultdict(float)
    for reading in readings:
        votes[reading.text[position]] += reading.confidence
    return max(votes, key=lambda character: votes[character])
