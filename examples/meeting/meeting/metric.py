"""How well the notes repeat what was said."""

from __future__ import annotations

from meeting.keywords import Notes
from meeting.text import normalise


def word_accuracy(notes: Notes, truth: str) -> float:
    """One minus the word error rate, not below 0; spelling, case and punctuation do not count."""
    import jiwer

    said, understood = normalise(truth), normalise(notes.text)
    if not said:
        return 0.0 if understood else 1.0
    return max(0.0, 1.0 - float(jiwer.wer(said, understood)))
