"""What is written as YAML loads back to the same."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from strategies import specifications

from circinus.spec import Specification, parse_specification

SETTINGS = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SETTINGS
@given(specifications())
def test_what_is_written_loads_back_to_an_equal_specification(specification: Specification) -> None:
    text = specification.to_yaml()
    again = parse_specification(text)
    assert again == specification
    assert again.fingerprint() == specification.fingerprint()
    assert again.to_yaml() == text
    for name, pipeline in specification.pipelines.items():  # equality takes 1, 1.0 and True for the same
        for before, after in zip(pipeline.operators, again.pipelines[name].operators, strict=True):
            kinds = [[type(choice) for knob in spec.knobs for choice in knob.choices] for spec in (before, after)]
            assert kinds[0] == kinds[1]


@SETTINGS
@given(specifications())
def test_the_fingerprint_is_that_of_the_content(specification: Specification) -> None:
    documents = specification.to_yaml().split("---\n")
    random.Random(0).shuffle(documents)
    again = parse_specification("# a remark\n" + "---\n".join(documents))
    assert again.fingerprint() == specification.fingerprint()
