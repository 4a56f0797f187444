"""How the requests of a query arrive: at random, evenly, in bursts, or as they were once recorded."""

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
from circinus.specification.units import DURATION, REQUIRE_UNITS, DurationS

_ROUNDING = 1e-9
"""A share of all arrivals that is 1 may be computed as so much more."""


class _Kind(SpecModel):
    """One kind of arrivals; `kind` is always written, since it tells the kinds apart."""

    kind: str

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}


class PoissonArrivals(_Kind):
    """Independent of each other: many users, each of whom asks seldom. Written `poisson`."""

    kind: Literal["poisson"] = "poisson"

    def __str__(self) -> str:
        return self.kind


class PeriodicArrivals(_Kind):
    """Evenly spaced from a random phase on, such as the frames of a camera. Written `periodic`, or with its jitter."""

    kind: Literal["periodic"] = "periodic"
    jitter_s: DurationS = Field(default=0.0, alias="jitter")
    """Every arrival is earlier or later than evenly spaced ones by up to this, uniformly; at most half of the time
    between two."""

    def __str__(self) -> str:
        return self.kind if self.jitter_s == 0 else f"{self.kind} ±{DURATION.format(self.jitter_s)}"


class BurstyArrivals(_Kind):
    """Poisson arrivals at two rates that take turns: a Markov-modulated Poisson process.

    Over all time their mean is the query's rate, so that between bursts fewer arrive. Written `bursty`, or with
    its fields.
    """

    kind: Literal["bursty"] = "bursty"
    peak: Number = Field(default=4.0, gt=1)
    """How many times the query's rate requests arrive in a burst."""
    burst_s: DurationS = Field(default=10.0, alias="burst", gt=0, validate_default=False)
    """How long a burst lasts in the mean; lengths are exponentially distributed."""
    every_s: DurationS = Field(default=60.0, alias="every", gt=0, validate_default=False)
    """The mean time from the beginning of a burst to that of the next."""

    @property
    def off_peak_factor(self) -> float:
        """How many times the query's rate requests arrive between bursts, from 0 to 1."""
        return max(0.0, (self.every_s - self.peak * self.burst_s) / (self.every_s - self.burst_s))

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if not isinstance(content, BurstyArrivals):
            return
        burst = DURATION.format(content.burst_s)
        if content.burst_s >= content.every_s:
            yield Issue(("every",), DURATION.format(content.every_s), f"more than the {burst} that a burst lasts")
        elif content.peak * content.burst_s > content.every_s * (1 + _ROUNDING):
            most, every = content.every_s / content.burst_s, DURATION.format(content.every_s)
            expected = f"at most {most:g}: then all arrivals are in bursts of {burst} every {every}"
            yield Issue(("peak",), f"{content.peak:g}", expected)

    def __str__(self) -> str:
        times = f"{DURATION.format(self.burst_s)} every {DURATION.format(self.every_s)}"
        return f"{self.kind}, {self.peak:g} times the rate for {times}"


def _only_of_python(value: Any, info: ValidationInfo) -> Any:
    if _is_yaml(info):
        raise issue_error("a list of times", "the times in a file, named by `file`")
    return value


def _instants(times_s: tuple[float, ...]) -> tuple[float, ...]:
    faults = [
        Issue((position + 1,), f"{after:g} after {before:g}", "times that ascend")
        for position, (before, after) in enumerate(pairwise(times_s))
        if after < before
    ]
    if faults:
        raise issues_error("times", faults)
    if len(times_s) < 2 or times_s[0] == times_s[-1]:
        raise issue_error(describe(times_s), "at least two different times")
    return times_s


class RecordedArrivals(_Kind):
    """As they were recorded, again and again, faster or slower so that their mean is the query's rate."""

    kind: Literal["recorded"] = "recorded"
    file: Annotated[str, Field(min_length=1), Expected("the path of a CSV file with the column time_s")]
    """A CSV file with the column `time_s`, relative to the file that names it; where it has a column `query`, only the
    rows of this query count."""
    times_s: SkipJsonSchema[
        Annotated[
            tuple[Annotated[Number, Field(ge=0)], ...], BeforeValidator(_only_of_python), AfterValidator(_instants)
        ]
        | None
    ] = None
    """Seconds at which requests arrived, ascending, at least two different ones: what the file says; None: not read."""

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
    """Bare numbers are refused in what was read from files, and only there."""
    return info.context is not None and bool(info.context.get(REQUIRE_UNITS))


def _of_its_kind(given: Any, info: ValidationInfo) -> Any:
    """The model of a kind, from the name of the kind or from a mapping with the field `kind`."""
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


Arrivals = Annotated[AnyArrivals, BeforeValidator(_of_its_kind)]
"""How requests arrive: the name of a kind, or a mapping with `kind` and what else the kind has."""
