"""Documents that `circinus load --json` printed, checked before a report draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from circinus.errors import PlanningError
from circinus.serving.loadtest.load_report import SCHEMA_VERSION
from circinus.specification.diagnostics import first_error
from circinus.specification.json_dump import parse_json
from circinus.specification.limits import MAX_DOCUMENT_BYTES
from circinus.specification.source_files import read_regular


class _Bounds(BaseModel):
    lower: FiniteFloat | None = None
    upper: FiniteFloat | None = None


class _Interval(_Bounds):
    value: FiniteFloat


class _Prediction(BaseModel):
    latency_s: _Interval
    accuracy: _Interval


class _Latency(BaseModel):
    percentile: FiniteFloat
    at_percentile_s: FiniteFloat | None


class _Query(BaseModel):
    query: str
    verdict: str | None
    score: FiniteFloat | None
    latency_s: _Latency | None
    predicted: _Prediction | None
    bounds: dict[str, _Bounds] | None


class _Machine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cpus: int
    own_cpus: FiniteFloat
    others_cpus: FiniteFloat


class _LoadTest(BaseModel):
    """Fields that a report reads; it may have others."""

    queries: list[_Query]
    verdicts: dict[str, int]
    promises: int
    goodput: FiniteFloat
    total_weight: FiniteFloat
    duration_s: FiniteFloat
    load_factor: FiniteFloat
    arrivals: str
    mode: str
    machine: _Machine | None
    engine_end_s: FiniteFloat | None = None


class _Document(BaseModel):
    kind: Literal["load"]
    data: _LoadTest


def read_load(path: Path) -> Mapping[str, Any]:
    """Return the data of a load test.

    Raises:
        PlanningError: the file cannot be read, or is no report of a load test by this version.
    """
    try:
        document = parse_json(read_regular(path, MAX_DOCUMENT_BYTES).decode())
        _Document.model_validate(document, strict=True)
        if document["data"]["schema_version"] == SCHEMA_VERSION:
            measured: Mapping[str, Any] = document["data"]
            return measured
        reason = "its schema is of another version"
    except ValidationError as error:
        reason = first_error(error)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, LookupError, TypeError) as error:
        reason = str(error)
    raise PlanningError(
        f"this is no report of a load test by this version: {reason}",
        code="report.no_load_test",
        location=str(path),
        hint="Write one with `circinus load --json > load.json`.",
    )
