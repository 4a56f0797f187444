"""From the outputs of a pipeline's sinks to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import ProfileError
from circinus.operators import Item, Metric, resolve
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.profiling.measurement.runner import MeasurementError
from circinus.specification import Configuration, Pipeline

_ROUNDING = 1e-9


def validate_score(score: Any, score_range: tuple[float, float]) -> float | None:
    """`score` as a number in `score_range` (least, greatest); None when it is none.

    A mean of perfect scores may round to just above the greatest: what is outside by 1e-9 of the range's width is
    clipped.
    """
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    least, greatest = score_range
    margin = _ROUNDING * (greatest - least)
    if not least - margin <= value <= greatest + margin:  # also NaN
        return None
    return min(max(value, least), greatest)


class ItemScorer(Protocol):
    """Scores one item."""

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float:
        """See `Scorer.score`."""
        ...


class Scorer:
    """Applies a pipeline's metric, and holds it to what it declares."""

    def __init__(self, pipeline: Pipeline, module_paths: Sequence[Path]) -> None:
        """Find the metric.

        Raises:
            OperatorError: it is not found.
        """
        self._pipeline = pipeline
        self._metric: Metric = resolve(pipeline.metric.uses, module_paths)

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float:
        """Score one item.

        Args:
            configuration: named in errors.
            item: has the truth.
            outputs: by sink, packed.

        Raises:
            MeasurementError: the metric raised.
            ProfileError: what it returned is no number in its declared range.
        """
        spec = self._pipeline.metric
        try:
            answer = self._pipeline.output({sink: unpickle_value(data) for sink, data in outputs.items()})
            score = self._metric(answer, item.truth)
        except Exception as error:  # whatever the user's metric raises
            reason = f"metric {spec.name} ({spec.uses}) failed with {type(error).__name__}: {error}"
            raise MeasurementError(
                f"pipeline {self._pipeline.name}, configuration {configuration}, item {item.key}: {reason}",
                configuration,
                item.key,
                reason,
            ) from error
        value = validate_score(score, spec.range)
        if value is None:
            low, high = spec.range
            raise ProfileError(
                f"metric {spec.name} ({spec.uses}) of pipeline {self._pipeline.name}: found the score {score!r} for "
                f"item {item.key} under configuration {configuration}, expected a number within its range "
                f"[{low:g}, {high:g}]; clip it in the metric or widen the range"
            )
        return value
