"""How well the document repeats what stands on the page."""

from __future__ import annotations

from documents.page import Document


def character_accuracy(document: Document, truth: Document) -> float:
    """One minus the character error rate of the text with its fields, not below 0; spaces do not count."""
    import jiwer

    written, read = _compared(truth), _compared(document)
    if not written:
        return 0.0 if read else 1.0
    return max(0.0, 1.0 - float(jiwer.cer(written, read)))


def _compared(document: Document) -> str:
    # Recognizers of this kind guess at spaces, and nobody who looks for a number or a name minds.
    return "".join(document.transcript().split())
