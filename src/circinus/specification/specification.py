"""A whole specification: pipelines, infrastructure and queries that refer to each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circinus.errors import Diagnostic, SpecError
from circinus.specification.arrival_files import resolve_arrival_files
from circinus.specification.code_references import folders_of
from circinus.specification.cross_references import check_references
from circinus.specification.diagnostics import Issue
from circinus.specification.diagnostics import Path as FieldPath
from circinus.specification.document import Document, SourceLocation
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import Query
from circinus.specification.yaml.writer import to_yaml


@dataclass(frozen=True)
class Specification:
    """Everything the planner is told. All references have been checked when it came from `load_specification` or `of`.

    Two specifications are equal when they say the same, wherever they were read from.
    """

    pipelines: Mapping[str, Pipeline]
    infrastructure: Infrastructure | None
    queries: tuple[Query, ...]
    module_paths: tuple[Path, ...] = field(default=(), compare=False)
    """Folders put before `sys.path` when operators, metrics and data sets are imported (those of the files)."""
    files: tuple[Path, ...] = field(default=(), compare=False)
    sources: tuple[Path, ...] = field(default=(), compare=False)
    """Files and folders as they were named: a folder may get further files."""
    skipped_documents: tuple[str, ...] = field(default=(), compare=False)
    """What stands in folders beside the specification and is none of it: empty files, documents of other tools."""
    locations: Mapping[tuple[str, str], SourceLocation] = field(default_factory=dict, compare=False, repr=False)
    """(kind, name) -> where the document was written; empty for what was made in Python."""

    @classmethod
    def of(
        cls,
        pipelines: Sequence[Pipeline] = (),
        infrastructure: Infrastructure | None = None,
        queries: Sequence[Query] = (),
        module_paths: Sequence[Path] = (),
    ) -> Specification:
        """From objects made in Python, after the same checks that files go through.

        Recordings of arrivals are looked for in `module_paths`; without those, in the current folder.

        Raises:
            SpecError: with every fault between the objects.
        """
        places = () if infrastructure is None else (infrastructure,)
        documents = [Document.of(model) for model in (*pipelines, *places, *queries)]
        faults = check_references(documents)
        documents, unplayable = resolve_arrival_files(documents, module_paths)
        if faults or unplayable:
            raise SpecError([*faults, *unplayable])
        filled = tuple(document.content for document in documents if isinstance(document.content, Query))
        uses = [
            reference
            for pipeline in pipelines
            for reference in (
                *(operator.uses for operator in pipeline.operators),
                pipeline.metric.uses,
                pipeline.dataset.uses,
                pipeline.dataset.features,
            )
        ]
        paths = tuple(dict.fromkeys((*module_paths, *folders_of(uses))))
        return cls({p.name: p for p in pipelines}, infrastructure, filled, paths)

    def diagnostic(
        self, kind: str, name: str, path: FieldPath, found: str, expected: str, hint: str = ""
    ) -> Diagnostic:
        """A fault of the document `name` of kind `kind` (`Pipeline`, ...), with the line of its field.

        Args:
            path: the field below `spec`, in its full form: `("operators", 2, "knobs", 0, "choices")`.
        """
        document = Document(kind, name, {}, self.locations.get((kind, name)))
        return document.fault(Issue(path, found, expected, hint))

    def to_yaml(self) -> str:
        """YAML documents, with units as people write them, that load back to an equal specification.

        Recordings of arrivals are named, not written.
        """
        infrastructure = () if self.infrastructure is None else (self.infrastructure,)
        return to_yaml((*infrastructure, *self.pipelines.values(), *self.queries))

    def fingerprint(self) -> str:
        """SHA-256 over the content (not over file names, layout or the order of documents); equal ones have the same.

        Fields that have their default are left out, so that a new field with a default changes nothing.
        """
        infrastructure = () if self.infrastructure is None else (self.infrastructure,)
        models = (*infrastructure, *self.pipelines.values(), *self.queries)
        contents = sorted(
            json.dumps([type(model).__name__, _canonical(model.model_dump(exclude_defaults=True))], sort_keys=True)
            for model in models
        )
        return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """Values that are equal in Python (1, 1.0 and True) made the same in JSON."""
    if isinstance(value, Mapping):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(part) for part in value]
    if isinstance(value, bool | float) and value == int(value):
        return int(value)
    return value
