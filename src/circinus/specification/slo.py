"""Service-level objectives (SLOs), parsed from texts such as `p95 <= 800ms`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema

from circinus.specification.base_model import Number, SpecModel
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error
from circinus.specification.formatting import IntervalLike, ceil_significant, floor_significant
from circinus.specification.limits import MAX_TEXT
from circinus.specification.units import DURATION, PRICE_PER_H, PositiveDurationS, UsdPerH

_COMPARISON = r"(?P<comparison><=|≤|>=|≥)"
_LATENCY = re.compile(
    rf"\s*(?:latency\s*:?\s*)?(?:[pP](?P<percentile>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*)?{_COMPARISON}\s*(?P<limit>.*)"
)
_ACCURACY = re.compile(rf"\s*(?:accuracy\s*:?\s*)?{_COMPARISON}\s*(?P<threshold>.*)")
_COST = re.compile(rf"\s*(?:cost\s*:?\s*)?{_COMPARISON}\s*(?P<limit>.*)")
_SLO = re.compile(r"\s*(?P<kind>[A-Za-z_]\w*)\s*:?\s*(?P<limit>.*)", re.DOTALL)
_SCORE = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)\s*", re.ASCII)
_EXAMPLES = "an SLO such as latency p95 <= 800ms, accuracy >= 0.9 or cost <= $0.50/h"
_AT_MOST = ("<=", "≤")
_LATENCY_ROUNDING = 1e-9
"""Rounding error of a sum of times, relative to the limit."""
_SCORE_ROUNDING = 1e-12
"""Rounding error of a mean of scores."""
COST_ROUNDING = 1e-6
"""Rounding error of a cost share, relative to the limit: the feasibility tolerance of the solvers."""
COST_ROUNDING_USD_PER_H = 1e-12
"""Rounding error of a cost share, for limits near 0."""
_MAX_DIGITS = 6
"""Maximum number of digits of a limit in text."""
_MAX_EXCESS = 1.1
"""Maximum ratio of a change of a limit, rounded to fewer digits, to the change that is required."""

DEFAULT_PERCENTILE = 95.0
"""Percentile of a latency SLO that names none, and of the latencies of a query without one."""


def _match(pattern: re.Pattern[str], given: Any) -> re.Match[str] | None:
    """Return the match of a whole text that is no longer than one needs; the expressions take cubic time."""
    return pattern.fullmatch(given) if isinstance(given, str) and len(given) <= MAX_TEXT else None


def _score(value: Any) -> Any:
    """Convert a text with a number or a percentage to a number; leave other values unchanged."""
    if not isinstance(value, str):
        return value
    match = _match(_SCORE, value)
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


def _plain(number: float) -> str:
    """Return the shortest text that reads back as `number`, without a trailing `.0`."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


class SloKind(StrEnum):
    """Quantities that an SLO limits."""

    LATENCY = "latency"
    ACCURACY = "accuracy"
    COST = "cost"


class Slo(SpecModel):
    """Limit of one quantity of a query: a maximum, or a minimum if more is better.

    Values, limits and margins are in seconds, scores, or US dollars per hour.
    """

    kind: ClassVar[SloKind]
    _limit_field: ClassVar[str]
    _rounding: ClassVar[tuple[float, float]]
    """Rounding errors of values: relative to the limit, and absolute."""

    @staticmethod
    def _format(value: float) -> str:
        """Return a limit in the notation of specifications."""
        return _plain(value)

    @property
    def limit(self) -> float:
        """The limit; the name of its field has the unit."""
        value: float = getattr(self, self._limit_field)
        return value

    @property
    def limit_text(self) -> str:
        """The limit in the notation of specifications, to six digits."""
        return self._format(float(f"{self.limit:.{_MAX_DIGITS}g}"))

    @property
    def comparison_text(self) -> str:
        """The text before the limit, such as `p95 <=`."""
        return ">=" if self.is_minimum else "<="

    @property
    def tolerance(self) -> float:
        """Excess over the limit that counts as a rounding error."""
        relative, absolute = self._rounding
        return relative * abs(self.limit) + absolute

    @property
    def is_minimum(self) -> bool:
        """True if values must be at least the limit, not at most."""
        return False

    def margin(self, value: float) -> float:
        """Return the distance of a value from the limit: negative if it violates the SLO, 0 if it is the limit."""
        margin = value - self.limit if self.is_minimum else self.limit - value
        return 0.0 if abs(margin) <= self.tolerance else margin

    def is_met_by(self, value: float) -> bool:
        """Return whether a value meets the SLO, with a tolerance for rounding."""
        margin = value - self.limit if self.is_minimum else self.limit - value
        return margin >= 0 or margin >= -self.tolerance

    def worst(self, bounds: IntervalLike) -> float:
        """Return the unfavourable bound, which meets a guaranteed SLO."""
        return bounds.lower if self.is_minimum else bounds.upper

    def best(self, bounds: IntervalLike) -> float:
        """Return the favourable bound, which violates an SLO that is certainly missed."""
        return bounds.upper if self.is_minimum else bounds.lower

    def relaxed_by(self, change: float) -> Self:
        """Return the SLO with its limit relaxed by a share of it."""
        step = abs(self.limit) * change
        return self.with_limit(self.limit - step if self.is_minimum else self.limit + step)

    def relaxed_to(self, value: float) -> Self:
        """Return the SLO unchanged if a value meets it, else with a limit that it meets.

        The limit has three to six digits, as few as change the SLO by at most a tenth more than the value requires.
        """
        if self.is_met_by(value):
            return self
        rounded = floor_significant if self.is_minimum else ceil_significant
        limits = (rounded(value, digits) for digits in range(3, _MAX_DIGITS))
        largest = _MAX_EXCESS * abs(value - self.limit)
        limit = next((limit for limit in limits if abs(limit - self.limit) <= largest), rounded(value, _MAX_DIGITS))
        return self.with_limit(float(f"{limit:.12g}"))  # without the rounding error of the value

    def with_limit(self, limit: float) -> Self:
        """Return the SLO with another limit."""
        return self.model_copy(update={self._limit_field: limit})

    def __str__(self) -> str:
        return f"{self.comparison_text} {self._format(self.limit)}"


class LatencySlo(Slo):
    """Upper limit of a percentile of the end-to-end latency. Written `p95 <= 800ms`.

    Example:
        >>> import circinus as c
        >>> c.LatencySlo.model_validate("p99 <= 1.5s").limit_s
        1.5
        >>> print(c.LatencySlo(percentile=95, limit="800ms"))
        p95 <= 800ms
    """

    kind = SloKind.LATENCY
    _limit_field, _rounding = "limit_s", (_LATENCY_ROUNDING, 0.0)
    _format = staticmethod(DURATION.format)

    percentile: Number = Field(default=DEFAULT_PERCENTILE, gt=0, lt=100)
    limit_s: PositiveDurationS = Field(alias="limit")

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _match(_LATENCY, given)
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a latency SLO such as p95 <= 800ms")
        if match["percentile"] is None:
            return {"limit": match["limit"]}
        percentile = float(match["percentile"])
        return {"percentile": int(percentile) if percentile.is_integer() else percentile, "limit": match["limit"]}

    def fraction_within(self, latency_s: Collection[float], failed: int = 0) -> float:
        """Return the share of requests answered within the limit; 1 without requests.

        Args:
            latency_s: latency of each answered request.
            failed: number of failed requests, which count as late.
        """
        limit_s, requests = self.limit_s + self.tolerance, len(latency_s) + failed
        return sum(seconds <= limit_s for seconds in latency_s) / requests if requests else 1.0

    @property
    def comparison_text(self) -> str:
        return f"p{_plain(self.percentile)} <="


class AccuracySlo(Slo):
    """Threshold of the pipeline's mean score: a minimum, or a maximum if the metric is minimized.

    Written `>= 0.9` or `>= 90%`.

    Example:
        >>> import circinus as c
        >>> c.AccuracySlo(threshold="90%").is_met_by(0.92)
        True
    """

    kind = SloKind.ACCURACY
    _limit_field, _rounding = "threshold", (0.0, _SCORE_ROUNDING)

    threshold: Score
    comparison: Literal[">=", "<="] = ">="

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _match(_ACCURACY, given)
        if match is None:
            raise issue_error(describe(given), "an accuracy SLO such as >= 0.9")
        return {"threshold": match["threshold"], "comparison": "<=" if match["comparison"] in _AT_MOST else ">="}

    @property
    def is_minimum(self) -> bool:
        return self.comparison == ">="


class CostSlo(Slo):
    """Upper limit of a query's cost: its shares of deployments plus its transfers. Written `<= $0.50/h`.

    Example:
        >>> import circinus as c
        >>> c.CostSlo.model_validate("<= $12/day").limit_usd_per_h
        0.5
    """

    kind = SloKind.COST
    _limit_field, _rounding = "limit_usd_per_h", (COST_ROUNDING, COST_ROUNDING_USD_PER_H)
    _format = staticmethod(PRICE_PER_H.format)

    limit_usd_per_h: UsdPerH = Field(alias="limit")

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        if isinstance(given, Mapping):
            return given
        match = _match(_COST, given)
        if match is None or match["comparison"] not in _AT_MOST:
            raise issue_error(describe(given), "a cost SLO such as <= $0.50/h")
        return {"limit": match["limit"]}


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

    @property
    def by_kind(self) -> dict[SloKind, Slo]:
        """The SLOs that the query has."""
        return {kind: slo for kind in SloKind if (slo := getattr(self, kind)) is not None}

    @property
    def without_cost(self) -> Slos:
        """The SLOs that measurements decide: costs are computed."""
        return self.replaced(SloKind.COST, None)

    @property
    def percentile(self) -> float:
        """Percentile of the latency SLO, or the default one."""
        return DEFAULT_PERCENTILE if self.latency is None else self.latency.percentile

    def attained(
        self, latency_s: float | None, score: float | None, cost_usd_per_h: float | None
    ) -> dict[SloKind, bool]:
        """Return for each SLO whether it was met; an unknown value (None or NaN) does not meet it.

        Args:
            latency_s: observed latency at `percentile`.
        """
        observed = {SloKind.LATENCY: latency_s, SloKind.ACCURACY: score, SloKind.COST: cost_usd_per_h}
        values = {kind: math.nan if value is None else value for kind, value in observed.items()}
        return {kind: slo.is_met_by(values[kind]) for kind, slo in self.by_kind.items()}

    def replaced(self, kind: SloKind, slo: Slo | None) -> Slos:
        """Return the SLOs with another one of a kind, or without it."""
        return self.model_copy(update={kind: slo})

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
        return ", ".join(f"{kind} {slo}" for kind, slo in self.by_kind.items()) or "none"


def _limits(entry: Any) -> list[tuple[str, Any]]:
    """Return the (kind, limit) pairs of an entry in a list of SLOs, or an empty list if it cannot be parsed."""
    if isinstance(entry, Mapping):
        return [(str(name), value) for name, value in entry.items()]
    if isinstance(entry, Slo):
        return [(entry.kind, entry)]
    match = _match(_SLO, entry)
    return [] if match is None else [(match["kind"], match["limit"])]
