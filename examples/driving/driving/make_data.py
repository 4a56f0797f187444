"""Generator of the data set: run `python -m driving.make_data`.

It draws vehicles that approach a traffic camera, with number plates, in different weather. The text uses Pillow's
built-in font, so every run with the same version of Pillow makes the same pixels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from driving.camera import BLUR_PX, WEATHER, jpeg, take
from driving.clip import Clip, Truth
from driving.scene import draw, plate_image, road
from driving.traffic import FRAMES, TRAFFIC, truth, vehicles

FOLDER = Path(__file__).resolve().parents[1] / "data"
PER_STRATUM = 7
SEED = 73

_SOURCES = ("camera.py", "clip.py", "make_data.py", "scene.py", "traffic.py")


@dataclass(frozen=True)
class Recording:
    """Clip of the data set, with its ground truth."""

    key: str
    clip: Clip
    truth: Truth
    strata: dict[str, str]


def data_folder() -> Path:
    """Return the folder of this version of the data, named by a hash of the code that generates it."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return FOLDER / digest.hexdigest()[:12]


def ensure_data() -> Path:
    """Return the data folder. If it is missing, make it first, which takes some seconds."""
    folder = data_folder()
    if not folder.exists():
        write(folder)
    return folder


def recordings() -> Iterator[Recording]:
    """Yield all clips. The strata alternate, so that every prefix of the data set is balanced."""
    strata = list(product(WEATHER, TRAFFIC, BLUR_PX))
    for index in range(PER_STRATUM * len(strata)):
        weather, traffic, focus = strata[index % len(strata)]
        rng = np.random.default_rng((SEED, index))
        seen = vehicles(traffic, rng)
        background = road(rng)
        plates = {vehicle.plate: plate_image(vehicle, rng) for vehicle in seen}
        drawings = (draw(background, seen, plates, frame) for frame in range(FRAMES))
        frames = tuple(jpeg(take(*drawing, weather, BLUR_PX[focus], rng)) for drawing in drawings)
        yield Recording(
            key=f"clip-{index:03d}",
            clip=Clip(frames),
            truth=truth(seen),
            strata={"weather": weather.name, "traffic": traffic.name, "focus": focus},
        )


def write(folder: Path) -> None:
    """Write the data set into `folder` atomically, unless another process has made the folder meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        described = []
        for recording in recordings():
            for frame, content in enumerate(recording.clip.frames):
                (unfinished / f"{recording.key}-{frame}.jpg").write_bytes(content)
            described.append({"key": recording.key, "truth": asdict(recording.truth), "strata": recording.strata})
        (unfinished / "clips.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    print(ensure_data())
