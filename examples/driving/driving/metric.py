"""Accuracy of the plates of a clip."""

from __future__ import annotations

from collections.abc import Collection

from driving.clip import Truth


def plate_f1(plates: Collection[str], truth: Truth) -> float:
    """Return the F1 score of the plates of a clip: 1 if there are none and none were read.

    Plates of vehicles that are never readable are ignored, whether they were read or not.
    """
    counted = set(plates) - set(truth.others)
    total = len(counted) + len(truth.readable)
    return 2 * len(counted & set(truth.readable)) / total if total else 1.0
