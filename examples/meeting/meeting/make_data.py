"""Generator of the data set: run `python -m meeting.make_data`.

espeak-ng speaks the sentences in several voices; then reverberation and noise are added. Every run makes the same bytes
if it starts in a new process, because espeak-ng carries the phase of its voice from one sentence to the next.
`ensure_data` therefore starts a process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meeting import acoustics
from meeting.audio import SAMPLE_RATE_HZ
from meeting.sentences import SENTENCES
from meeting.speech import Speaker, Voice

FOLDER = Path(__file__).resolve().parents[1] / "data"
PER_STRATUM = 6
SEED = 20250

# Breathy voices are excluded: espeak-ng computes breath from uninitialised memory, so their samples differ every run.
_VOICES = ("en-us+f1", "en+f1", "en-us+Annie", "en-us+caleb", "en-us+m1", "en", "en-us+robert")
_ROOM_DECAY_S = {"dry": 0.0, "room": 0.2}
_NOISES = ("hiss", "babble", "fan")
_SNR_DB = (30, 22, 16)
_SOURCES = ("make_data.py", "acoustics.py", "sentences.py", "speech.py")


@dataclass(frozen=True)
class Condition:
    """Acoustic condition, which is a stratum of the data set."""

    room: str
    noise: str
    snr_db: int | None
    """Signal-to-noise ratio, or None without noise."""

    def strata(self) -> dict[str, str]:
        """Return the strata of an item."""
        level = "clean" if self.snr_db is None else f"{self.snr_db}dB"
        return {"room": self.room, "noise": self.noise, "level": level}


CONDITIONS = tuple(
    Condition(room, noise, snr_db)
    for room in _ROOM_DECAY_S
    for noise, snr_db in [("none", None), *product(_NOISES, _SNR_DB)]
)


@dataclass(frozen=True)
class Recording:
    """Spoken sentence in the data folder."""

    key: str
    text: str
    strata: dict[str, str]
    start: int
    """Index of the first sample."""
    count: int
    """Number of samples."""


def data_folder() -> Path:
    """Return the folder of this version of the data, named by a hash of the code that generates it."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return FOLDER / digest.hexdigest()[:12]


def ensure_data() -> Path:
    """Return the data folder. If it is missing, make it first, which takes some seconds.

    Raises:
        RuntimeError: the generator failed; the message contains its output.
    """
    folder = data_folder()
    if not folder.exists():
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        command = [sys.executable, "-m", "meeting.make_data"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"making the data set in {folder} failed:\n{done.stderr}")
    return folder


def make(limit: int | None = None) -> tuple[NDArray[np.int16], list[Recording]]:
    """Return the concatenated samples and their recordings, only the first `limit` recordings if it is given.

    The strata alternate, so that every prefix of the data set is balanced.
    """
    speaker = Speaker()
    background = [speaker.say(text, Voice(_VOICES[i], 165, 45)) for i, text in enumerate(SENTENCES[: len(_VOICES)])]
    sounds: list[NDArray[np.int16]] = []
    recordings: list[Recording] = []
    start = 0
    for index in range(min(limit or sys.maxsize, PER_STRATUM * len(CONDITIONS))):
        rng = np.random.default_rng((SEED, index))
        condition = CONDITIONS[index % len(CONDITIONS)]
        text = SENTENCES[index % len(SENTENCES)]
        voice = Voice(
            str(rng.choice(_VOICES)), words_per_minute=int(rng.integers(145, 171)), pitch=int(rng.integers(38, 56))
        )
        sound = _place(speaker.say(text, voice), condition, background, rng)
        recordings.append(Recording(f"meeting-{index:03d}", text, condition.strata(), start, len(sound)))
        sounds.append(sound)
        start += len(sound)
    return np.concatenate(sounds), recordings


def write(folder: Path) -> None:
    """Write the data set into `folder` atomically, unless another process has made the folder meanwhile."""
    samples, recordings = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        np.save(unfinished / "samples.npy", samples)
        described = json.dumps([asdict(recording) for recording in recordings], indent=1)
        (unfinished / "recordings.json").write_text(described, encoding="utf-8")
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _place(
    speech: acoustics.Samples, condition: Condition, background: list[acoustics.Samples], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return speech at a normal level between silences, with reverberation and noise, as 16-bit samples."""
    before, after = (int(seconds * SAMPLE_RATE_HZ) for seconds in rng.uniform([0.3, 0.3], [0.9, 0.7]))
    sound = np.pad(speech * (0.08 / np.sqrt(acoustics.power(speech))), (before, after))
    speech_power = 0.08**2
    if _ROOM_DECAY_S[condition.room]:
        sound = acoustics.reverberate(sound, _ROOM_DECAY_S[condition.room], rng)
    noises = {
        "none": acoustics.hiss,
        "hiss": acoustics.hiss,
        "fan": acoustics.fan,
        "babble": lambda count, rng: acoustics.babble(count, background, rng),
    }
    noise = noises[condition.noise](len(sound), rng)
    floor_db = 60.0  # even a good microphone has noise
    sound = acoustics.add_noise(sound, noise, speech_power, floor_db if condition.snr_db is None else condition.snr_db)
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)


if __name__ == "__main__":
    write(data_folder())
    print(data_folder())
