"""Data set of drawn clips, with the plates of their vehicles as ground truth."""

from __future__ import annotations

import json

from circinus.operators import Item
from driving.clip import Clip, Truth
from driving.make_data import ensure_data
from driving.traffic import FRAMES


def clips() -> list[Item]:
    """Return the 168 clips."""
    folder = ensure_data()
    items = []
    for clip in json.loads((folder / "clips.json").read_text(encoding="utf-8")):
        frames = tuple((folder / f"{clip['key']}-{frame}.jpg").read_bytes() for frame in range(FRAMES))
        truth = Truth(**{name: tuple(plates) for name, plates in clip["truth"].items()})
        items.append(Item(key=clip["key"], value=Clip(frames), truth=truth, strata=clip["strata"]))
    return items
