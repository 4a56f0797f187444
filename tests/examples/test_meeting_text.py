"""Text normalisation, metric and keywords of the meeting example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meeting.keywords import Notes, keywords
from meeting.metric import word_accuracy
from meeting.text import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("At 9:30, please.", "at nine thirty please"),
        ("at 9.30", "at nine thirty"),
        ("7:05 and 8:00", "seven oh five and eight o'clock"),
        ("12% of $1,250", "twelve percent of one thousand two hundred fifty dollars"),
        ("the 21st and 3rd, 12th, 20th", "the twenty first and third twelfth twentieth"),
        ("200 cycles, 40 minutes, 0", "two hundred cycles forty minutes zero"),
        ("It’s OK — we’ll see!", "it's okay we'll see"),
        ("", ""),
    ],
)
def test_texts_are_brought_into_one_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.integers(0, 999_999))
def test_numbers_become_words(value: int) -> None:
    words = normalise(str(value))
    assert words
    assert not any(character.isdigit() for character in words)


@given(st.text())
def test_normalised_texts_stay_as_they_are(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("heard", "truth", "expected"),
    [
        ("We meet at 9:30", "we meet at nine thirty.", 1.0),
        ("we eat at nine thirty", "we meet at nine thirty", 0.8),
        ("", "we meet", 0.0),
        ("no no no no no no no no", "we meet", 0.0),
        ("", "", 1.0),
        ("something", "", 0.0),
    ],
)
def test_word_accuracy(heard: str, truth: str, expected: float) -> None:
    assert word_accuracy(Notes(heard, ()), truth) == pytest.approx(expected)


@given(st.text(), st.text())
def test_word_accuracy_is_within_its_range(heard: str, truth: str) -> None:
    assert 0.0 <= word_accuracy(Notes(heard, ()), truth) <= 1.0


def test_keywords_pass_the_text_on_and_name_its_phrases() -> None:
    text = "The budget review is on Thursday. Please send the budget review and the open points."
    notes, empty = keywords(text), keywords("")
    assert notes.text == text
    assert notes.keywords[0] == "budget review"
    assert "open points" in notes.keywords
    assert empty == Notes("", ())


def test_longer_phrases_come_first_and_ties_keep_their_order() -> None:
    notes = keywords("alpha, beta, gamma delta epsilon")
    assert notes.keywords == ("gamma delta epsilon", "alpha", "beta")
