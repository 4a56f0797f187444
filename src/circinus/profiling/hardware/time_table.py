"""Tables of times on hardware classes in CSV files, such as published measurements."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from circinus.errors import ProfileError
from circinus.profiling.store.imported_times import ImportedTime
from circinus.profiling.store.measurement_keys import LOCAL
from circinus.specification import KnobValues, OperatorSpec, Specification, knob_values
from circinus.specification.base_model import Scalar
from circinus.specification.diagnostics import did_you_mean, expected_choice
from circinus.specification.limits import MAX_DOCUMENT_BYTES
from circinus.specification.source_files import read_regular

_REQUIRED = ("class", "operator", "batch_size", "seconds")
_OPTIONAL = ("pipeline", "cpus", "origin")


def read_time_table(
    path: Path, specification: Specification, versions: Mapping[str, Mapping[str, str]], at: datetime
) -> tuple[ImportedTime, ...]:
    """Read a table of times, which is valid as a whole.

    A row has the seconds of a full batch of `batch_size` items of an operator on a hardware class. Further columns have
    the names of knobs. An empty or missing `pipeline` stands for every pipeline with the operator, an empty knob for
    each of its choices, and an empty `cpus` for the fewest that the operator may have. `origin` is free text.

    Args:
        path: CSV file in UTF-8 with a header.
        specification: pipelines, and hardware classes of the infrastructure.
        versions: pipeline -> `uses` reference -> version of the code; the table may name these pipelines only.
        at: time of the import.

    Raises:
        ProfileError: the file cannot be read (`times.unreadable`), or its first fault, with line and column.
    """
    try:
        content = read_regular(path, MAX_DOCUMENT_BYTES)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProfileError(
            f"cannot read the table of times: {reason}",
            code="times.unreadable",
            location=str(path),
            hint="Name a CSV file in UTF-8.",
        ) from error
    table = _Table(path, specification, versions, hashlib.sha256(content).hexdigest(), at)
    first_lines: dict[tuple[object, ...], int] = {}
    times = []
    for row, time in table.times(text):
        key = time.pipeline, time.operator, time.knobs, time.hardware_class, time.cpus, time.batch_size
        if key in first_lines:
            found = f"the operator, knobs, class, cpus and batch size of line {first_lines[key]} again"
            raise row.fault("batch_size", found, "each combination once", code="times.duplicate")
        first_lines[key] = row.line
        times.append(time)
    if not times:
        raise _fault(path, 2, "", "no rows", "at least one time", "times.empty")
    return tuple(times)


def _fault(path: Path, line: int, column: str, found: str, expected: str, code: str, hint: str = "") -> ProfileError:
    location = f"{path}:{line}: column {column}" if column else f"{path}:{line}"
    hint = hint[:1].upper() + hint[1:]
    return ProfileError(f"found {found}, expected {expected}", code=code, location=location, hint=hint)


@dataclass(frozen=True)
class _Row:
    path: Path
    line: int
    cells: Mapping[str, str]

    def get(self, column: str) -> str:
        return self.cells.get(column, "")

    def fault(
        self, column: str, found: str, expected: str, hint: str = "", *, code: str = "times.invalid_value"
    ) -> ProfileError:
        return _fault(self.path, self.line, column, found, expected, code, hint)

    def choice(self, column: str, names: Sequence[str], subject: str) -> str:
        """Return the name in a column, which must be one of `names`."""
        text = self.get(column)
        if text.lower() in names:
            return text.lower()  # Python writes True, YAML true
        if text not in names:
            raise self.fault(column, _quoted(text), expected_choice(names, subject), did_you_mean(text, names))
        return text

    def number(self, column: str, expected: str) -> float:
        """Return the positive number in a column."""
        try:
            value = float(self.get(column))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise self.fault(column, _quoted(self.get(column)), expected)
        return value


class _Table:
    def __init__(
        self,
        path: Path,
        specification: Specification,
        versions: Mapping[str, Mapping[str, str]],
        sha256: str,
        at: datetime,
    ) -> None:
        self._path, self._sha256, self._at = path, sha256, at.isoformat(timespec="seconds")
        self._versions = versions
        self._pipelines = {name: specification.pipelines[name] for name in versions}
        pools = () if specification.infrastructure is None else specification.infrastructure.pools
        self._classes = sorted({pool.hardware.name for pool in pools} - {LOCAL})
        operators = [operator for pipeline in self._pipelines.values() for operator in pipeline.operators]
        self._knobs = list(dict.fromkeys(knob.name for operator in operators for knob in operator.knobs))
        self._values: dict[str, tuple[KnobValues, ...]] = {}

    def times(self, text: str) -> Iterator[tuple[_Row, ImportedTime]]:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = [cell.strip() for cell in next(rows, [])]
            self._check(header)
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(header):
                    found, expected = f"{len(cells)} cells", f"at most {len(header)}, one for each column of the header"
                    raise _fault(self._path, rows.line_num, "", found, expected, "times.invalid_row")
                named = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                row = _Row(self._path, rows.line_num, named)
                for time in self._times(row):
                    yield row, time
        except csv.Error as error:
            raise _fault(
                self._path, rows.line_num, "", str(error), "comma-separated values", "times.invalid_row"
            ) from error

    def _check(self, header: Sequence[str]) -> None:
        allowed = (*_REQUIRED, *_OPTIONAL, *self._knobs)
        for position, name in enumerate(header):
            if name not in allowed or name in header[:position]:
                found = f"{_quoted(name)} twice" if name in header[:position] else _quoted(name)
                hint = did_you_mean(name, allowed) if name not in allowed else ""
                expected = expected_choice(allowed, "each column once, of")
                raise _fault(self._path, 1, str(position + 1), found, expected, "times.invalid_header", hint)
        missing = [name for name in _REQUIRED if name not in header]
        if missing:
            found, expected = ", ".join(header) or "an empty file", f"the columns {', '.join(_REQUIRED)}"
            raise _fault(self._path, 1, missing[0], found, expected, "times.invalid_header")

    def _times(self, row: _Row) -> Iterator[ImportedTime]:
        pipelines = list(self._pipelines)
        if row.get("pipeline"):
            pipelines = [row.choice("pipeline", pipelines, "a pipeline")]
        present = {name: {o.name: o for o in self._pipelines[name].operators} for name in pipelines}
        operator = row.choice("operator", sorted({o for own in present.values() for o in own}), "an operator")
        hardware_class = row.choice("class", self._classes, f"a hardware class of the pools other than {LOCAL}")
        batch_size = row.number("batch_size", "a whole number of items, at least 1")
        if batch_size != int(batch_size):
            raise row.fault("batch_size", _quoted(row.get("batch_size")), "a whole number of items, at least 1")
        seconds = row.number("seconds", "the seconds of the whole batch, more than 0")
        for name, own in present.items():
            if operator not in own:
                continue
            spec = own[operator]
            cpus = min(spec.cpus)
            if row.get("cpus"):
                cpus = row.number("cpus", _cpus_expected(spec))
                if cpus not in spec.cpus:
                    raise row.fault("cpus", _quoted(row.get("cpus")), _cpus_expected(spec))
            for knobs in self._selected(row, name, spec):
                yield ImportedTime(
                    pipeline=name,
                    operator=operator,
                    knobs=knobs,
                    hardware_class=hardware_class,
                    cpus=cpus,
                    batch_size=int(batch_size),
                    batch_s=seconds,
                    version=self._versions[name][spec.uses],
                    origin=row.get("origin"),
                    file=str(self._path),
                    sha256=self._sha256,
                    at=self._at,
                )

    def _selected(self, row: _Row, pipeline: str, spec: OperatorSpec) -> list[KnobValues]:
        """Return the operator's knob values that a row is about."""
        named: dict[str, Scalar] = {}
        knobs = {knob.name: knob for knob in spec.knobs}
        for name in self._knobs:
            text = row.get(name)
            if text and name not in knobs:
                raise row.fault(name, _quoted(text), f"nothing, as operator {spec.name} has no knob {name}")
            if text:
                choices = {str(c).lower() if isinstance(c, bool) else str(c): c for c in knobs[name].choices}
                named[name] = choices[row.choice(name, list(choices), f"a choice of knob {name}")]
        key = f"{pipeline}/{spec.name}"
        if key not in self._values:
            self._values[key] = knob_values(spec)
        selected = [v for v in self._values[key] if all(v.as_dict().get(k) == named[k] for k in named)]
        if not selected:
            found = ", ".join(f"{name}={value}" for name, value in named.items())
            raise row.fault(next(iter(named)), found, f"knob values of operator {spec.name} that exist together")
        return selected


def _cpus_expected(spec: OperatorSpec) -> str:
    return f"CPUs that operator {spec.name} may have ({', '.join(f'{cpus:g}' for cpus in spec.cpus)})"


def _quoted(text: str) -> str:
    return repr(text) if text else "nothing"
