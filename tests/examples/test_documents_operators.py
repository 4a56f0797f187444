"""Operators of the documents example, executed separately and as a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from documents.camera import Condition, draw, take
from documents.dataset import pages
from documents.layout import find_skews, sheared
from documents.metric import character_accuracy
from documents.operators import FindLayout, Ocr, Preprocess, extract
from documents.page import Box, Document, Layout, Page, Reading, TextLine
from documents.templates import TEMPLATES

from circinus.operators import Item, operator_of

_pages = cache(pages)


def _items(condition: str, template: str | None = None) -> list[Item]:
    return [
        item
        for item in _pages()
        if item.strata["condition"] == condition and template in (None, item.strata["template"])
    ]


def _line(text: str, x: float, y: float) -> TextLine:
    return TextLine(text, x, y, height=14)


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        (Preprocess, {"method": "odd", "scale": 1.0}),
        (Preprocess, {"method": "none", "scale": 1.5}),
        (Ocr, {"size": "odd", "angle": False}),
        (FindLayout, {"resolution": "odd"}),
    ],
)
def test_unknown_choices_are_refused(kind: type, knobs: Mapping[str, str | float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        operator_of(kind).create(knobs, 1.0)


@pytest.mark.parametrize("method", ["none", "despeckle", "binarise"])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_pages_are_prepared(method: str, scale: float) -> None:
    page = _items("noisy")[0].value
    prepare = operator_of(Preprocess).create({"method": method, "scale": scale}, 1.0)
    (first, second) = prepare.process([page, page])
    assert np.array_equal(first.pixels, second.pixels)
    assert first.pixels.dtype == np.uint8
    assert first.scale == scale
    assert first.pixels.shape == tuple(round(side * scale) for side in page.pixels.shape)
    if method == "binarise" and scale == 1:
        assert set(np.unique(first.pixels)) <= {0, 255}


def test_specks_go_and_strokes_stay() -> None:
    clean = np.full((60, 60), 240, dtype=np.uint8)
    clean[20:40, 30] = 20  # a stroke
    specked = clean.copy()
    specked[5, 5], specked[50, 10], specked[30, 50] = 0, 0, 0
    (page,) = operator_of(Preprocess).create({"method": "despeckle", "scale": 1.0}, 1.0).process([Page(specked)])
    assert np.array_equal(page.pixels, clean)


@pytest.mark.parametrize("skew_deg", [-3.0, -1.0, 0.0, 2.0])
def test_skew_is_found_and_taken_out(skew_deg: float) -> None:
    rows = np.arange(200)[:, None]
    fall = np.tan(np.radians(skew_deg)) * (np.arange(300) - 150)[None, :]
    ink = (((rows - fall) % 20) < 6).astype(np.float32)[None]
    assert find_skews(ink)[0] == pytest.approx(skew_deg, abs=0.25)
    level = sheared(ink, skew_deg)[0, 20:-20]
    alike = level.mean(axis=1)[:, None].round() == level
    assert alike.mean() > 0.95  # all except the steps at the edges of the stripes


@pytest.mark.parametrize("condition", ["clean", "skewed", "noisy", "upside down"])
def test_a_fine_look_finds_table_and_stamp(condition: str) -> None:
    items = _items(condition)
    layouts = operator_of(FindLayout).create({"resolution": "fine"}, 1.0).process([item.value for item in items])
    truths = [dict(item.truth.fields) for item in items]
    assert [layout.rows for layout in layouts] == [int(truth.get("rows", 0)) for truth in truths]
    assert [layout.stamp is not None for layout in layouts] == ["stamp" in truth for truth in truths]


@pytest.mark.parametrize("resolution", ["coarse", "fine"])
def test_batches_of_pages_are_seen_as_single_ones(resolution: str) -> None:
    values = [item.value for item in _pages()[:6]]
    odd, tiny = Page(values[0].pixels[:400, :300]), Page(values[0].pixels[:30, :40])
    mixed = [values[0], odd, tiny, *values[1:]]
    look = operator_of(FindLayout).create({"resolution": resolution}, 1.0)
    assert look.process(mixed) == [look.process([page])[0] for page in mixed]


def test_a_stamp_is_where_it_was_put() -> None:
    draft = TEMPLATES["letter"](np.random.default_rng(0))
    draft.stamp = (300, 500, "PAID")
    pixels = take(draw(draft), Condition("plain"), np.random.default_rng(0))
    (layout,) = operator_of(FindLayout).create({"resolution": "fine"}, 1.0).process([Page(pixels)])
    assert layout.stamp is not None
    assert layout.stamp.left == pytest.approx(300, abs=6)
    assert layout.stamp.top == pytest.approx(500, abs=6)
    assert layout.stamp.contains(364, 522)
    assert not layout.stamp.contains(100, 522)


@pytest.mark.models
def test_text_is_read_whatever_was_read_before() -> None:
    first, second = _items("clean", "receipt")[:2]
    read = operator_of(Ocr).create({"size": "medium", "angle": False}, 1.0)
    together = read.process([first.value, second.value])
    assert read.process([second.value]) == together[1:]
    assert dict(first.truth.fields)["total"] in {line.text for line in together[0].lines}
    assert read.process([Page(np.full((300, 200), 255, dtype=np.uint8))]) == [Reading(())]


@pytest.mark.models
def test_places_do_not_depend_on_the_scale() -> None:
    page = _items("clean", "receipt")[0].value
    half = operator_of(Preprocess).create({"method": "none", "scale": 0.5}, 1.0).process([page])[0]
    whole, small = operator_of(Ocr).create({"size": "large", "angle": False}, 1.0).process([page, half])
    places = {line.text: (line.x, line.y) for line in whole.lines}
    shared = [line for line in small.lines if line.text in places]
    assert len(shared) > 4
    for line in shared:
        assert (line.x, line.y) == pytest.approx(places[line.text], abs=6)


@pytest.mark.models
def test_pages_on_their_head_are_read_only_when_looked_for() -> None:
    over, blurred = _items("upside down", "letter")[0], _items("blurred", "letter")[0]
    look = operator_of(FindLayout).create({"resolution": "fine"}, 1.0)
    join = operator_of(extract).create({}, 1.0)
    scores = {}
    for angle in (False, True):
        readings = operator_of(Ocr).create({"size": "large", "angle": angle}, 1.0).process([over.value, blurred.value])
        assert [reading.upside_down for reading in readings] == [angle, False]
        documents = join.process(readings, look.process([over.value, blurred.value]))
        scores[angle] = character_accuracy(documents[0], over.truth)
    assert scores[False] < 0.5
    assert scores[True] > 0.9


def test_a_document_is_joined_from_text_and_layout() -> None:
    reading = Reading(
        (
            _line("$2.50", 400, 101),
            _line("Total", 300, 98),
            _line("Date: 3 May 2024", 100, 40),
            _line("PAID", 360, 60),
        )
    )
    layout = Layout(skew_deg=0.0, stamp=Box(320, 40, 420, 80), rows=3)
    (document,) = operator_of(extract).create({}, 1.0).process([reading], [layout])
    assert document.text == "Date: 3 May 2024\nTotal $2.50"
    assert dict(document.fields) == {"date": "3 May 2024", "rows": "3", "stamp": "PAID", "total": "$2.50"}
    (without,) = operator_of(extract).create({}, 1.0).process([reading], [Layout(0.0, None, 0)])
    assert without.text == "Date: 3 May 2024\nPAID\nTotal $2.50"
    assert dict(without.fields) == {"date": "3 May 2024", "total": "$2.50"}


def test_order_follows_the_skew_and_the_side_that_is_up() -> None:
    falling = Reading((_line("b", 400, 120), _line("a", 100, 100), _line("c", 100, 125)))
    skew_deg = float(np.degrees(np.arctan(20 / 300)))
    (document,) = operator_of(extract).create({}, 1.0).process([falling], [Layout(skew_deg, None, 0)])
    assert document.text == "a b\nc"
    over = Reading((_line("last", 100, 50), _line("second", 100, 100), _line("first", 400, 101)), upside_down=True)
    (document,) = operator_of(extract).create({}, 1.0).process([over], [Layout(0.0, None, 0)])
    assert document.text == "first second\nlast"


@pytest.mark.parametrize(
    ("text", "expected"), [("ab cd", 1.0), ("abcd", 1.0), ("abce", 0.75), ("", 0.0), ("x" * 40, 0.0)]
)
def test_character_accuracy(text: str, expected: float) -> None:
    assert character_accuracy(Document(text, ()), Document("ab cd", ())) == pytest.approx(expected)


def test_character_accuracy_of_empty_pages_and_of_fields() -> None:
    empty = Document("", ())
    assert character_accuracy(empty, empty) == 1.0
    assert character_accuracy(Document("x", ()), empty) == 0.0
    truth = Document("abc", (("total", "$1"),))
    assert character_accuracy(Document("abc", ()), truth) == pytest.approx(3 / 11)


@pytest.mark.models
def test_pages_go_through_both_branches() -> None:
    items = [_items("clean", "invoice")[0], _items("noisy a little", "receipt")[0]]
    values = [item.value for item in items]
    prepared = operator_of(Preprocess).create({"method": "despeckle", "scale": 1.0}, 1.0).process(values)
    readings = operator_of(Ocr).create({"size": "large", "angle": True}, 1.0).process(prepared)
    layouts = operator_of(FindLayout).create({"resolution": "fine"}, 1.0).process(values)
    documents = operator_of(extract).create({}, 1.0).process(readings, layouts)
    for document, item in zip(documents, items, strict=True):
        assert character_accuracy(document, item.truth) > 0.9
    assert documents[0].fields == items[0].truth.fields
