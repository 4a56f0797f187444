"""Specification within a plan file, where it was made in Python and has no files to name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator

from circinus.specification.loader import parse_specification

if TYPE_CHECKING:
    from circinus.specification import Specification


def _path(text: str) -> str:
    """Return the text of a path; ValueError: no file can have it."""
    if b"\0" in os.fsencode(text):
        raise ValueError("a path has no null character")
    return text


PathText = Annotated[str, AfterValidator(_path)]


@dataclass(frozen=True)
class InlineSpecification:
    """YAML documents of a specification without files, and its folders, relative to that of the plan file."""

    documents: str
    module_paths: tuple[PathText, ...]
    arrival_folders: tuple[PathText, ...]

    @classmethod
    def of(cls, specification: Specification, folder: Path) -> Self | None:
        """Return the specification for a plan file in `folder`, or None if it was read from files."""
        if specification.sources or specification.files:
            return None
        return cls(
            specification.to_yaml(),
            _relative(specification.module_paths, folder),
            _relative(specification.arrival_folders, folder),
        )

    def moved(self, source: Path, target: Path) -> Self:
        """Return the specification within a plan file that moves from one folder to another."""
        return replace(
            self,
            module_paths=_relative(_resolved(self.module_paths, source), target),
            arrival_folders=_relative(_resolved(self.arrival_folders, source), target),
        )

    def load(self, plan_file: Path) -> Specification:
        """Return the specification within a plan file.

        Raises:
            SpecError: recorded arrivals are missing.
        """
        modules, arrivals = (_resolved(paths, plan_file.parent) for paths in (self.module_paths, self.arrival_folders))
        specification = parse_specification(self.documents, f"{plan_file} (inline)", arrivals)
        # Lines of the documents are none of the plan file.
        return replace(specification, module_paths=modules, arrival_folders=arrivals, locations={})


def _relative(paths: Iterable[Path], folder: Path) -> tuple[str, ...]:
    return tuple(os.path.relpath(path.resolve(), folder.resolve()) for path in paths)


def _resolved(paths: Iterable[str], folder: Path) -> tuple[Path, ...]:
    return tuple((folder / path).resolve() for path in paths)
