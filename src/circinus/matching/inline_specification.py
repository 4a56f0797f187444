"""Specification within a plan file, where it was made in Python and has no files to name."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from circinus.specification.loader import parse_specification

if TYPE_CHECKING:
    from circinus.specification import Specification


@dataclass(frozen=True)
class InlineSpecification:
    """YAML documents of a specification without files, and the folders of its code."""

    documents: str
    module_paths: tuple[str, ...]
    """Folders relative to that of the plan file."""

    @classmethod
    def of(cls, specification: Specification, folder: Path) -> Self | None:
        """Return what a plan file in `folder` has of a specification, or None if it was read from files."""
        if specification.sources or specification.files:
            return None
        folders = tuple(os.path.relpath(path.resolve(), folder.resolve()) for path in specification.module_paths)
        return cls(specification.to_yaml(), folders)

    def moved(self, source: Path, target: Path) -> Self:
        """Return the specification within a plan file that moves from one folder to another."""
        folders = tuple(os.path.relpath((source / path).resolve(), target) for path in self.module_paths)
        return replace(self, module_paths=folders)

    def load(self, plan_file: Path) -> Specification:
        """Return the specification within a plan file.

        Raises:
            SpecError: recorded arrivals are missing.
        """
        folders = [(plan_file.parent / path).resolve() for path in self.module_paths]
        specification = parse_specification(self.documents, f"{plan_file} (inline)", folders)
        return replace(specification, locations={})  # lines of the documents are none of the plan file
