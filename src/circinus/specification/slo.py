"""Service-level objectives (SLOs), parsed from texts such as `p95 <= 800ms`."""

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
_SLO = re.compile(r"\s*(?P<kind>[A-Za-z_]\w*)\s*:?\s*(?P<limit>.*)", re.DOTALL)
_EXAMPLES = "an SLO such as latency p95 <= 800ms, accuracy >= 0.9 or cost <= $0.50/h"
_AT_MOST = ("<=", "≤")
_ROUNDING = 1e-12
"""Rounding tolerance of a mean of scores."""


def _score(value: Any) -> Any:
    """Convert a text with a number or a percentage to a number; leave other values unchanged."""
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
"""Score of a metric: `0.9` or `90%`."""


class LatencySlo(SpecModel):
    """Upper limit of a percentile of the end-to-end latency. Written `p95 <= 800ms`.

    Example:
        >>> import circinus as c
        >>> c.LatencySlo.model_validate("p99 <= 1.5s").limit_s
        1.5
        >>> print(c.LatencySlo(percentile=95, limit="800ms"))
        p95 <= 800ms
    """

    percentile: Number = Field(default=95.0, gt=0, lt=100)
    limit_s: DurationS = Field(alias="limit", gt=0)

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _LATENCY.fullmatch(given) if isinstance(given, str) else None
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a latency SLO such as p95 <= 800ms")
        if match["percentile"] is None:
            return {"limit": match["limit"]}
        percentile = float(match["percentile"])
        return {"percentile": int(percentile) if percentile.is_integer() else percentile, "limit": match["limit"]}

    def __str__(self) -> str:
        return f"p{_plain(self.percentile)} <= {DURATION.format(self.limit_s)}"


class AccuracySlo(SpecModel):
    """Threshold of the pipeline's mean score: a minimum, or a maximum if the metric is minimized.

    Written `>= 0.9` or `>= 90%`.

    Example:
        >>> import circinus as c
        >>> c.AccuracySlo(threshold="90%").is_met_by(0.92)
        True
    """

    threshold: Score
    comparison: Literal[">=", "<="] = ">="

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _ACCURACY.fullmatch(given) if isinstance(given, str) else None
        if match is None:
            raise issue_error(describe(given), "an accuracy SLO such as >= 0.9")
        return {"threshold": match["threshold"], "comparison": "<=" if match["comparison"] in _AT_MOST else ">="}

    def is_met_by(self, score: float) -> bool:
        """Return whether a mean score meets the SLO, with a tolerance for rounding."""
        margin = score - self.threshold if self.comparison == ">=" else self.threshold - score
        return margin >= -_ROUNDING

    def __str__(self) -> str:
        return f"{self.comparison} {_plain(self.threshold)}"


class CostSlo(SpecModel):
    """Upper limit of a query's cost: its shares of deployments plus its transfers. Written `<= $0.50/h`.

    Example:
        >>> import circinus as c
        >>> c.CostSlo.model_validate("<= $12/day").limit_usd_per_h
        0.5
    """

    limit_usd_per_h: UsdPerH = Field(alias="limit")

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _COST.fullmatch(given) if isinstance(given, str) else None
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a cost SLO such as <= $0.50/h")
        return {"limit": match["limit"]}

    def __str__(self) -> str:
        return f"<= {PRICE_PER_H.format(self.limit_usd_per_h)}"


class Slos(SpecModel):
    """SLOs of a query, all of which a plan must meet.

    Fields of this type accept the inputs of `Slos.parse` as well.

    Example:
        >>> import circinus as c
        >>> slos = c.Slos.parse(["latency p95 <= 800ms", "accuracy >= 90%"])
        >>> slos.latency.limit_s, slos.accuracy.threshold, slos.cost
        (0.8, 0.9, None)
    """

    latency: LatencySlo | None = None
    accuracy: AccuracySlo | None = None
    cost: CostSlo | None = None

    @classmethod
    def parse(cls, given: str | Sequence[str | Mapping[str, Any]] | Mapping[str, Any]) -> Self:
        """Parse the notation of specifications.

        Args:
            given: an SLO (`latency p95 <= 800ms`, `accuracy >= 0.9`, `cost <= $0.50/h`, each with an optional colon
                after its first word), a mapping (`{"latency": "p95 <= 800ms"}`), or a list of both.

        Raises:
            pydantic.ValidationError: an SLO is unknown, duplicated or malformed; lists all problems.
        """
        return cls.model_validate(given)

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        entries = (given,) if isinstance(given, str) else given
        if isinstance(entries, Mapping):
            return entries
        if not isinstance(entries, list | tuple):
            raise issue_error(describe(given), _EXAMPLES)
        by_kind: dict[str, Any] = {}
        for position, entry in enumerate(entries):
            limits = _limits(entry)
            if not limits:
                issues.append(Issue((position,), describe(entry), _EXAMPLES))
            for kind, limit in limits:
                if kind in by_kind:
                    issues.append(Issue((position,), f"a second SLO for {kind}", "at most one of each kind"))
                by_kind.setdefault(kind, limit)
        return by_kind

    def __str__(self) -> str:
        given = {"latency": self.latency, "accuracy": self.accuracy, "cost": self.cost}
        return ", ".join(f"{kind} {slo}" for kind, slo in given.items() if slo is not None) or "none"


def _limits(entry: Any) -> list[tuple[str, Any]]:
    """Return the (kind, limit) pairs of an entry in a list of SLOs, or an empty list if it cannot be parsed."""
    if isinstance(entry, Mapping):
        return [(str(name), value) for name, value in entry.items()]
    for kind, name in ((LatencySlo, "latency"), (AccuracySlo, "accuracy"), (CostSlo, "cost")):
        if isinstance(entry, kind):
            return [(name, entry)]
    match = _SLO.fullmatch(entry) if isinstance(entry, str) else None
    return [] if match is None else [(match["kind"], match["limit"])]


def _plain(number: float) -> str:
    """Return the shortest text that reads back as `number`, without a trailing `.0`."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
