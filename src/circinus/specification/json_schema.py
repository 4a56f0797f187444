"""JSON Schema (draft 2020-12) of a document, for completion and checks in editors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from circinus.specification.arrivals import ARRIVAL_KINDS
from circinus.specification.document import API_VERSION, KINDS, Metadata
from circinus.specification.slo import AccuracySlo, CostSlo, LatencySlo, Slos


def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the docstrings of fields, including inherited fields."""
    docs: dict[str, str] = {}
    for parent in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        docs |= _own_field_docs(parent)
    return {name: text for name, text in docs.items() if name in model.model_fields}


@cache
def _own_field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    definition = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs


DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFINITION = "#/$defs/{model}"
_LATENCY = r"([pP][0-9.eE+-]+\s*)?(<=|≤)\s*\S.*"
_ACCURACY = r"(<=|≤|>=|≥)\s*[0-9.+-]\S*\s*%?\s*"
_COST = r"(<=|≤)\s*\$.*"


def json_schema() -> dict[str, Any]:
    """Return the schema of a document of any kind, with all accepted short forms.

    The schema does not cover references between documents, which `circinus validate` checks.
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
    """Schema generator that describes fields by their docstrings, without titles and without defaults in base units."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a model, described by its docstring and the docstrings of its fields."""
        generated = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        generated["description"] = _description(model)
        for name, text in field_docs(model).items():
            written = model.model_fields[name].alias or name
            if written in generated["properties"]:  # fields of the Python interface only are absent
                generated["properties"][written]["description"] = text
        return generated

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Return a schema with its default, unless YAML would write the default with a unit."""
        generated = super().default_schema(schema)
        default, kinds = generated.get("default"), [part.get("type") for part in generated.get("anyOf", ())]
        is_quantity = isinstance(default, float) and default != 0 and "string" in kinds and "number" not in kinds
        if default in (None, {}) or is_quantity:
            generated.pop("default", None)
        return generated


def _document(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    return {
        "title": kind,
        "description": _description(model),
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
    """Return the schema of `spec`, without the name, which is in `metadata`."""
    return {
        **model,
        "properties": {name: field for name, field in model["properties"].items() if name != "name"},
        "required": [name for name in model["required"] if name != "name"],
    }


def _add_short_forms(definitions: dict[str, Any]) -> None:
    definitions["Site"] = _or_text(definitions["Site"], definitions["Site"]["properties"]["name"]["pattern"])
    patterns: dict[type[BaseModel], str] = {LatencySlo: _LATENCY, AccuracySlo: _ACCURACY, CostSlo: _COST}
    texts = []
    for model, pattern in patterns.items():
        kind = model.__name__.removesuffix("Slo").lower()
        texts.append(rf"{kind}\s*:?\s*{pattern}")
        definitions[model.__name__] = _or_text(definitions[model.__name__], rf"^\s*({kind}\s*:?\s*)?{pattern}$")
    mapping = definitions[Slos.__name__]
    slo = {"type": "string", "pattern": rf"^\s*({'|'.join(texts)})$", "examples": ["latency p95 <= 800ms"]}
    definitions[Slos.__name__] = {
        "description": mapping["description"],
        "anyOf": [{"type": "array", "items": {"anyOf": [slo, mapping]}}, mapping, slo],
    }


def _add_kinds_of_arrivals(definitions: dict[str, Any]) -> None:
    """Require the field `kind`, and accept the name of a kind without other required fields as a short form."""
    short_forms = []
    for kind, model in ARRIVAL_KINDS.items():
        definition = definitions[model.__name__]
        required = definition.get("required", [])
        definitions[model.__name__] = {**definition, "required": ["kind", *required]}
        if not required:
            short_forms.append(kind)
    field = definitions["Query"]["properties"]["arrivals"]
    definitions["Query"]["properties"]["arrivals"] = {**field, "anyOf": [{"enum": short_forms}, *field["anyOf"]]}


def _or_text(model: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    return {"description": model["description"], "anyOf": [{"type": "string", "pattern": pattern}, dict(model)]}


def _description(model: type[BaseModel]) -> str:
    """Return the docstring of a model without its example."""
    return inspect.cleandoc(model.__doc__ or "").partition("\n\nExample:")[0]
