"""Scoring of the outputs of a pipeline's sinks with its metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.operators.code_host import ScoreFailure
from circinus.operators.user_code import user_code
from circinus.profiling.dataset.pickled_item import pickled_truth
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.settings import PROFILING
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
    """Interface of scorers of items."""

    def scores(
        self, configuration: Configuration, items: Sequence[Item], outputs: Mapping[str, Sequence[bytes]]
    ) -> tuple[float, ...]:
        """Return (n,) scores of n items, from (n,) pickled outputs of each sink."""
        ...


class Scorer:
    """Scorer that applies a pipeline's metric in a process of its own, and checks its declared range."""

    def __init__(self, pipeline: Pipeline, module_paths: Sequence[Path], timeout_s: float | None = None) -> None:
        """Import the metric.

        Args:
            pipeline: the pipeline.
            module_paths: folders of the metric's modules.
            timeout_s: time limit of an item; None for the longest of an operator.

        Raises:
            OperatorError: the metric cannot be found.
        """
        self._pipeline = pipeline
        self._sinks = pipeline.sinks()
        self._code = user_code(module_paths)
        self._timeout_s = PROFILING.operator_timeout_s if timeout_s is None else timeout_s
        self._code.describe(pipeline.metric.uses)

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float:
        """Score one item; see `scores`."""
        (score,) = self.scores(configuration, [item], {sink: [outputs[sink]] for sink in self._sinks})
        return score

    def scores(
        self, configuration: Configuration, items: Sequence[Item], outputs: Mapping[str, Sequence[bytes]]
    ) -> tuple[float, ...]:
        """Score items.

        Raises:
            MeasurementError: the metric raised an exception, ended its process, or exceeded the time limit.
            ProfileError: the metric returned no number in its declared range.
        """
        spec = self._pipeline.metric
        rows = [
            (*(outputs[sink][number] for sink in self._sinks), pickled_truth(item)) for number, item in enumerate(items)
        ]
        scores = []
        for item, score in zip(items, self._code.scores(spec.uses, self._sinks, rows, self._timeout_s), strict=True):
            if isinstance(score, ScoreFailure) and not score.is_invalid:
                reason = f"metric {spec.name} ({spec.uses}) {score.reason}"
                raise MeasurementError(reason, self._pipeline.name, configuration, item.key, code="metric.failed")
            value = None if isinstance(score, ScoreFailure) else validate_score(score, spec.range)
            if value is None:
                low, high = spec.range
                raise ProfileError(
                    f"score for item {item.key} under configuration {configuration} must be a number in "
                    f"[{low:g}, {high:g}], got {score.reason if isinstance(score, ScoreFailure) else score}",
                    code="metric.score_out_of_range",
                    location=f"metric {spec.name} ({spec.uses}) of pipeline {self._pipeline.name}",
                    hint="Clip the score in the metric, or widen the range.",
                )
            scores.append(value)
        return tuple(scores)
