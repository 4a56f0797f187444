"""Operators of the meeting example, executed on real audio."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from meeting.audio import Audio
from meeting.dataset import meetings
from meeting.keywords import Notes
from meeting.metric import word_accuracy
from meeting.operators import Denoise, SpeechToText, VoiceActivity
from meeting.voice_activity import spread

from circinus.operators import Item, Operator, operator_of

SILENCE = Audio(np.zeros(16_000, dtype=np.int16))
NOTHING = Audio(np.zeros(0, dtype=np.int16))
METHODS = pytest.mark.parametrize("method", ["webrtc", pytest.param("silero", marks=pytest.mark.models)])


def _clean_items() -> list[Item]:
    return [item for item in meetings() if item.strata["level"] == "clean" and item.strata["room"] == "dry"]


def _create(kind: type, knobs: Mapping[str, str | int], cpus: float = 1.0) -> Operator:
    return operator_of(kind).create(knobs, cpus)


@pytest.mark.parametrize(("kind", "knob"), [(Denoise, "method"), (VoiceActivity, "method"), (SpeechToText, "model")])
def test_unknown_choices_are_refused(kind: type, knob: str) -> None:
    with pytest.raises(ValueError, match=f"{knob} must be one of .*, got 'loud'"):
        _create(kind, {knob: "loud"})


def test_noise_is_reduced_and_length_kept() -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(32_000) / 16_000
    tone = np.where((time_s > 0.8) & (time_s < 1.2), 0.3 * np.sin(2 * np.pi * 440 * time_s), 0.0)
    noisy = SILENCE.with_float(tone + 0.02 * rng.standard_normal(len(tone)))
    parts = {"pause": slice(0, 8_000), "tone": slice(14_000, 18_000)}
    reduce_noise = _create(Denoise, {"method": "noisereduce"})
    (reduced, empty) = reduce_noise.process([noisy, NOTHING])
    assert len(reduced.samples) == len(noisy.samples)
    assert len(empty.samples) == 0
    remaining = {
        name: np.std(reduced.as_float()[part]) / np.std(noisy.as_float()[part]) for name, part in parts.items()
    }
    assert remaining["pause"] < 0.5
    assert remaining["tone"] > 1.4 * remaining["pause"]  # 3 dB more of the tone than of the noise
    repeated = reduce_noise.process([noisy])[0]
    assert np.array_equal(repeated.samples, reduced.samples)
    assert _create(Denoise, {"method": "none"}).process([noisy])[0] is noisy


@METHODS
def test_silence_is_cut_away_and_speech_kept(method: str) -> None:
    detect = _create(VoiceActivity, {"method": method})
    spoken = _clean_items()[0].value
    pause = np.zeros(32_000, dtype=np.int16)
    framed = Audio(np.concatenate([pause, spoken.samples, pause]))
    (cut, silent, nothing) = detect.process([framed, SILENCE, NOTHING])
    assert 0.5 * spoken.duration_s < cut.duration_s < spoken.duration_s + 1.0
    assert len(silent.samples) == 0
    assert len(nothing.samples) == 0
    energy_ratio = float(np.sum(cut.as_float() ** 2) / np.sum(spoken.as_float() ** 2))
    assert energy_ratio > 0.95


@METHODS
def test_detectors_forget_what_they_heard(method: str) -> None:
    detect = _create(VoiceActivity, {"method": method})
    first, second = (item.value for item in meetings()[:2])
    separate = detect.process([first])[0]
    second_in_batch = detect.process([second, first])[1]
    assert np.array_equal(separate.samples, second_in_batch.samples)


def test_margins_are_spread_around_speech() -> None:
    speech = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1], dtype=bool)
    assert spread(speech, 1).tolist() == [False, False, True, True, True, False, False, True, True]
    assert spread(speech, 0).tolist() == speech.tolist()
    assert spread(speech[:0], 3).tolist() == []
    assert spread(np.array([True]), 5).tolist() == [True]


@pytest.mark.models
@pytest.mark.parametrize(
    ("knobs", "min_accuracy"),
    [
        ({"model": "pocketsphinx-fast"}, 0.05),
        ({"model": "pocketsphinx-full"}, 0.1),
        ({"model": "whisper-tiny", "beam": 1}, 0.8),
        ({"model": "whisper-tiny", "beam": 5}, 0.8),
        ({"model": "whisper-base", "beam": 1}, 0.8),
        ({"model": "whisper-base", "beam": 5}, 0.85),
    ],
)
def test_speech_is_understood_in_any_order(knobs: Mapping[str, str | int], min_accuracy: float) -> None:
    items = _clean_items()[:3]
    recognize = _create(SpeechToText, knobs)
    texts = recognize.process([item.value for item in items])
    backwards = [recognize.process([item.value])[0] for item in reversed(items)]
    assert texts == backwards[::-1]
    scores = [word_accuracy(Notes(text, ()), item.truth) for text, item in zip(texts, items, strict=True)]
    assert np.mean(scores) >= min_accuracy
    assert recognize.process([NOTHING, Audio(SILENCE.samples[:100])]) == ["", ""]


@pytest.mark.models
def test_long_speech_is_heard_to_its_end() -> None:
    items = _clean_items()
    long = Audio(np.concatenate([item.value.samples for item in items] * 2))
    assert long.duration_s > 30
    (text,) = _create(SpeechToText, {"model": "whisper-tiny", "beam": 1}).process([long])
    truth = " ".join([item.truth for item in items] * 2)
    assert word_accuracy(Notes(text, ()), truth) > 0.7


@pytest.mark.models
def test_nothing_is_repeated_without_end() -> None:
    noise = SILENCE.with_float(0.05 * np.random.default_rng(3).standard_normal(48_000))
    (text,) = _create(SpeechToText, {"model": "whisper-tiny", "beam": 1}).process([noise])
    assert len(text.split()) <= 34


def test_sound_travels_as_what_it_is() -> None:
    audio = meetings()[0].value
    sent = pickle.dumps(audio, protocol=5)
    assert len(sent) < 2 * len(audio.samples) + 500
    assert np.array_equal(pickle.loads(sent).samples, audio.samples)
    clipped = audio.with_float(np.array([-2.0, 0.0, 2.0]))
    assert clipped.samples.tolist() == [-32768, 0, 32767]
