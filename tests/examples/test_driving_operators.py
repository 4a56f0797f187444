"""Operators of the driving example, executed separately and as a pipeline."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest
from driving.clip import Box, Candidate, Clip, Reading, Truth
from driving.dataset import clips
from driving.metric import plate_f1
from driving.operators import Detect, ReadLarge, ReadSmall, track
from driving.plate_format import in_format
from driving.read import ALPHABET, decode
from PIL import Image

from circinus.operators import Item, Operator, operator_of

_clips = cache(clips)


def _items(weather: str, traffic: str, focus: str = "sharp") -> list[Item]:
    strata = {"weather": weather, "traffic": traffic, "focus": focus}
    return [item for item in _clips() if item.strata == strata]


def _create(kind: type, **knobs: str | float) -> Operator:
    return operator_of(kind).create(knobs, 1.0)


def _blank_clip() -> Clip:
    target = io.BytesIO()
    Image.new("L", (640, 360), 128).save(target, format="JPEG")
    return Clip((target.getvalue(),) * 6)


def _readings(candidates: Sequence[Candidate], width: int = 96, threshold: float = 0.9) -> list[Reading]:
    """Return the readings of the cascade in order, as `track` gets them."""
    branches = _create(ReadSmall, width=width, threshold=threshold).process(candidates)
    unsure = [branch.value for branch in branches if branch.name == "unsure"]
    large = iter(_create(ReadLarge).process(unsure))
    return [branch.value if branch.name == "sure" else next(large) for branch in branches]


def _reading(text: str, frame: int, confidence: float = 0.8, x: float = 300.0) -> Reading:
    return Reading(frame, Box(x, 200, x + 80, 220), text, confidence)


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        (Detect, {"model": "odd", "size": 320, "stride": 1}),
        (Detect, {"model": "edges", "size": 0, "stride": 1}),
        (Detect, {"model": "edges", "size": 320, "stride": 0}),
        (ReadSmall, {"width": 0, "threshold": 0.5}),
        (ReadSmall, {"width": 128, "threshold": 1.5}),
    ],
)
def test_unknown_choices_are_refused(kind: type, knobs: Mapping[str, str | float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        _create(kind, **knobs)


@pytest.mark.parametrize("model", ["edges", pytest.param("mobile", marks=pytest.mark.models)])
def test_candidates_are_cut_out_in_order_of_their_frames(model: str) -> None:
    item = _items("clear", "busy")[0]
    detect = _create(Detect, model=model, size=320, stride=2)
    candidates, nothing = detect.process([item.value, _blank_clip()])
    assert nothing == []
    frames = [candidate.frame for candidate in candidates]
    assert frames == sorted(frames)
    assert set(frames) == {0, 2, 4}
    for candidate in candidates:
        with Image.open(io.BytesIO(item.value.frames[candidate.frame])) as image:
            box = candidate.box
            area = np.asarray(image.crop((box.left, box.top, box.right, box.bottom)), dtype=float)
        assert candidate.pixels.shape == (box.height, box.width)
        assert np.abs(area - candidate.pixels).max() <= 4  # decoders of JPEG round differently


@pytest.mark.parametrize("model", ["edges", pytest.param("small", marks=pytest.mark.models)])
def test_stride_omits_frames_and_changes_nothing_else(model: str) -> None:
    clip = _items("clear", "busy")[0].value
    every, third = (_create(Detect, model=model, size=320, stride=stride).process([clip])[0] for stride in (1, 3))
    kept = [candidate for candidate in every if candidate.frame % 3 == 0]
    assert [(c.frame, c.box) for c in kept] == [(c.frame, c.box) for c in third]
    assert len(third) < len(every)


@pytest.mark.models
@pytest.mark.parametrize("model", ["edges", "mobile", "small"])
def test_plates_are_among_the_candidates(model: str) -> None:
    item = _items("clear", "busy")[0]
    (candidates,) = _create(Detect, model=model, size=320, stride=3).process([item.value])
    texts = {in_format(reading.text) for reading in _create(ReadLarge).process(candidates)}
    assert len(set(item.truth.readable) & texts) >= len(item.truth.readable) - 1


@pytest.mark.models
def test_thresholds_send_all_some_or_none_to_the_large_model() -> None:
    (candidates,) = _create(Detect, model="edges", size=320, stride=3).process([_items("clear", "busy")[0].value])
    counts = {}
    for threshold in (0.0, 0.9, 1.0):
        branches = _create(ReadSmall, width=96, threshold=threshold).process(candidates)
        assert len(branches) == len(candidates)
        assert all(branch.value is c for branch, c in zip(branches, candidates, strict=True) if branch.name != "sure")
        assert all(branch.value.confidence >= threshold for branch in branches if branch.name == "sure")
        counts[threshold] = sum(branch.name == "unsure" for branch in branches)
    assert counts[0.0] == 0 < counts[0.9] < counts[1.0] == len(candidates)


@pytest.mark.models
def test_text_is_read_whatever_was_read_before() -> None:
    (candidates,) = _create(Detect, model="edges", size=320, stride=3).process([_items("fog", "busy")[0].value])
    read = _create(ReadLarge)
    together = read.process(candidates)
    assert [read.process([candidate])[0] for candidate in reversed(candidates)] == together[::-1]
    assert read.process([]) == []


@pytest.mark.models
def test_clips_go_through_the_cascade() -> None:
    items = [_items("clear", "light")[0], _items("clear", "busy")[0], _items("night", "busy")[0]]
    lists = _create(Detect, model="mobile", size=640, stride=2).process([item.value for item in items])
    plates = operator_of(track).create({}, 1.0).process([_readings(candidates) for candidates in lists])
    assert np.mean([plate_f1(read, item.truth) for read, item in zip(plates, items, strict=True)]) > 0.7


def test_characters_are_decoded_without_blanks_and_repetitions() -> None:
    steps = "AA-AB--1"
    probabilities = np.full((len(steps), 1 + len(ALPHABET)), 0.001, dtype=np.float32)
    for step, character in enumerate(steps):
        probabilities[step, 1 + ALPHABET.index(character) if character != "-" else 0] = 0.9 - 0.1 * (character == "B")
    text, confidence = decode(probabilities)
    assert text == "AAB1"
    assert confidence == pytest.approx(0.8)
    assert decode(probabilities[5:7]) == ("", pytest.approx(0.9))
    assert decode(np.eye(1, 37, 5, dtype=np.float32)) == ("4", 0.999)


@pytest.mark.parametrize(
    ("text", "plate"),
    [
        ("AB12CDE", "AB12CDE"),
        ("A812CDE", "AB12CDE"),
        ("ABIZCDE", "AB12CDE"),
        ("AB12C0E", "AB12CDE"),
        ("ABXXCDE", None),
        ("AB12CD", None),
        ("PARKING", None),
        ("", None),
    ],
)
def test_texts_are_brought_into_the_format_of_plates(text: str, plate: str | None) -> None:
    assert in_format(text) == plate


def test_a_vehicle_is_linked_over_frames_and_its_plate_voted_on() -> None:
    readings = [
        _reading("AB12CDE", 0, 0.5),
        _reading("AB12CDF", 1, 0.9),
        _reading("AB12CDE", 3, 0.8),
        _reading("XY34RST", 1, 0.9, x=100.0),
        _reading("PARKING", 1, 0.99, x=500.0),
    ]
    link = operator_of(track).create({}, 1.0)
    assert link.process([readings, [], readings[3:]]) == [("AB12CDE", "XY34RST"), (), ("XY34RST",)]


def test_two_vehicles_of_a_frame_are_not_linked_and_little_evidence_is_none() -> None:
    similar = [_reading("AB12CDE", 0), _reading("AB12CDF", 0, x=100.0)]
    link = operator_of(track).create({}, 1.0)
    assert link.process([similar]) == [("AB12CDE", "AB12CDF")]
    assert link.process([[_reading("AB12CDE", 0, 0.4)]]) == [()]
    assert link.process([[_reading("AB12CDE", 0, 0.4), _reading("AB12CDE", 1, 0.4)]]) == [("AB12CDE",)]


@pytest.mark.parametrize(
    ("plates", "expected"),
    [(["a", "b"], 1.0), (["a"], 2 / 3), (["a", "x"], 0.5), (["a", "b", "far"], 1.0), ([], 0.0), (["x"], 0.0)],
)
def test_plate_f1(plates: list[str], expected: float) -> None:
    assert plate_f1(tuple(plates), Truth(("a", "b"), ("far",))) == pytest.approx(expected)


def test_plate_f1_of_empty_roads() -> None:
    assert plate_f1((), Truth((), ())) == 1.0
    assert plate_f1(("far",), Truth((), ("far",))) == 1.0
    assert plate_f1(("x",), Truth((), ())) == 0.0
