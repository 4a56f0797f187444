"""Errors that callers may handle: each has a code, a location and a hint.

The command line prints the message without a traceback and exits with the error's `exit_code`; with `--json` it prints
`to_dict()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


class CircinusError(Exception):
    """Base class of the errors that are part of the interface.

    Args:
        message: what is wrong, without the location and without a final full stop.
        code: stable identifier `area.problem`, such as `query.pinned_infeasible`.
        location: file, line, field or object that is wrong.
        hint: the fix, as an imperative.
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
        """Return the error as a JSON document has it."""
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
    """One problem of a specification: its location, the value found, and what was expected."""

    file: str
    line: int
    field: str
    found: str
    expected: str
    hint: str = ""
    code: str = "specification.invalid_value"

    @property
    def location(self) -> str:
        """`file:line: field`."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}"

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.location}: found {self.found}, expected {self.expected}{hint}"


class SpecError(CircinusError):
    """The specification is wrong. Carries every problem, not only the first.

    Args:
        faults: the problems, at least one.
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
        """Return the error as a JSON document has it, with all problems in `diagnostics`."""
        return {**super().to_dict(), "diagnostics": [asdict(fault) for fault in self.faults]}


class OperatorError(CircinusError):
    """An operator cannot be found or loaded, or it failed on an item."""


class ProfileError(CircinusError):
    """A profile is missing, has another schema, or contradicts its declaration."""


class PlanningError(CircinusError):
    """The planning problem is malformed. A query that cannot be served is a rejection, not an error."""


class MissingFileError(PlanningError):
    """A file that was named does not exist."""

    exit_code = 2


class StalePlanError(CircinusError):
    """A plan file no longer agrees with the specification or the code that it was made from."""

    exit_code = 3


class ServingError(CircinusError):
    """An engine cannot do what was requested: no room on this machine, not running, a replica that ended."""
