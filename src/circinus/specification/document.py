"""One document of a specification: its envelope (`apiVersion`, `kind`, `metadata`, `spec`) and what it holds."""

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
"""Stands for the field in faults of a whole document."""
_UNNAMED = "unnamed"
_CONTEXT = {REQUIRE_UNITS: True}


class Metadata(SpecModel):
    """What a document says of itself."""

    name: Name
    """Unique among the documents of its kind."""


class Envelope(SpecModel):
    """What surrounds every document."""

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
    """Where a document was written."""

    file: str
    tree: YamlNode

    def locate(self, path: Path) -> tuple[int, str]:
        """The line and the dotted path of what a document's model knows as `path`."""
        return self.tree.locate(("metadata", "name") if path == ("name",) else ("spec", *path))


@dataclass(frozen=True)
class Document:
    """A document as far as it could be understood."""

    kind: str
    name: str | None
    """None: it cannot be read."""
    content: Pipeline | Infrastructure | Query | Mapping[str, Any]
    """The model; where the document is faulty, what was written in `spec`."""
    source: SourceLocation | None = None
    """None: it was made in Python."""

    @classmethod
    def of(cls, model: Pipeline | Infrastructure | Query) -> Document:
        """The document of an object made in Python."""
        return cls(type(model).__name__, model.name, model)

    def fault(self, wrong: Issue) -> Diagnostic:
        """What is wrong, with its place in the file (or the name of the object made in Python)."""
        if self.source is None:
            file, line, field = f"{self.kind} {self.name}", 0, dotted(wrong.path).removeprefix(".")
        else:
            file = self.source.file
            line, field = self.source.locate(wrong.path)
        return Diagnostic(file, line, field or WHOLE, wrong.found, wrong.expected, wrong.hint)

    @property
    def location(self) -> str:
        """Where the document stands, for hints in faults of others."""
        return f"{self.source.file}:{self.source.tree.line}" if self.source is not None else "given"

    def valid_part(self, path: Path, kind: type[M]) -> M | None:
        """The valid part at `path`; None where it is absent or faulty."""
        found: Any = self.content
        for step in path:
            found = get_field(found, step) if isinstance(step, str) else found[step]
        if found is None or isinstance(found, kind):
            return found
        return _read(kind, found)[0]


def read_document(tree: YamlNode, file: str) -> tuple[Document | None, list[Diagnostic]]:
    """What `tree` holds, and everything that is wrong with it on its own.

    Returns:
        The document (None where its kind cannot be told) and its faults.
    """
    content = tree.value
    if not isinstance(content, dict):
        expected = "a mapping with the fields apiVersion, kind, metadata, spec"
        return None, [Diagnostic(file, tree.line, WHOLE, describe(content), expected)]
    faults: list[Diagnostic] = []
    for wrong in _read(Envelope, content)[1]:
        line, field = tree.locate(wrong.path)
        faults.append(Diagnostic(file, line, field, wrong.found, wrong.expected, wrong.hint))
    kind = closest_match(str(content.get("kind")), KINDS)
    if kind is None:
        return None, faults
    name = get_field(content.get("metadata"), "name")
    named = isinstance(name, str) and not any(fault.field == "metadata.name" for fault in faults)
    name = name if named else None
    spec = content.get("spec")
    if not isinstance(spec, dict):
        return Document(kind, name, {}, SourceLocation(file, tree)), faults
    given = {**spec, "name": name if named else _UNNAMED}
    model, wrongs = _read(KINDS[kind], given)
    content = model if named and model is not None else given
    document = Document(kind, name, content, SourceLocation(file, tree))
    return document, faults + [document.fault(wrong) for wrong in wrongs]


def foreign_kind(tree: YamlNode) -> str | None:
    """Whose document `tree` is, where it is plainly another tool's: `ray.io/v1 RayService`; None: it may be ours."""
    version, kind = get_field(tree.value, "apiVersion"), get_field(tree.value, "kind")
    group = version.partition("/")[0] if isinstance(version, str) else ""
    # A version misspelt, and one that lacks its group before a kind of ours, are faults to be told.
    if not group or closest_match(group, (API_VERSION.partition("/")[0],)) or (group == version and kind in KINDS):
        return None
    return f"{version} {kind}" if isinstance(kind, str) else str(version)


def _read(model: type[M], given: Any) -> tuple[M | None, list[Issue]]:
    try:
        return model.model_validate(given, by_alias=True, by_name=False, context=_CONTEXT), []
    except ValidationError as error:
        return None, issues_of(error, model, given)
