"""The plan that is in force when all is planned again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from circinus.matching import Matching


@dataclass(frozen=True)
class PreviousPlan:
    """What was matched before, as far as it is known."""

    file: Path | None = None
    matching: Matching | None = None
    """None: all is planned afresh."""
    warning: str = ""
    """Why a plan file that happened to be there was not used."""


def previous_plan(named: Path | None, output: Path, *, fresh: bool) -> PreviousPlan:
    """The plan file that was named, else the one that is about to be written over, else none.

    Raises:
        PlanningError: the plan file that was named cannot be read. One that merely is there is then not used.
    """
    from circinus.cli.options import require_file
    from circinus.errors import PlanningError
    from circinus.matching import load_plan_set

    if named is not None:
        require_file(named, "the plan file of what runs")
        return PreviousPlan(named, load_plan_set(named).matching)
    if fresh or not output.exists():
        return PreviousPlan()
    try:
        return PreviousPlan(output, load_plan_set(output).matching)
    except PlanningError as error:
        return PreviousPlan(warning=f"{error}. Planned as if nothing ran; name another plan with --from, or none with "
                            "--fresh")  # fmt: skip
