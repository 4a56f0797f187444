"""Errors that callers may handle: each has a code, a location and a hint.

The command line prints the message without a traceback and exits with the error's `exit_code`; with `--json` it prints
`to_dict()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

OVERLOADED = "query.overloaded"
"""Code of an `OverloadedError`."""


class CircinusError(Exception):
    """Base class of the errors that are part of the interface.

    Args:
        message: problem, without the location and without a final full stop.
        code: stable identifier `area.problem`, such as `query.pinned_infeasible`.
        location: file, line, field or object that is wrong.
        hint: the fix, as an imperative.

    Example:
        >>> import circinus as c
        >>> error = c.CircinusError("weight is 0", code="query.invalid_weight", location="query q", hint="Raise it.")
        >>> print(error)
        query q: weight is 0. Raise it.
        >>> error.code
        'query.invalid_weight'
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str = "unspecified", location: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.location = location
        self.hint = hint

    def __str__(self) -> str:
        """Return `location: message. hint`."""
        located = f"{self.location}: {self.message}" if self.location else self.message
        return f"{located}. {self.hint}" if self.hint else located

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep all attributes when the error crosses a process boundary."""
        return _rebuilt, (type(self), self.args, self.__dict__)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a dictionary for JSON."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "message": str(self),
            "location": self.location,
            "hint": self.hint,
            "diagnostics": [],
        }


def _rebuilt(cls: type[CircinusError], args: tuple[Any, ...], attributes: dict[str, Any]) -> CircinusError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


@dataclass(frozen=True)
class Diagnostic:
    """Problem of a specification: its location, the value found, and the expected value.

    Example:
        >>> import circinus as c
        >>> print(c.Diagnostic("queries.yaml", 8, "spec.rate", "5", "a rate such as 5/s", hint="add the unit: /s"))
        queries.yaml:8: spec.rate: found 5, expected a rate such as 5/s; add the unit: /s
    """

    file: str
    line: int
    """Line in the file, counted from 1, or 0 for an object without one."""
    field: str
    """Path of the field as written, such as `spec.pools[1].cpus`."""
    found: str
    expected: str
    hint: str = ""
    code: str = "specification.invalid_value"

    @property
    def location(self) -> str:
        """`file:line: field`."""
        line = f"{self.file}:{self.line}" if self.line else self.file
        return f"{line}: {self.field}"

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.location}: found {self.found}, expected {self.expected}{hint}"


class SpecError(CircinusError):
    """Invalid specification, with all of its problems.

    Args:
        faults: the problems, at least one.

    Example:
        >>> import circinus as c
        >>> try:
        ...     c.parse_specification("apiVersion: circinus/v1\\nkind: Query\\nspec: {rate: 5}")
        ... except c.SpecError as error:
        ...     [fault.field for fault in error.faults]
        ['metadata', 'spec.pipeline', 'spec.source', 'spec.rate']
    """

    exit_code = 2

    def __init__(self, faults: Sequence[Diagnostic]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        super().__init__("\n".join(str(fault) for fault in faults), code=first.code)
        self.location, self.hint = first.location, first.hint

    def __str__(self) -> str:
        """Return one line for each problem."""
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a dictionary for JSON, with all problems in `diagnostics`."""
        return {**super().to_dict(), "diagnostics": [asdict(fault) for fault in self.faults]}


class OperatorError(CircinusError):
    """Failure to resolve or load an operator, or to process an item with it.

    Example:
        >>> import circinus as c
        >>> try:
        ...     c.operator(lambda: None)
        ... except c.OperatorError as error:
        ...     error.code
        'operator.no_input'
    """


class ProfileError(CircinusError):
    """Missing profile, or a profile with another schema or of another pipeline than declared.

    Example:
        >>> import circinus as c
        >>> print(c.ProfileError("the store does not exist", code="store.missing", hint="Run `circinus profile`."))
        the store does not exist. Run `circinus profile`.
    """


class PlanningError(CircinusError):
    """Malformed planning problem. A query that cannot be served is a rejection, not an error.

    Example:
        >>> import circinus as c
        >>> print(c.PlanningError("weight must be positive", code="query.invalid_weight", location="query q"))
        query q: weight must be positive
    """


class MissingFileError(PlanningError):
    """Missing file that was named explicitly."""

    exit_code = 2


class StalePlanError(CircinusError):
    """Plan file that no longer matches the specification or the code it was planned from.

    Example:
        >>> import circinus as c
        >>> c.StalePlanError.exit_code
        3
    """

    exit_code = 3


class ServingError(CircinusError):
    """Failure of an engine: insufficient capacity, an engine that is not running, a replica that exited.

    Example:
        >>> import circinus as c
        >>> print(c.ServingError("pool edge has no nodes", code="pool.no_node", hint="Add a node, or plan again."))
        pool edge has no nodes. Add a node, or plan again.
    """


class OverloadedError(ServingError):
    """Request that an engine refuses at once, as it could not be answered in time or would take too much memory.

    Args:
        message: see `CircinusError`.
        retry_after_s: seconds after which a request is likely to be accepted.
        location: see `CircinusError`.
        hint: see `CircinusError`.

    Example:
        >>> import circinus as c
        >>> c.OverloadedError("7 s of work are queued", retry_after_s=2.0).code
        'query.overloaded'
    """

    def __init__(self, message: str, *, retry_after_s: float, location: str = "", hint: str = "") -> None:
        super().__init__(message, code=OVERLOADED, location=location, hint=hint)
        self.retry_after_s = retry_after_s

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a dictionary for JSON, with `retry_after_s`."""
        return {**super().to_dict(), "retry_after_s": self.retry_after_s}
