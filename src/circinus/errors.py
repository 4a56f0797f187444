"""The family of errors that Circinus raises on purpose.

Every message says what was found, where, what was expected and what to do. The command line prints the message
without a traceback and exits with the error's `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CircinusError(Exception):
    """Base of all errors that are part of the interface."""

    exit_code = 1


@dataclass(frozen=True)
class Fault:
    """One thing wrong in what the user wrote: where it stands, what was found there and what was expected."""

    file: str
    line: int
    field: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}: found {self.found}, expected {self.expected}{hint}"


class SpecError(CircinusError):
    """The specification is wrong; carries every fault that was found, not only the first."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class OperatorError(CircinusError):
    """An operator cannot be found or loaded, or it failed on an item."""


class ProfileError(CircinusError):
    """A profile is missing, of another schema, or contradicts what its declaration promises."""


class PlanningError(CircinusError):
    """The planner was given a problem that has no meaning (not: a query that cannot be served)."""


class MissingFileError(PlanningError):
    """A file that was named is not there: most likely it was typed wrongly."""

    exit_code = 2


class StalePlanError(CircinusError):
    """A plan file no longer agrees with the specification or the code it was made from."""

    exit_code = 3


class ServingError(CircinusError):
    """An engine cannot do what it was asked: no room on this machine, not running, a replica that died."""
