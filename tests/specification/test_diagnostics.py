"""Diagnostics: a single message for each problem, at its line and field."""

from __future__ import annotations

import pytest
from fault_cases import CASES, FAULTLESS, Case

from circinus.errors import Diagnostic, SpecError
from circinus.specification import parse_specification
from golden import check_message

JARGON = ("pydantic", "validation error", "Input should", "type=", "value_error", "extra_forbidden", "None", "dict")


def _faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as raised:
        parse_specification(text, "spec.yaml")
    return raised.value.faults


def test_the_text_that_the_cases_change_has_no_fault() -> None:
    specification = parse_specification(FAULTLESS)
    assert list(specification.pipelines) == ["meeting"]
    assert [query.name for query in specification.queries] == ["calls"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} -> {case[1]}")
def test_one_fault_is_one_message_at_its_place(case: Case) -> None:
    old, new, line, field, words = case
    assert FAULTLESS.count(old) == 1
    (fault,) = _faults(FAULTLESS.replace(old, new))
    assert (fault.file, fault.line, fault.field) == ("spec.yaml", line, field)
    assert fault.found
    assert fault.expected
    for word in words:
        assert word in str(fault)
    assert not [word for word in JARGON if word in str(fault)]


# In different documents or operators, so that no problem hides another.
TOGETHER: list[Case] = [
    ("cpus: 8", "cpus: eight", 18, "spec.pools[1].cpus", ()),
    ("40Mbit/s", "40Mbit", 25, "spec.links[0].bandwidth", ()),
    ("uses: speech:denoise", "usse: speech:denoise", 33, "spec.operators[0].usse", ()),
    ("after: denoise", "after: denoize", 39, "spec.operators[1].after", ()),
    ("choices: [1, 5]", "choices: [1, 1]", 44, "spec.operators[1].knobs[1].choices[1]", ()),
    ("[device, edge]", "[device, egde]", 50, "spec.operators[2].allowed_tiers[1]", ()),
    ("range: [0, 1]", "range: [1, 0]", 54, "spec.metric.range", ()),
    ("pipeline: meeting", "pipeline: meetings", 64, "spec.pipeline", ()),
    ("source: phone", "source: phones", 65, "spec.source", ()),
    ("rate: 5/s", "rate: fast", 66, "spec.rate", ()),
    ("p95 <= 800ms", "p95 <= 800", 69, "spec.slos[0]", ()),
    ("accuracy >= 0.9", "accuracy", 70, "spec.slos[1]", ()),
]


def test_all_faults_are_found_at_once_and_in_order() -> None:
    text = FAULTLESS
    for old, new, *_ in TOGETHER:
        text = text.replace(old, new)
    faults = _faults(text)
    assert [(fault.line, fault.field) for fault in faults] == [case[2:4] for case in TOGETHER]
    for fault in faults:
        check_message(f"specification/{fault.field}", str(fault))


def test_a_faulty_query_is_still_held_against_its_pipeline() -> None:
    faults = _faults(FAULTLESS.replace("rate: 5/s", "rate: 5").replace("accuracy >= 0.9", "accuracy <= 0.9"))
    assert [fault.line for fault in faults] == [66, 70]


def test_a_document_of_faulty_kind_is_read_as_what_it_was_meant_to_be() -> None:
    faults = _faults(FAULTLESS.replace("kind: Pipeline", "kind: Pipelin").replace("after: denoise", "after: x"))
    assert [(fault.line, fault.field) for fault in faults] == [(28, "kind"), (39, "spec.operators[1].after")]


def test_names_that_may_stand_in_what_cannot_be_read_are_not_missed() -> None:
    broken = FAULTLESS.replace("  metric:\n", "  metric: [\n")
    (fault,) = _faults(broken)
    assert fault.field == "(YAML)"
    nameless = FAULTLESS.replace("metadata: {name: meeting}", "metadata: {name: a b}")
    (fault,) = _faults(nameless)
    assert fault.field == "metadata.name"


def test_documents_behind_a_broken_one_are_read() -> None:
    text = FAULTLESS.replace("  tiers: [device, edge, cloud]", "  tiers: {device, edge, cloud]").replace(
        "rate: 5/s", "rate: 5"
    )
    assert [(fault.line, fault.field) for fault in _faults(text)] == [(5, "(YAML)"), (66, "spec.rate")]


def test_a_machine_needs_to_hold_all_demands_together() -> None:
    servers = "hardware: {class: x86, relative_speed: 1}\n"
    small = "    - {name: small, site: office, tier: edge, cpus: 64, memory: 1GiB, hardware: {class: local}}\n"
    text = FAULTLESS.replace(servers, servers + small).replace("batch_sizes: [1, 4]", "gpus: 1")
    (fault,) = _faults(text.replace("cpus: [1, 2]", "cpus: [16, 32]"))
    assert (fault.line, fault.field) == (38, "spec.operators[1]")
    assert "CPUs: 16, GPUs: 1 together" in str(fault)


@pytest.mark.parametrize("kind", ["Pipeline", "Infrastructure", "Query"])
def test_two_documents_of_one_name_are_a_fault_of_the_second(kind: str) -> None:
    documents = FAULTLESS.split("---\n")
    second = next(document for document in documents if f"kind: {kind}" in document)
    (fault,) = _faults(f"{FAULTLESS}---\n{second}")
    assert fault.line > FAULTLESS.count("\n")
    assert fault.field == "metadata.name"
    first = 1 + FAULTLESS[: FAULTLESS.index(second)].count("\n")
    assert f"the first is spec.yaml:{first}" in str(fault)


def test_queries_alone_ask_for_their_pipeline() -> None:
    (fault,) = _faults(FAULTLESS.split("---\n")[2])
    assert fault.field == "spec.pipeline"
    assert "(there is none)" in str(fault)
    assert "pass the file of its pipeline as well" in str(fault)


def test_pipelines_can_be_had_without_infrastructure() -> None:
    specification = parse_specification(FAULTLESS.split("---\n")[1])
    assert specification.infrastructure is None


@pytest.mark.parametrize(
    "text",
    ["3", "- a\n- b", "text", "{}", "a: 1", "kind: Query\nspec: 3", "metadata: 3\nkind: Pipeline\nspec: {}"],
)
def test_what_is_no_document_at_all_is_said_so(text: str) -> None:
    assert all(fault.line == 1 or fault.field.startswith(("metadata", "spec")) for fault in _faults(text))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n---\n"])
def test_a_text_without_a_document_is_a_fault(text: str) -> None:
    (fault,) = _faults(text)
    assert str(fault) == "spec.yaml: (file): found no document, expected at least one, beginning with apiVersion"
