"""Make the data set: `python -m meeting.make_data`.

Known sentences are spoken by espeak-ng in several voices, then put into rooms and noise. The same bytes come out every
time, on condition that a fresh process makes them: espeak-ng carries the phase of its voice from one sentence to the
next. That is why `ensure_data` starts one.
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

# No voice with breath in it: espeak-ng makes that from memory it never set, so that no two runs are alike.
_VOICES = ("en-us+f1", "en+f1", "en-us+Annie", "en-us+caleb", "en-us+m1", "en", "en-us+robert")
_ROOM_DECAY_S = {"dry": 0.0, "room": 0.2}
_NOISES = ("hiss", "babble", "fan")
_SNR_DB = (30, 22, 16)
_SOURCES = ("make_data.py", "acoustics.py", "sentences.py", "speech.py")


@dataclass(frozen=True)
class Condition:
    """One stratum of the data set."""

    room: str
    noise: str
    snr_db: int | None
    """None: no noise."""

    def strata(self) -> dict[str, str]:
        """As the strata of an item."""
        level = "clean" if self.snr_db is None else f"{self.snr_db}dB"
        return {"room": self.room, "noise": self.noise, "level": level}


CONDITIONS = tuple(
    Condition(room, noise, snr_db)
    for room in _ROOM_DECAY_S
    for noise, snr_db in [("none", None), *product(_NOISES, _SNR_DB)]
)


@dataclass(frozen=True)
class Recording:
    """One spoken sentence as it lies in the data folder."""

    key: str
    text: str
    strata: dict[str, str]
    start: int
    """Index of its first sample."""
    count: int
    """Number of samples."""


def data_folder() -> Path:
    """Where this version of the data lies: its name is a hash of the code that makes it."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return FOLDER / digest.hexdigest()[:12]


def ensure_data() -> Path:
    """The data folder, made first if it is missing; seconds.

    Raises:
        RuntimeError: making it failed; the message holds what the process printed.
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
    """All samples one after the other, and what they are; only the first `limit` recordings where given.

    The strata take turns, so that any beginning of the data is balanced.
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
    """Write the data set into `folder` at once or not at all; a folder made meanwhile by another process stays."""
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
    """Speech at an ordinary level with silence around it, in its room and noise, as 16-bit samples."""
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
    floor_db = 60.0  # no microphone is silent
    sound = acoustics.add_noise(sound, noise, speech_power, floor_db if condition.snr_db is None else condition.snr_db)
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)


if __name__ == "__main__":
    write(data_folder())
    print(data_folder())
