"""Accuracy of the notes relative to the spoken text."""

from __future__ import annotations

from meeting.keywords import Notes
from meeting.text import normalise


def word_accuracy(notes: Notes, truth: str) -> float:
    """Return one minus the word error rate, at least 0. Spelling variants, case and punctuation are ignored."""
    import jiwer

    reference, hypothesis = normalise(truth), normalise(notes.text)
    if not reference:
        return 0.0 if hypothesis else 1.0
    return max(0.0, 1.0 - float(jiwer.wer(reference, hypothesis)))
