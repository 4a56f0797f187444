"""Service-level objectives, parsed once from `p95 <= 800ms` into typed objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema

from circinus.specification.base_model import Number, SpecModel
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error
from circinus.specification.units import DURATION, PRICE_PER_H, DurationS, UsdPerH

_COMPARISON = r"(?P<comparison><=|≤|>=|≥)"
_LATENCY = re.compile(
    rf"\s*(?:latency\s*:?\s*)?(?:[pP](?P<percentile>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*)?{_COMPARISON}\s*(?P<limit>.*)"
)
_ACCURACY = re.compile(rf"\s*(?:accuracy\s*:?\s*)?{_COMPARISON}\s*(?P<threshold>.*)")
_COST = re.compile(rf"\s*(?:cost\s*:?\s*)?{_COMPARISON}\s*(?P<limit>.*)")
_OBJECTIVE = re.compile(r"\s*(?P<objective>[A-Za-z_]\w*)\s*:?\s*(?P<rest>.*)", re.DOTALL)
_EXAMPLES = "an objective such as latency p95 <= 800ms, accuracy >= 0.9 or cost <= $0.50/h"
_AT_MOST = ("<=", "≤")
_ROUNDING = 1e-12
"""The mean of scores that all are the threshold may be off by so much."""


def _score(value: Any) -> Any:
    """A number; a text may be a number or a percentage."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)\s*", value, re.ASCII)
    if match is None:
        raise issue_error(describe(value), "a number or a percentage such as 90%")
    number = float(match[1])
    return number / 100 if match[2] else number


Score = Annotated[
    Number,
    BeforeValidator(_score),
    Expected("a number or a percentage such as 90%"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*[+-]?[0-9.eE+-]+\s*%?\s*$"}]}),
]
"""A score of a metric: `0.9` or `90%`."""


class LatencySlo(SpecModel):
    """The end-to-end latency at `percentile` (of 100) is at most `limit_s`. Written `p95 <= 800ms`."""

    percentile: Number = Field(default=95.0, gt=0, lt=100)
    limit_s: DurationS = Field(alias="limit", gt=0)

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _LATENCY.fullmatch(given) if isinstance(given, str) else None
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a latency objective such as p95 <= 800ms")
        if match["percentile"] is None:
            return {"limit": match["limit"]}
        percentile = float(match["percentile"])
        return {"percentile": int(percentile) if percentile.is_integer() else percentile, "limit": match["limit"]}

    def __str__(self) -> str:
        return f"p{_plain(self.percentile)} <= {DURATION.format(self.limit_s)}"


class AccuracySlo(SpecModel):
    """The pipeline's metric is at least `threshold` (at most, where the metric is to be minimised).

    Written `>= 0.9` or `>= 90%`.
    """

    threshold: Score
    comparison: Literal[">=", "<="] = ">="

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _ACCURACY.fullmatch(given) if isinstance(given, str) else None
        if match is None:
            raise issue_error(describe(given), "an accuracy objective such as >= 0.9")
        return {"threshold": match["threshold"], "comparison": "<=" if match["comparison"] in _AT_MOST else ">="}

    def is_met_by(self, score: float) -> bool:
        """Whether a mean score keeps the objective, rounding aside."""
        beyond = score - self.threshold if self.comparison == ">=" else self.threshold - score
        return beyond >= -_ROUNDING

    def __str__(self) -> str:
        return f"{self.comparison} {_plain(self.threshold)}"


class CostSlo(SpecModel):
    """The query's share of its deployments plus its transfers costs at most `limit_usd_per_h`.

    Written `<= $0.50/h`.
    """

    limit_usd_per_h: UsdPerH = Field(alias="limit")

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _COST.fullmatch(given) if isinstance(given, str) else None
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a cost objective such as <= $0.50/h")
        return {"limit": match["limit"]}

    def __str__(self) -> str:
        return f"<= {PRICE_PER_H.format(self.limit_usd_per_h)}"


class Slos(SpecModel):
    """All objectives of a query; those given must all hold.

    Wherever a `Slos` is expected, so is what `Slos.parse` accepts.
    """

    latency: LatencySlo | None = None
    accuracy: AccuracySlo | None = None
    cost: CostSlo | None = None

    @classmethod
    def parse(cls, given: str | Sequence[str | Mapping[str, Any]] | Mapping[str, Any]) -> Self:
        """From what people write.

        Args:
            given: one objective (`latency p95 <= 800ms`, `accuracy >= 0.9`, `cost <= $0.50/h`), a list of them, or a
                mapping (`{"latency": "p95 <= 800ms"}`), also inside the list. `latency: p95 <= 800ms` as one text is
                the same.

        Raises:
            pydantic.ValidationError: an objective is unknown, given twice, or not understood; has all such faults.
        """
        return cls.model_validate(given)

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        entries = (given,) if isinstance(given, str) else given
        if isinstance(entries, Mapping):
            return entries
        if not isinstance(entries, list | tuple):
            raise issue_error(describe(given), _EXAMPLES)
        spread: dict[str, Any] = {}
        for position, entry in enumerate(entries):
            found = _objectives(entry)
            if not found:
                faults.append(Issue((position,), describe(entry), _EXAMPLES))
            for objective, value in found:
                if objective in spread:
                    faults.append(Issue((position,), f"a second objective for {objective}", "at most one of a kind"))
                spread.setdefault(objective, value)
        return spread

    def __str__(self) -> str:
        given = {"latency": self.latency, "accuracy": self.accuracy, "cost": self.cost}
        return ", ".join(f"{name} {objective}" for name, objective in given.items() if objective is not None) or "none"


def _objectives(entry: Any) -> list[tuple[str, Any]]:
    """(objective, its limit) as far as `entry` of a list of objectives can be taken apart."""
    if isinstance(entry, Mapping):
        return [(str(name), value) for name, value in entry.items()]
    for kind, name in ((LatencySlo, "latency"), (AccuracySlo, "accuracy"), (CostSlo, "cost")):
        if isinstance(entry, kind):
            return [(name, entry)]
    match = _OBJECTIVE.fullmatch(entry) if isinstance(entry, str) else None
    return [] if match is None else [(match["objective"], match["rest"])]


def _plain(number: float) -> str:
    """The shortest text that gives `number` back, without a needless `.0`."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
