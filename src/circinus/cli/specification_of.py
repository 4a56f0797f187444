"""The specification that a plan file was made from, as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.matching import PlanSet
    from circinus.spec import Specification


def specification_of(plan_set: PlanSet, plan_file: Path) -> Specification:
    """Load it from the files that the plan names.

    Raises:
        SpecError: the files are gone or faulty.
    """
    from circinus.spec.document import load_specification

    return load_specification([plan_file.parent / file for file in plan_set.files])


def profile_store_of(plan_set: PlanSet, plan_file: Path) -> Path:
    """The profile store that the plan was made from."""
    return plan_file.parent / plan_set.profile_store
