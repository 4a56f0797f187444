"""The JSON Schema (draft 2020-12) of a document, for editors that complete and check YAML while it is written."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from circinus.specification.arrivals import ARRIVAL_KINDS
from circinus.specification.document import API_VERSION, KINDS, Metadata
from circinus.specification.slo import AccuracySlo, CostSlo, LatencySlo, Slos


def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """Field -> the text below it, for those that have one; inherited ones included."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        definition = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
    return {name: text for name, text in found.items() if name in model.model_fields}


DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFINITION = "#/$defs/{model}"
_LATENCY = r"([pP][0-9.eE+-]+\s*)?(<=|≤)\s*\S.*"
_ACCURACY = r"(<=|≤|>=|≥)\s*[0-9.+-]\S*\s*%?\s*"
_COST = r"(<=|≤)\s*\$.*"


def json_schema() -> dict[str, Any]:
    """The schema of one document: one of the kinds, told apart by `kind`, in every form that is read.

    It knows nothing of what refers to what; `circinus validate` does.
    """
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in (*KINDS.values(), Metadata)
    ]
    _, schema = models_json_schema(models, by_alias=True, ref_template=_DEFINITION, schema_generator=_Generator)
    definitions: dict[str, Any] = schema["$defs"]
    for kind in KINDS:
        definitions[kind] = _without_name(definitions[kind])
    _add_short_forms(definitions)
    _add_kinds_of_arrivals(definitions)
    return {
        "$schema": DIALECT,
        "title": "Circinus specification",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "oneOf": [_document(kind, model) for kind, model in KINDS.items()],
        "$defs": dict(sorted(definitions.items())),
    }


class _Generator(GenerateJsonSchema):
    """Says of every field what stands below it in the source; leaves out titles that only repeat a field's name, and
    defaults in units that people do not write."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Fields get no title."""
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """A model, with the texts below its fields as descriptions."""
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, text in field_docs(model).items():
            written = model.model_fields[name].alias or name
            if written in made["properties"]:  # what only Python has is not
                made["properties"][written]["description"] = text
        return made

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """A default in the form in which it is written in YAML."""
        made = super().default_schema(schema)
        default, kinds = made.get("default"), [part.get("type") for part in made.get("anyOf", ())]
        bare = isinstance(default, float) and default != 0 and "string" in kinds and "number" not in kinds
        if default in (None, {}) or bare:  # a bare number stands for a quantity that is written with its unit
            made.pop("default", None)
        return made


def _document(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    return {
        "title": kind,
        "description": _words(model),
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": {"$ref": _DEFINITION.format(model="Metadata")},
            "spec": {"$ref": _DEFINITION.format(model=kind)},
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    }


def _without_name(model: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a document's `spec`; the name stands in `metadata`."""
    return {
        **model,
        "properties": {name: field for name, field in model["properties"].items() if name != "name"},
        "required": [name for name in model["required"] if name != "name"],
    }


def _add_short_forms(definitions: dict[str, Any]) -> None:
    definitions["Site"] = _or_text(definitions["Site"], definitions["Site"]["properties"]["name"]["pattern"])
    objectives: dict[type[BaseModel], str] = {LatencySlo: _LATENCY, AccuracySlo: _ACCURACY, CostSlo: _COST}
    written = []
    for model, text in objectives.items():
        name = model.__name__.removesuffix("Slo").lower()
        written.append(rf"{name}\s*:?\s*{text}")
        definitions[model.__name__] = _or_text(definitions[model.__name__], rf"^\s*({name}\s*:?\s*)?{text}$")
    mapping = definitions[Slos.__name__]
    one = {"type": "string", "pattern": rf"^\s*({'|'.join(written)})$", "examples": ["latency p95 <= 800ms"]}
    definitions[Slos.__name__] = {
        "description": mapping["description"],
        "anyOf": [{"type": "array", "items": {"anyOf": [one, mapping]}}, mapping, one],
    }


def _add_kinds_of_arrivals(definitions: dict[str, Any]) -> None:
    """The kind must be said, since it tells the others apart; alone where nothing else is required."""
    alone = []
    for kind, model in ARRIVAL_KINDS.items():
        definition = definitions[model.__name__]
        required = definition.get("required", [])
        definitions[model.__name__] = {**definition, "required": ["kind", *required]}
        if not required:
            alone.append(kind)
    field = definitions["Query"]["properties"]["arrivals"]
    definitions["Query"]["properties"]["arrivals"] = {**field, "anyOf": [{"enum": alone}, *field["anyOf"]]}


def _or_text(model: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    return {"description": model["description"], "anyOf": [{"type": "string", "pattern": pattern}, dict(model)]}


def _words(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip()
