"""Arrival processes of queries: Poisson, periodic, bursty or recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
)
from pydantic.json_schema import SkipJsonSchema

from circinus.specification.base_model import Number, SpecModel
from circinus.specification.diagnostics import Expected, Issue, describe, did_you_mean, issue_error, issues_error
from circinus.specification.units import DURATION, REQUIRE_UNITS, DurationS, PositiveDurationS

_ROUNDING = 1e-9
"""Relative rounding tolerance of the share of arrivals in bursts."""


class _Kind(SpecModel):
    """Kind of arrivals. `kind` is always written, as it identifies the model."""

    kind: str

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}


class PoissonArrivals(_Kind):
    """Poisson process: independent arrivals of many users with few requests each. Written `poisson`.

    Example:
        >>> import circinus as c
        >>> str(c.PoissonArrivals())
        'poisson'
    """

    kind: Literal["poisson"] = "poisson"

    def __str__(self) -> str:
        return self.kind


class PeriodicArrivals(_Kind):
    """Periodic arrivals with a random phase, such as camera frames. Written `periodic`, or a mapping with `jitter`.

    Example:
        >>> import circinus as c
        >>> c.PeriodicArrivals(jitter="5ms").jitter_s
        0.005
    """

    kind: Literal["periodic"] = "periodic"
    jitter_s: DurationS = Field(default=0.0, alias="jitter")
    """Maximum deviation of an arrival from its period, uniformly distributed in both directions; at most half of the
    period."""

    def __str__(self) -> str:
        return self.kind if self.jitter_s == 0 else f"{self.kind} ±{DURATION.format(self.jitter_s)}"


class BurstyArrivals(_Kind):
    """Markov-modulated Poisson process with two alternating rates.

    The long-run mean is the query's rate, so that the rate between bursts is lower. Written `bursty`, or a mapping
    with the fields.

    Example:
        >>> import circinus as c
        >>> c.BurstyArrivals(peak=4, burst="10s", every="60s").off_peak_factor
        0.4
    """

    kind: Literal["bursty"] = "bursty"
    peak: Number = Field(default=4.0, gt=1)
    """Rate in a burst, as a multiple of the query's rate."""
    burst_s: PositiveDurationS = Field(default=10.0, alias="burst", validate_default=False)
    """Mean duration of a burst; durations are exponentially distributed."""
    every_s: PositiveDurationS = Field(default=60.0, alias="every", validate_default=False)
    """Mean time between the starts of two consecutive bursts."""

    @property
    def off_peak_factor(self) -> float:
        """Rate between bursts, as a multiple (from 0 to 1) of the query's rate."""
        return max(0.0, (self.every_s - self.peak * self.burst_s) / (self.every_s - self.burst_s))

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if not isinstance(content, BurstyArrivals):
            return
        burst = DURATION.format(content.burst_s)
        if content.burst_s >= content.every_s:
            yield Issue(("every",), DURATION.format(content.every_s), f"more than the {burst} that a burst lasts")
        elif content.peak * content.burst_s > content.every_s * (1 + _ROUNDING):
            max_peak, every = content.every_s / content.burst_s, DURATION.format(content.every_s)
            expected = f"at most {max_peak:g}, at which all arrivals are in bursts of {burst} every {every}"
            yield Issue(("peak",), f"{content.peak:g}", expected)

    def __str__(self) -> str:
        times = f"{DURATION.format(self.burst_s)} every {DURATION.format(self.every_s)}"
        return f"{self.kind}, {self.peak:g} times the rate for {times}"


def _refuse_in_yaml(value: Any, info: ValidationInfo) -> Any:
    if _is_yaml(info):
        raise issue_error("a list of times", "the times in a file, named by `file`")
    return value


def _ascending(times_s: tuple[float, ...]) -> tuple[float, ...]:
    issues = [
        Issue((position + 1,), f"{current:g} after {previous:g}", "ascending times")
        for position, (previous, current) in enumerate(pairwise(times_s))
        if current < previous
    ]
    if issues:
        raise issues_error("times", issues)
    if len(times_s) < 2 or times_s[0] == times_s[-1]:
        raise issue_error(describe(times_s), "at least two distinct times")
    return times_s


class RecordedArrivals(_Kind):
    """Recorded arrivals, repeated and scaled in time so that their mean is the query's rate.

    Example:
        >>> import circinus as c
        >>> arrivals = c.RecordedArrivals(file="calls.csv", times_s=(0.0, 1.5, 2.0))
        >>> str(arrivals)
        'recorded in calls.csv'
    """

    kind: Literal["recorded"] = "recorded"
    file: Annotated[str, Field(min_length=1), Expected("the path of a CSV file with the column time_s")]
    """Path of a CSV file with the column `time_s`, relative to the specification's file. If it has a column `query`,
    only the rows of this query are used."""
    times_s: SkipJsonSchema[
        Annotated[
            tuple[Annotated[Number, Field(ge=0)], ...], BeforeValidator(_refuse_in_yaml), AfterValidator(_ascending)
        ]
        | None
    ] = None
    """Ascending arrival times in seconds, at least two of them distinct; None until the file is read."""

    def __str__(self) -> str:
        return f"{self.kind} in {self.file}"


AnyArrivals = PoissonArrivals | PeriodicArrivals | BurstyArrivals | RecordedArrivals

ARRIVAL_KINDS: Mapping[str, type[AnyArrivals]] = {
    "poisson": PoissonArrivals,
    "periodic": PeriodicArrivals,
    "bursty": BurstyArrivals,
    "recorded": RecordedArrivals,
}
_EXPECTED = f"one of {', '.join(ARRIVAL_KINDS)}"


def _is_yaml(info: ValidationInfo) -> bool:
    """Return whether the value is read from YAML, where numbers need a unit."""
    return info.context is not None and bool(info.context.get(REQUIRE_UNITS))


def _to_kind(given: Any, info: ValidationInfo) -> Any:
    """Convert the name of a kind, or a mapping with the field `kind`, to the kind's model."""
    if isinstance(given, AnyArrivals):
        return given
    if isinstance(given, str):
        if given not in ARRIVAL_KINDS:
            raise issue_error(describe(given), _EXPECTED, did_you_mean(given, ARRIVAL_KINDS))
        given = {"kind": given}
    if not isinstance(given, Mapping):
        raise issue_error(describe(given), f"{_EXPECTED}, or a mapping with the field kind")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in ARRIVAL_KINDS:
        hint = "the field is required" if kind is None else did_you_mean(kind, ARRIVAL_KINDS)
        raise issues_error("arrivals", [Issue(("kind",), describe(kind), _EXPECTED, hint)])
    by_name = not _is_yaml(info)
    return ARRIVAL_KINDS[kind].model_validate(given, context=info.context, by_alias=True, by_name=by_name)


Arrivals = Annotated[AnyArrivals, BeforeValidator(_to_kind)]
"""Arrival process: the name of a kind, or a mapping with `kind` and the fields of the kind."""
