"""Plan files: written atomically, and read back exactly."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circinus.errors import PlanningError
from circinus.estimation import NO_CORRECTIONS, Corrections
from circinus.matching.inline_specification import InlineSpecification
from circinus.matching.plan_code import code_files, code_seal
from circinus.matching.plan_decisions import files_of, parts_of
from circinus.matching.plan_set import SCHEMA_VERSION, Matching, PlanFile, ProfileCoverage
from circinus.specification import Specification
from circinus.specification.atomic_file import write_atomically
from circinus.specification.diagnostics import first_error
from circinus.specification.json_dump import json_text, parse_json, refuse_not_finite
from circinus.specification.limits import MAX_DOCUMENT_BYTES
from circinus.specification.source_files import read_regular

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from circinus.profiling import PipelineProfile

KIND = "PlanSet"


def make_plan_set(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    matching: Matching,
    *,
    plan_file: Path,
    profile_store: Path,
    seed: int,
    created_at: datetime,
    planning_s: float,
    corrections: Corrections = NO_CORRECTIONS,
) -> PlanFile:
    """Return the content of a plan file.

    Args:
        specification: of the plan; its source files are stored relative to the plan file.
        profiles: pipeline name -> profile used for planning.
        matching: the plans.
        plan_file: path of the file to be written.
        profile_store: source of the profiles.
        seed: random seed for the order of data set items.
        created_at: current time.
        planning_s: duration of planning.
        corrections: applied to the profiles for planning.
    """
    folder = plan_file.parent.resolve()
    versions = {uses: version for profile in profiles.values() for uses, version in profile.code_versions.items()}
    inline = InlineSpecification.of(specification, folder)
    classes = sorted({profile.hardware_class for profile in profiles.values()})
    return PlanFile(
        parts=parts_of(specification),
        files=files_of(specification, folder),
        inline=inline,
        code_versions=versions,
        code_files=code_files(versions, specification, folder),
        seal=code_seal(specification, inline),
        seed=seed,
        profile_store=os.path.relpath(profile_store.resolve(), folder),
        hardware_class=", ".join(classes),
        matching=matching,
        created_at=created_at.isoformat(timespec="seconds"),
        planning_s=planning_s,
        corrections=corrections,
        slos={query.name: query.slos for query in specification.queries},
        coverage={name: ProfileCoverage.of(profile) for name, profile in profiles.items()},
        folder=folder,
    )


def save_plan_set(plan_set: PlanFile, path: Path) -> None:
    """Write a plan file atomically: an existing file stays until the new one is complete.

    The file names its specification and profile store relative to its folder, whatever the plan set was made for.

    Raises:
        PlanningError: the file cannot be written.
    """
    moved = plan_set.moved_to(path.parent)
    document = _adapter().dump_python(moved, mode="json", exclude=moved.omitted)
    text = json_text({"kind": KIND, **document}, indent=1, by_alias=False)
    try:
        refuse_not_finite(text)
        write_atomically(path, f"{text}\n")
    except OSError as error:
        hint = "Name another file with --output."
        raise _fault(path, f"cannot write plan file: {error}", code="plan.unwritable", hint=hint) from error
    except ValueError as error:
        problem = f"the plan was not written, as it contains a number that is not finite ({error})"
        raise _fault(path, problem, code="plan.not_finite", hint="") from error


def load_plan_set(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        PlanningError: the file is missing, or is no plan file of this version.
    """
    from pydantic import ValidationError

    try:
        document = parse_json(read_regular(path, MAX_DOCUMENT_BYTES).decode())
    except FileNotFoundError as error:
        problem = "no such file, expected a plan file; write one with `circinus plan`"
        raise _fault(path, problem, code="file.missing", hint="") from error
    except OSError as error:
        hint = "Write it to a file first." if error.errno == errno.EINVAL else ""
        raise _fault(path, f"cannot read plan file: {error.strerror}", code="plan.unreadable", hint=hint) from error
    except ValueError as error:  # no JSON, or not even text
        raise _fault(path, f"the plan file is not valid JSON: {error}", code="plan.invalid_json") from error
    _check_kind(path, document)
    try:
        plan_set = _adapter().validate_python({name: value for name, value in document.items() if name != "kind"})
    except ValidationError as error:
        raise _fault(path, f"the plan file is damaged: {first_error(error)}", code="plan.damaged") from error
    return replace(plan_set, folder=path.parent.resolve())


def _check_kind(path: Path, document: Any) -> None:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind != KIND:
        problem = f"not a plan file: kind must be {KIND}, got {kind}"
        raise _fault(path, problem, code="plan.wrong_kind", hint="Write one with `circinus plan`.")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        problem = f"schema version must be {SCHEMA_VERSION}, got {version}"
        raise _fault(path, f"the plan file is of another version of Circinus: {problem}", code="plan.wrong_version")


def _fault(path: Path, problem: str, *, code: str, hint: str = "Run `circinus plan` again.") -> PlanningError:
    return PlanningError(problem, code=code, location=str(path), hint=hint)


@cache
def _adapter() -> TypeAdapter[PlanFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlanFile)
