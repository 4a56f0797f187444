"""Accuracy of a document relative to the content of its page."""

from __future__ import annotations

from documents.page import Document


def character_accuracy(document: Document, truth: Document) -> float:
    """Return one minus the character error rate of text and fields, at least 0. Spaces are ignored."""
    import jiwer

    reference, hypothesis = _without_spaces(truth), _without_spaces(document)
    if not reference:
        return 0.0 if hypothesis else 1.0
    return max(0.0, 1.0 - float(jiwer.cer(reference, hypothesis)))


def _without_spaces(document: Document) -> str:
    # Text recognizers place spaces unreliably, which does not matter for the search of numbers and names.
    return "".join(document.transcript().split())
