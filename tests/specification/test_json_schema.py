"""The JSON Schema for editors accepts every document that loads and refuses what cannot be."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fault_cases import ARRIVALS, ENVELOPE, FAULTLESS, FIELDS, UNITS
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from strategies import specifications

import circinus.cli
from budget import examples
from circinus.specification import Specification, parse_specification
from circinus.specification.json_schema import json_schema
from circinus.specification.yaml.reader import read_yaml

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "specification.md").read_text(encoding="utf-8")
EXAMPLES = sorted({*ROOT.glob("examples/**/*.yaml"), *Path(circinus.cli.__file__).parent.glob("starter/**/*.yaml")})


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def _documents(text: str) -> list[Any]:
    trees, faults = read_yaml(text, "text")
    assert not faults
    return [tree.value for tree in trees]


def _complaints(text: str) -> list[str]:
    """Return the schema's errors about the documents of `text`, at least one."""
    documents = _documents(text)
    assert documents
    return [error.message for document in documents for error in _validator().iter_errors(document)]


def test_the_schema_is_one() -> None:
    schema = json_schema()
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    faults = Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema)
    assert [fault.message for fault in faults] == []


def test_there_are_examples() -> None:
    assert {path.parent.name for path in EXAMPLES} >= {"meeting", "documents", "starter"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_every_example_is_accepted_and_a_misspelt_one_is_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _complaints(text) == []
    assert _complaints(text.replace("metadata:", "metdata:")) != []


@pytest.mark.parametrize("text", [text for text in REFERENCE.split("```yaml\n")[1:] if "apiVersion" in text])
def test_every_document_of_the_reference_is_accepted(text: str) -> None:
    assert _complaints(text.partition("```")[0]) == []


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specifications())
def test_everything_that_is_written_is_accepted(specification: Specification) -> None:
    assert _complaints(specification.to_yaml()) == []


FORMS = [
    ("after: denoise", "after: [denoise]"),
    ("cpus: [1, 2]", "cpus: 2"),
    ("batch_sizes: [1, 4]", "batch_sizes: 4"),
    ("batch_sizes: [1, 4]", "batch_wait: 20ms"),
    ("batch_sizes: [1, 4]", "batch_wait: 0"),
    ("[device, edge]", "edge"),
    ("        - name: model\n          choices: [tiny, base]\n        - name: beam\n          choices: [1, 5]\n",
     "        model: tiny\n        beam: {choices: 5, only_if: {model: tiny}}\n"),
    ("[phone, office, island]", "[{name: phone}, office, {name: island}]"),
    ("round_trip: 20ms", "round_trip: 0"),
    ("- latency p95 <= 800ms", "- latency: {percentile: 95, limit: 0.8s}"),
    ("- accuracy >= 0.9", "- accuracy: ≥ 90%"),
    ("  slos:\n    - latency p95 <= 800ms\n    - accuracy >= 0.9\n    - cost: <= $0.50/h\n",
     "  slos: {latency: <= 1s, accuracy: {threshold: 0.9}, cost: <= $1/day}\n"),
    ("  slos:\n    - latency p95 <= 800ms\n    - accuracy >= 0.9\n    - cost: <= $0.50/h\n", "  slos: cost <= $1/h\n"),
    ("  weight: 2", "  arrivals: poisson"),
    ("  weight: 2", "  arrivals: {kind: poisson}"),
    ("  weight: 2", "  arrivals: periodic"),
    ("  weight: 2", "  arrivals: {kind: periodic, jitter: 100ms}"),
    ("  weight: 2", "  arrivals: bursty"),
    ("  weight: 2", "  arrivals: {kind: bursty, peak: 3, burst: 100ms, every: 0.3s}"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), FORMS, ids=lambda text: text.strip()[:30])
def test_every_form_is_accepted_by_both(old: str, new: str) -> None:
    assert FAULTLESS.count(old) == 1
    text = FAULTLESS.replace(old, new)
    parse_specification(text)
    assert _complaints(text) == []


BEYOND_A_SCHEMA = (
    "again", "second", "lowest score below", "another name", "the knob", "finite", "`module:attribute`", "the speed of",
    "relative speed", "half of the time", "that a burst lasts", "all arrivals are", "which does not exist", "at most",
    "beyond which requests are late", "the greatest number", "no time", "the pool's price",
)  # fmt: skip
"""Words of messages about problems that a schema cannot express, or reports at another location."""


QUANTITIES = [case for case in (*UNITS, *ARRIVALS) if case[4][-1] not in ("more than 0", "at least 1e-09")]


@pytest.mark.parametrize("case", [*ENVELOPE, *FIELDS, *QUANTITIES], ids=lambda case: f"{case[0]} -> {case[1]}")
def test_faulty_fields_are_refused(case: tuple[Any, ...]) -> None:
    old, new, _, _, words = case
    if any(word in " ".join(words) for word in BEYOND_A_SCHEMA):
        return
    assert not all(_validator().is_valid(document) for document in _documents(FAULTLESS.replace(old, new)))


def test_fields_are_described() -> None:
    definitions = json_schema()["$defs"]
    assert ">>>" not in str(definitions)  # examples in Python are of no use in an editor of YAML
    for kind in ("Pipeline", "Infrastructure", "Query", "OperatorSpec", "Pool", "Link", "Knob"):
        for name, field in definitions[kind]["properties"].items():
            assert name == "name" or "description" in field or "$ref" in field, f"{kind}.{name}"
