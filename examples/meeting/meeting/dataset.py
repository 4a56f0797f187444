"""Data set of sentences spoken under controlled conditions, with their text as ground truth."""

from __future__ import annotations

import json
import re
import wave
from pathlib import Path

import numpy as np

from circinus.operators import Item
from meeting.audio import Audio
from meeting.make_data import ensure_data

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Folder of the five recorded sentences (BSD-2-Clause) in Debian's package `pocketsphinx-testdata`."""


def meetings(recorded: bool = False) -> list[Item]:
    """Return the 120 spoken sentences.

    Args:
        recorded: whether to add the recorded sentences of Debian's package `pocketsphinx-testdata`.

    Raises:
        FileNotFoundError: `recorded` is set and the package is not installed.
    """
    folder = ensure_data()
    samples = np.load(folder / "samples.npy")
    recordings = json.loads((folder / "recordings.json").read_text(encoding="utf-8"))
    spoken = [
        Item(
            key=recording["key"],
            value=Audio(samples[recording["start"] : recording["start"] + recording["count"]].copy()),
            truth=recording["text"],
            strata=recording["strata"],
        )
        for recording in recordings
    ]
    return spoken + _recorded() if recorded else spoken


def _recorded() -> list[Item]:
    transcription = LIBRIVOX / "transcription"
    if not transcription.exists():
        raise FileNotFoundError(
            f"recorded sentences are missing: {transcription} does not exist. "
            "Install Debian's package pocketsphinx-testdata, or omit the argument `recorded`."
        )
    items = []
    for line in transcription.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"<s> (?P<text>.*) </s> \((?P<name>\S+)\)", line.strip())
        if match is None:
            continue
        with wave.open(str(LIBRIVOX / f"{match['name']}.wav"), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16)
            audio = Audio(samples, file.getframerate())
        items.append(Item(key=match["name"], value=audio, truth=match["text"], strata={"source": "librivox"}))
    return items
