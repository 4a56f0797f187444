"""What is written as YAML loads back to the same."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from strategies import specifications

from budget import examples
from circinus.specification import Specification, parse_specification


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specifications())
def test_what_is_written_loads_back_to_an_equal_specification(specification: Specification) -> None:
    text = specification.to_yaml()
    again = parse_specification(text)
    assert again == specification
    assert again.to_yaml() == text
    for name, pipeline in specification.pipelines.items():  # equality takes 1, 1.0 and True for the same
        for before, after in zip(pipeline.operators, again.pipelines[name].operators, strict=True):
            kinds = [[type(choice) for knob in spec.knobs for choice in knob.choices] for spec in (before, after)]
            assert kinds[0] == kinds[1]
    # The fingerprint is that of the content, in whatever order it stands.
    fingerprint = specification.fingerprint()
    assert again.fingerprint() == fingerprint
    documents = text.split("---\n")
    random.Random(0).shuffle(documents)
    assert parse_specification("# a remark\n" + "---\n".join(documents)).fingerprint() == fingerprint
