"""Documents of a specification: the envelope (`apiVersion`, `kind`, `metadata`, `spec`) and its content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from circinus.errors import Diagnostic
from circinus.specification.base_model import Name, SpecModel
from circinus.specification.diagnostics import Expected, Issue, Path, closest_match, describe, issues_of
from circinus.specification.document_validators import get_field
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import Query
from circinus.specification.units import REQUIRE_UNITS
from circinus.specification.yaml.reader import YamlNode, dotted

M = TypeVar("M", bound=SpecModel)

API_VERSION = "circinus/v1"
KINDS: Mapping[str, type[Pipeline | Infrastructure | Query]] = {
    "Pipeline": Pipeline,
    "Infrastructure": Infrastructure,
    "Query": Query,
}
WHOLE = "(document)"
"""Placeholder for the field in diagnostics about a whole document."""
_UNNAMED = "unnamed"
_CONTEXT = {REQUIRE_UNITS: True}


class Metadata(SpecModel):
    """Metadata of a document."""

    name: Name
    """Name of the document, unique among the documents of its kind."""


class Envelope(SpecModel):
    """Fields around the content of every document."""

    api_version: Annotated[Literal["circinus/v1"], Expected(API_VERSION)] = Field(alias="apiVersion")
    kind: Annotated[Literal["Pipeline", "Infrastructure", "Query"], Expected(", ".join(KINDS))]
    metadata: Metadata
    spec: Mapping[str, Any]

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        spec = get_field(content, "spec")
        if isinstance(spec, Mapping) and "name" in spec:
            yield Issue(("spec", "name"), "the unknown field name", "the name in metadata.name")


@dataclass(frozen=True)
class SourceLocation:
    """File and parsed text of a document."""

    file: str
    tree: YamlNode

    def locate(self, path: Path) -> tuple[int, str]:
        """Return the line and the dotted path, as written, of the field `path` of the model."""
        return self.tree.locate(("metadata", "name") if path == ("name",) else ("spec", *path))


@dataclass(frozen=True)
class Document:
    """Document that was read, valid or not."""

    kind: str
    name: str | None
    """Name of the document, or None if invalid."""
    content: Pipeline | Infrastructure | Query | Mapping[str, Any]
    """The model, or the raw `spec` of an invalid document."""
    source: SourceLocation | None = None
    """Source of the document, or None for an object created in Python."""

    @classmethod
    def of(cls, model: Pipeline | Infrastructure | Query) -> Document:
        """Return the document of an object created in Python."""
        return cls(type(model).__name__, model.name, model)

    def fault(self, issue: Issue) -> Diagnostic:
        """Return the diagnostic of an issue, located in the file or, without a file, by the document's name."""
        if self.source is None:
            file, line, field = f"{self.kind} {self.name}", 0, dotted(issue.path).removeprefix(".")
        else:
            file = self.source.file
            line, field = self.source.locate(issue.path)
        return Diagnostic(file, line, field or WHOLE, issue.found, issue.expected, issue.hint)

    @property
    def location(self) -> str:
        """Location of the document, for hints in diagnostics of other documents."""
        return f"{self.source.file}:{self.source.tree.line}" if self.source is not None else "given"

    def valid_part(self, path: Path, kind: type[M]) -> M | None:
        """Return the part at `path`, or None if it is absent or invalid."""
        part: Any = self.content
        for step in path:
            part = get_field(part, step) if isinstance(step, str) else part[step]
        if part is None or isinstance(part, kind):
            return part
        return _read(kind, part)[0]


def read_document(tree: YamlNode, file: str) -> tuple[Document | None, list[Diagnostic]]:
    """Read a document, and check it without reference to other documents.

    Returns:
        The document, or None if its kind is unrecognizable, and its problems.
    """
    content = tree.value
    if not isinstance(content, dict):
        expected = "a mapping with the fields apiVersion, kind, metadata, spec"
        return None, [Diagnostic(file, tree.line, WHOLE, describe(content), expected)]
    faults: list[Diagnostic] = []
    for issue in _read(Envelope, content)[1]:
        line, field = tree.locate(issue.path)
        faults.append(Diagnostic(file, line, field, issue.found, issue.expected, issue.hint))
    written = content.get("kind")
    kind = closest_match(written, KINDS) if isinstance(written, str) else None
    if kind is None:
        return None, faults
    name = get_field(content.get("metadata"), "name")
    has_name = isinstance(name, str) and not any(fault.field == "metadata.name" for fault in faults)
    name = name if has_name else None
    spec = content.get("spec")
    if not isinstance(spec, dict):
        return Document(kind, name, {}, SourceLocation(file, tree)), faults
    given = {**spec, "name": name if has_name else _UNNAMED}
    model, issues = _read(KINDS[kind], given)
    content = model if has_name and model is not None else given
    document = Document(kind, name, content, SourceLocation(file, tree))
    return document, faults + [document.fault(issue) for issue in issues]


def foreign_kind(tree: YamlNode) -> str | None:
    """Return the kind of another tool's document, such as `ray.io/v1 RayService`, or None if it may be ours."""
    version, kind = get_field(tree.value, "apiVersion"), get_field(tree.value, "kind")
    group = version.partition("/")[0] if isinstance(version, str) else ""
    # A misspelt version, or one without group before a kind of ours, is a mistake to report, not another tool's.
    if (
        not group
        or closest_match(group, (API_VERSION.partition("/")[0],))
        or (group == version and isinstance(kind, str) and kind in KINDS)
    ):
        return None
    return f"{version} {kind}" if isinstance(kind, str) else str(version)


def _read(model: type[M], given: Any) -> tuple[M | None, list[Issue]]:
    try:
        return model.model_validate(given, by_alias=True, by_name=False, context=_CONTEXT), []
    except ValidationError as error:
        return None, issues_of(error, model, given)
