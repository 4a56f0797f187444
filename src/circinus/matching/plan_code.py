"""Code that a plan file refers to: whether it changed, and whether it may run. Reading a plan imports none of it.

A plan file that another user sent names any folder, and code in it would run with the reader's rights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.errors import OperatorError
from circinus.operators import resolve
from circinus.operators.source_version import file_version, versioned_file
from circinus.seals import is_sealed, seal

if TYPE_CHECKING:
    from circinus.matching.inline_specification import InlineSpecification
    from circinus.matching.plan_set import PlanFile
    from circinus.specification import Specification

_PURPOSE = "plan"
_STATE_FOLDER = ".circinus"
"""Folder of generated files, below the folder that they belong to."""


def code_files(versions: Mapping[str, str], specification: Specification, folder: Path) -> dict[str, str]:
    """Return `uses` reference -> file whose hash is the version, relative to `folder`.

    References with a declared version, and those that cannot be imported, have none.
    """
    files = {}
    for reference, version in versions.items():
        try:
            path = versioned_file(resolve(reference, specification.module_paths), version)
        except OperatorError:
            continue
        if path is not None:
            files[reference] = os.path.relpath(path.resolve(), folder.resolve())
    return files


def changed_code(plan_set: PlanFile, specification: Specification, pipelines: Collection[str]) -> list[str]:
    """Return the changes of the code of some pipelines, by the hashes of its files.

    Replicas compare the versions of operators without a file when they load them. A file that is missing outside the
    specification's folders is not compared: a package may be installed elsewhere.
    """
    uses = {uses for name in pipelines for uses in specification.pipelines[name].code_references}
    changes = []
    for reference in sorted(uses & plan_set.code_files.keys() & plan_set.code_versions.keys()):
        # The folder of a plan that was not written need not exist.
        path = Path(os.path.normpath(plan_set.folder / plan_set.code_files[reference]))
        try:
            if file_version(path) != plan_set.code_versions[reference]:
                changes.append(f"the code of {reference} changed")
        except OSError as error:
            is_own = any(path.resolve().is_relative_to(folder.resolve()) for folder in specification.module_paths)
            if is_own or not isinstance(error, FileNotFoundError):
                changes.append(f"the code of {reference} cannot be read ({error})")
    return changes


def code_seal(specification: Specification, inline: InlineSpecification | None) -> str:
    """Return the seal of a plan that this user makes, or no text where no key can be kept.

    It covers the folders of the code and, where the plan file contains the specification, its documents.
    """
    return seal(_PURPOSE, _sealed(specification, inline)).hex()


def foreign_code(plan_set: PlanFile, specification: Specification) -> str | None:
    """Return where code of a plan would be imported from that may not run, or None if all of it may.

    It may run if this user made the plan, or if the specification's files are in the plan's own folder or below it.
    Documents within a plan file prove nothing by their place.
    """
    try:
        found = bytes.fromhex(plan_set.seal)
    except ValueError:
        found = b""
    if is_sealed(_PURPOSE, _sealed(specification, plan_set.inline), found):
        return None
    folders = [folder.resolve() for folder in specification.module_paths]
    own = plan_set.folder.parent if plan_set.folder.name == _STATE_FOLDER else plan_set.folder
    if plan_set.inline is None:
        folders = [folder for folder in folders if not folder.is_relative_to(own)]
        if not folders:
            return None
    return ", ".join(map(str, folders)) or "installed packages"


def _sealed(specification: Specification, inline: InlineSpecification | None) -> bytes:
    folders = sorted({str(folder.resolve()) for folder in specification.module_paths})
    return json.dumps([folders, None if inline is None else inline.documents]).encode()
