"""The examples and tables of docs/specification.md are correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circinus.specification import BurstyArrivals, RecordedArrivals, Specification, parse_specification
from circinus.specification.json_schema import json_schema
from circinus.specification.units import BANDWIDTH, DURATION, PRICE_PER_GB, PRICE_PER_H, RATE, SIZE

REFERENCE = (Path(__file__).parents[2] / "docs" / "specification.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)
WHOLE = {
    kind: next(text for text in reversed(EXAMPLES) if f"kind: {kind}" in text)
    for kind in ("Pipeline", "Infrastructure", "Query")
}


def test_the_examples_are_one_specification() -> None:
    specification = parse_specification("---\n".join(WHOLE.values()))
    assert list(specification.pipelines) == ["meeting"]


@pytest.mark.parametrize(("part", "whole"), [("knobs", "Pipeline"), ("slos", "Query")])
def test_the_forms_that_are_said_to_mean_the_same_do(part: str, whole: str) -> None:
    forms = next(text for text in EXAMPLES if text.startswith(f"{part}:")).split("---\n")
    assert len(forms) > 1
    parsed: list[Specification] = []
    for form in forms:
        if whole == "Pipeline":
            indented = re.sub(r"^", "      ", form, flags=re.MULTILINE).rstrip() + "\n"
            text = re.sub(
                r"      knobs:\n        model:.*\n        beam:.*\n", lambda _, new=indented: new, WHOLE[whole]
            )
            parsed.append(parse_specification(text))
        else:
            indented = re.sub(r"^", "  ", form, flags=re.MULTILINE).rstrip() + "\n"
            text = re.sub(r"  slos:\n(    -.*\n)+", lambda _, new=indented: new, WHOLE[whole])
            parsed.append(parse_specification("---\n".join([WHOLE["Pipeline"], WHOLE["Infrastructure"], text])))
    assert all(specification == parsed[0] for specification in parsed)


def test_the_example_of_a_pin_fits_the_other_examples() -> None:
    pin = next(text for text in EXAMPLES if text.startswith("pin:"))
    query = WHOLE["Query"] + re.sub(r"^", "  ", pin, flags=re.MULTILINE)
    (pinned,) = parse_specification("---\n".join([WHOLE["Pipeline"], WHOLE["Infrastructure"], query])).queries
    assert pinned.pinned_pool("recognise") == "basement"
    assert pinned.pinned_knobs == (("denoise", "method", "gate"),)


def test_the_examples_of_arrivals_fit_the_other_examples(tmp_path: Path) -> None:
    forms = next(text for text in EXAMPLES if text.startswith("arrivals:")).split("---\n")
    (tmp_path / "calls.csv").write_text("time_s,query\n1,captions-room-1\n2,captions-room-1\n2,other\n")
    arrivals = []
    for form in forms:
        query = WHOLE["Query"] + re.sub(r"^", "  ", form, flags=re.MULTILINE).rstrip() + "\n"
        text = "---\n".join([WHOLE["Pipeline"], WHOLE["Infrastructure"], query])
        arrivals.append(parse_specification(text, module_paths=[tmp_path]).queries[0].arrivals)
    assert [process.kind for process in arrivals] == ["poisson", "periodic", "periodic", "bursty", "bursty", "recorded"]
    assert arrivals[3] == arrivals[4]
    assert isinstance(arrivals[3], BurstyArrivals)
    assert arrivals[3].off_peak_factor == pytest.approx(0.4)
    assert isinstance(arrivals[5], RecordedArrivals)
    assert arrivals[5].times_s == (1.0, 2.0)


def test_every_unit_is_in_the_table() -> None:
    table = REFERENCE.partition("## Units")[2].partition("##")[0]
    for quantity in (DURATION, SIZE, BANDWIDTH, RATE, PRICE_PER_H, PRICE_PER_GB):
        row = next(line for line in table.splitlines() if f"`{quantity.example}`" in line)
        assert set(quantity.factors) <= set(re.findall(r"`([^`]*)`", row))


def test_every_field_is_described() -> None:
    definitions = json_schema()["$defs"]
    for model in (
        "Pipeline",
        "OperatorSpec",
        "Knob",
        "MetricSpec",
        "DatasetSpec",
        "Infrastructure",
        "Pool",
        "Link",
        "Query",
        "PeriodicArrivals",
        "BurstyArrivals",
        "RecordedArrivals",
    ):
        for field in definitions[model]["properties"]:
            assert f"`{field}`" in REFERENCE, f"{model}.{field}"


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert parse_specification(capsys.readouterr().out) == names["specification"]


def test_the_messages_shown_are_those_given() -> None:
    from circinus.errors import SpecError

    faulty = WHOLE["Query"].replace("rate: 2/s", "rate: 5")
    with pytest.raises(SpecError) as raised:
        parse_specification("---\n".join([WHOLE["Pipeline"], WHOLE["Infrastructure"], faulty]))
    (fault,) = raised.value.faults
    assert str(fault).partition(": ")[2] in REFERENCE
