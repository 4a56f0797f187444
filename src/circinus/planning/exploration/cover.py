"""Where to begin: few configurations in which every operator configuration occurs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from circinus.spec import Configuration, KnobValues

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def covering_design(listed: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """Configurations among those listed in which each operator has each of its knob values at least once.

    As many as the operator with most knob values has, where all combinations are listed. Each operator's values are
    gone through in strides of about the golden section, those of the first one by one: so that high values of one do
    not always meet high values of another. What is not covered by these, as where some combinations are not listed,
    is covered by the first listed that has it.
    """
    if not listed:
        return ()
    values: dict[str, list[KnobValues]] = {name: [] for name in listed[0]}
    for configuration in listed:
        for name, own in configuration.operators:
            if own not in values[name]:
                values[name].append(own)
    present = set(listed)
    chosen: dict[Configuration, None] = {}
    for turn in range(max(len(own) for own in values.values())):
        found = Configuration.of(
            {
                name: own[turn * coprime_stride(len(own), number) % len(own)]
                for number, (name, own) in enumerate(values.items())
            }
        )
        if found in present:
            chosen[found] = None
    covered = {(name, own) for configuration in chosen for name, own in configuration.operators}
    for configuration in listed:
        if not covered.issuperset(configuration.operators):
            chosen[configuration] = None
            covered.update(configuration.operators)
    return tuple(chosen)


def coprime_stride(count: int, number: int) -> int:
    """A number without a common divisor with `count`, so that steps of it reach all."""
    if number == 0:
        return 1
    return min((s for s in range(1, count + 1) if math.gcd(s, count) == 1), key=lambda s: abs(s - _GOLDEN * count))
