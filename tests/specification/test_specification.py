"""Complete specifications: creation in Python, equality, locations of fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_cases import FAULTLESS

from circinus.errors import SpecError
from circinus.specification import (
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Site,
    Specification,
    parse_specification,
)


def _pipeline(name: str = "p", **operator: object) -> Pipeline:
    return Pipeline(
        name=name,
        operators=[OperatorSpec(**{"name": "o", "uses": "m:f", **operator})],
        metric=MetricSpec(name="m", uses="m:f", direction="minimize"),
        dataset=DatasetSpec(uses="m:f"),
    )


INFRASTRUCTURE = Infrastructure(
    name="i",
    sites=[Site(name="s")],
    pools=[Pool(name="x", site="s", tier="edge", cpus=1, memory="1GiB", hardware=HardwareClass(name="local"))],
)


def test_objects_made_in_python_go_through_the_same_checks() -> None:
    queries = [
        Query(name="q", pipeline="p", source="s", rate="1/s", slos=["accuracy <= 0.1"]),
        Query(name="r", pipeline="pp", source="t", rate="1/s"),
        Query(name="r", pipeline="p", source="s", rate="1/s", slos="accuracy >= 0.1"),
    ]
    with pytest.raises(SpecError) as raised:
        Specification.of([_pipeline(allowed_tiers=["edge", "egde"], cpus=1)], INFRASTRUCTURE, queries)
    assert [(fault.file, fault.line, fault.field) for fault in raised.value.faults] == [
        ("Query r", 0, "name"),
        ("Pipeline p", 0, "operators[0].allowed_tiers[1]"),
        ("Query r", 0, "pipeline"),
        ("Query r", 0, "source"),
        ("Query r", 0, "slos.accuracy.comparison"),
    ]
    assert str(raised.value.faults[1]).startswith("Pipeline p: operators[0].allowed_tiers[1]: found 'egde', expected")


def test_what_is_made_in_python_equals_what_is_read() -> None:
    query = Query(name="q", pipeline="p", source="s", rate="1/s", slos=["latency p95 <= 1s"])
    made = Specification.of([_pipeline()], INFRASTRUCTURE, [query], module_paths=[Path("code")])
    read = parse_specification(made.to_yaml())
    assert read == made
    assert (made.module_paths, read.module_paths) == ((Path("code"),), ())


@pytest.mark.parametrize(
    ("kind", "name", "path", "line", "field"),
    [
        (
            "Pipeline",
            "meeting",
            ("operators", 0, "knobs", 1, "choices", 2),
            36,
            "spec.operators[0].knobs.strength.choices[2]",
        ),
        ("Pipeline", "meeting", ("operators", 0, "knobs", 1, "name"), 36, "spec.operators[0].knobs.strength"),
        ("Pipeline", "meeting", ("operators", 0, "knobs", 0, "choices", 1), 35, "spec.operators[0].knobs.method[1]"),
        ("Pipeline", "meeting", ("operators", 1, "knobs", 1, "name"), 43, "spec.operators[1].knobs[1].name"),
        ("Pipeline", "meeting", ("operators", 1, "after", 0), 39, "spec.operators[1].after"),
        ("Pipeline", "meeting", ("operators", 2, "after", 0), 49, "spec.operators[2].after[0]"),
        ("Pipeline", "meeting", ("operators", 1, "gpus"), 37, "spec.operators[1].gpus"),
        ("Pipeline", "meeting", ("name",), 29, "metadata.name"),
        ("Pipeline", "meeting", (), 30, "spec"),
        ("Query", "calls", ("slos", "latency", "limit"), 69, "spec.slos[0]"),
        ("Query", "calls", ("slos", "cost", "limit"), 71, "spec.slos[2].cost"),
        (
            "Infrastructure",
            "home",
            ("pools", 1, "hardware", "relative_speed"),
            23,
            "spec.pools[1].hardware.relative_speed",
        ),
        ("Infrastructure", "home", ("sites", 2, "name"), 6, "spec.sites[2]"),
    ],
)
def test_every_field_has_its_place(kind: str, name: str, path: tuple[str | int, ...], line: int, field: str) -> None:
    fault = parse_specification(FAULTLESS, "spec.yaml").diagnostic(kind, name, path, "this", "that")
    assert (fault.file, fault.line, fault.field) == ("spec.yaml", line, field)


def test_equal_specifications_have_the_same_fingerprint() -> None:
    original = _pipeline(
        knobs=[Knob(name="a", choices=[1, 2]), Knob(name="b", choices=[3], only_if={"a": [1]})], cpus=[1, 2]
    )
    equal = _pipeline(
        knobs=[Knob(name="a", choices=[1.0, 2]), Knob(name="b", choices=[3], only_if={"a": [True]})], cpus=[2, 1]
    )
    assert original == equal
    fingerprint = Specification.of([original, _pipeline("r")]).fingerprint()
    assert Specification.of([_pipeline("r"), equal]).fingerprint() == fingerprint
    assert Specification.of([_pipeline("r"), original], INFRASTRUCTURE).fingerprint() != fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        ("choices: [1, 5]", "choices: [1, 6]"),
        ("after: denoise", "after: []"),
        ("rate: 5/s", "rate: 6/s"),
        ("weight: 2", "weight: 3"),
        ("relative_speed: 0.25", "relative_speed: 0.5"),
        ("p95 <= 800ms", "p99 <= 800ms"),
        ("arguments: {noise: 10}", "arguments: {}"),
    ],
)
def test_another_content_has_another_fingerprint(changes: tuple[str, str]) -> None:
    changed = parse_specification(FAULTLESS.replace(*changes))
    assert changed.fingerprint() != parse_specification(FAULTLESS).fingerprint()


def test_layout_and_defaults_do_not_change_the_fingerprint() -> None:
    rewritten = FAULTLESS.replace("rate: 5/s", "rate: 300/min  # five a second\n  risk: 0.05").replace("800ms", "0.8s")
    assert parse_specification(rewritten).fingerprint() == parse_specification(FAULTLESS).fingerprint()
