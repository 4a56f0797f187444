"""Complete specification: pipelines, infrastructure and queries that refer to each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from circinus.errors import CircinusError, Diagnostic, PlanningError, SpecError
from circinus.specification.arrival_files import resolve_arrival_files
from circinus.specification.base_model import SpecModel
from circinus.specification.code_references import folders_of
from circinus.specification.cross_references import check_references
from circinus.specification.diagnostics import Issue, describe
from circinus.specification.diagnostics import Path as FieldPath
from circinus.specification.document import Document, SourceLocation
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import Query
from circinus.specification.yaml.writer import to_yaml

_Model = TypeVar("_Model", bound=SpecModel)


@dataclass(frozen=True)
class Specification:
    """Input of the planner. `load_specification`, `parse_specification` and `of` check all of its references.

    Two specifications with equal content are equal, independent of their files.

    Example:
        >>> import circinus as c
        >>> pipeline = c.Pipeline(
        ...     name="echo",
        ...     operators=[c.OperatorSpec(name="echo", uses="my_code:echo")],
        ...     metric=c.MetricSpec(name="exact match", uses="my_code:exact_match"),
        ...     dataset=c.DatasetSpec(uses="my_code:items"),
        ... )
        >>> specification = c.Specification.of([pipeline])
        >>> c.parse_specification(specification.to_yaml()) == specification
        True
    """

    pipelines: Mapping[str, Pipeline]
    infrastructure: Infrastructure | None
    queries: tuple[Query, ...]
    module_paths: tuple[Path, ...] = field(default=(), compare=False)
    """Folders, usually those of the files, put before `sys.path` to import operators, metrics and data sets."""
    arrival_folders: tuple[Path, ...] = field(default=(), compare=False)
    """Search path of relative files of recorded arrivals; empty: the folder of the document."""
    files: tuple[Path, ...] = field(default=(), compare=False)
    sources: tuple[Path, ...] = field(default=(), compare=False)
    """Files and folders passed by the caller. A folder may receive more files later."""
    skipped_documents: tuple[str, ...] = field(default=(), compare=False)
    """Skipped contents of the folders, each with its reason: empty files, documents of other tools."""
    locations: Mapping[tuple[str, str], SourceLocation] = field(default_factory=dict, compare=False, repr=False)
    """(kind, name) -> source of the document; empty for objects created in Python."""

    @classmethod
    def of(
        cls,
        pipelines: Sequence[Pipeline] = (),
        infrastructure: Infrastructure | None = None,
        queries: Sequence[Query] = (),
        module_paths: Sequence[Path] = (),
    ) -> Specification:
        """Create a specification from Python objects, with the checks that apply to files.

        Relative paths of recorded arrivals are resolved in `module_paths`, or else in the current folder.

        Raises:
            SpecError: references between the objects or recorded arrivals are invalid; lists all problems.
            CircinusError: an argument is of another type, such as a pipeline outside of a list.
        """
        pipelines = _checked(pipelines, Pipeline, "pipelines", "a list of Pipeline objects")
        queries = _checked(queries, Query, "queries", "a list of Query objects")
        infrastructures = (
            ()
            if infrastructure is None
            else _checked([infrastructure], Infrastructure, "infrastructure", "one Infrastructure")
        )
        models: list[Pipeline | Infrastructure | Query] = [*pipelines, *infrastructures, *queries]
        documents = [Document.of(model) for model in models]
        faults = check_references(documents)
        folders = (*map(Path, module_paths), Path())
        documents, arrival_faults = resolve_arrival_files(documents, folders)
        if faults or arrival_faults:
            raise SpecError([*faults, *arrival_faults])
        resolved = tuple(document.content for document in documents if isinstance(document.content, Query))
        references = [reference for pipeline in pipelines for reference in pipeline.code_references]
        paths = tuple(dict.fromkeys((*module_paths, *folders_of(references))))
        return cls(
            {pipeline.name: pipeline for pipeline in pipelines},
            infrastructure,
            resolved,
            paths,
            arrival_folders=tuple(folder.absolute() for folder in folders),
        )

    @property
    def metric_names(self) -> dict[str, str]:
        """Query -> name of the metric that its accuracy is a mean of."""
        return {
            query.name: self.pipelines[query.pipeline].metric.name
            for query in self.queries
            if query.pipeline in self.pipelines
        }

    @property
    def required_infrastructure(self) -> Infrastructure:
        """The infrastructure, which plans require.

        Raises:
            PlanningError: there is none.
        """
        if self.infrastructure is None:
            raise PlanningError(
                "the specification has no infrastructure",
                code="specification.no_infrastructure",
                hint="Add a document of kind Infrastructure.",
            )
        return self.infrastructure

    def diagnostic(
        self, kind: str, name: str, path: FieldPath, found: str, expected: str, hint: str = ""
    ) -> Diagnostic:
        """Return a diagnostic about a field of the document `name`, with its line.

        Args:
            kind: kind of the document: `Pipeline`, `Infrastructure` or `Query`.
            path: the field below `spec`, in its full form: `("operators", 2, "knobs", 0, "choices")`.
        """
        document = Document(kind, name, {}, self.locations.get((kind, name)))
        return document.fault(Issue(path, found, expected, hint))

    def to_yaml(self) -> str:
        """Return YAML documents, with units, that load back to an equal specification.

        Recorded arrivals are written as the path of their file.
        """
        infrastructure = () if self.infrastructure is None else (self.infrastructure,)
        return to_yaml((*infrastructure, *self.pipelines.values(), *self.queries))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content, independent of file names, layout and the order of documents.

        Fields with their default value are excluded, so that adding a field with a default keeps all fingerprints.
        """
        infrastructure = () if self.infrastructure is None else (self.infrastructure,)
        models = (*infrastructure, *self.pipelines.values(), *self.queries)
        contents = sorted(
            json.dumps([type(model).__name__, _canonical(model.model_dump(exclude_defaults=True))], sort_keys=True)
            for model in models
        )
        return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _checked(value: object, kind: type[_Model], argument: str, expected: str) -> tuple[_Model, ...]:
    """Return the models of an argument.

    Raises:
        CircinusError: it is no list of them (`usage.invalid_value`).
    """
    models = tuple(value) if isinstance(value, Iterable) and not isinstance(value, SpecModel | str | Mapping) else None
    wrong = [value] if models is None else [model for model in models if not isinstance(model, kind)]
    if models is None or wrong:
        raise CircinusError(
            f"found {describe(wrong[0])}, expected {expected}",
            code="usage.invalid_value",
            location=argument,
            hint="Put it into a list." if isinstance(value, kind) else "",
        )
    return models


def _canonical(value: Any) -> Any:
    """Return `value` with numbers that are equal in Python (1, 1.0 and True) as one JSON value."""
    if isinstance(value, Mapping):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(part) for part in value]
    if isinstance(value, bool | float) and value == int(value):
        return int(value)
    return value
