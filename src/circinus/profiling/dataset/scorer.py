"""Scoring of the outputs of a pipeline's sinks with its metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import ProfileError
from circinus.operators import Item, Metric, resolve
from circinus.operators.pickling import unpickle_value
from circinus.profiling.measurement.runner import MeasurementError
from circinus.specification import Configuration, Pipeline

_ROUNDING = 1e-9


def validate_score(score: Any, score_range: tuple[float, float]) -> float | None:
    """Return `score` as a number in `score_range` (minimum, maximum), or None if it is not one.

    A mean of perfect scores may round to just above the maximum: values outside by at most 1e-9 of the range's width
    are clipped.
    """
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    low, high = score_range
    margin = _ROUNDING * (high - low)
    if not low - margin <= value <= high + margin:  # also NaN
        return None
    return min(max(value, low), high)


class ItemScorer(Protocol):
    """Interface of scorers of single items."""

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float: ...


class Scorer:
    """Scorer that applies a pipeline's metric and checks its declared range."""

    def __init__(self, pipeline: Pipeline, module_paths: Sequence[Path]) -> None:
        """Resolve the metric.

        Raises:
            OperatorError: the metric cannot be found.
        """
        self._pipeline = pipeline
        self._sinks = pipeline.sinks()
        self._metric: Metric = resolve(pipeline.metric.uses, module_paths)

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float:
        """Score one item.

        Raises:
            MeasurementError: the metric raised an exception.
            ProfileError: the metric returned no number in its declared range.
        """
        spec = self._pipeline.metric
        try:
            answers = {sink: unpickle_value(outputs[sink]) for sink in self._sinks}
            answer = answers if len(answers) > 1 else answers[self._sinks[0]]
            score = self._metric(answer, item.truth)
        except Exception as error:  # the user's metric may raise anything
            reason = f"metric {spec.name} ({spec.uses}) failed with {type(error).__name__}: {error}"
            raise MeasurementError(
                reason, self._pipeline.name, configuration, item.key, code="metric.failed"
            ) from error
        value = validate_score(score, spec.range)
        if value is None:
            low, high = spec.range
            raise ProfileError(
                f"score for item {item.key} under configuration {configuration} must be a number in "
                f"[{low:g}, {high:g}], got {score!r}",
                code="metric.score_out_of_range",
                location=f"metric {spec.name} ({spec.uses}) of pipeline {self._pipeline.name}",
                hint="Clip the score in the metric, or widen the range.",
            )
        return value
