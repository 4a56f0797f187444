"""YAML round trip: documents load back to an equal specification."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from strategies import specifications

from budget import examples
from circinus.specification import Specification, parse_specification


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specifications())
def test_what_is_written_loads_back_to_an_equal_specification(specification: Specification) -> None:
    text = specification.to_yaml()
    reloaded = parse_specification(text)
    assert reloaded == specification
    assert reloaded.to_yaml() == text
    for name, pipeline in specification.pipelines.items():  # 1, 1.0 and True are equal, so compare types as well
        for original, read in zip(pipeline.operators, reloaded.pipelines[name].operators, strict=True):
            kinds = [[type(choice) for knob in spec.knobs for choice in knob.choices] for spec in (original, read)]
            assert kinds[0] == kinds[1]
    # The fingerprint does not depend on the order of documents.
    fingerprint = specification.fingerprint()
    assert reloaded.fingerprint() == fingerprint
    documents = text.split("---\n")
    random.Random(0).shuffle(documents)
    assert parse_specification("# a remark\n" + "---\n".join(documents)).fingerprint() == fingerprint
