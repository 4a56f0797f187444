"""How an operator's seconds and bytes vary from item to item, taken from prefixes that were measured on many items.

All configurations are measured on the same items in the same order. What an operator takes under one prefix over what
it takes under another is therefore known well from the few items that both were measured on, while its mean over all
items and its tail are not: those are taken from the prefix with more items, times the ratio (ratio estimation, Cochran
1977, chapter 6). Without that, a configuration would seem cheaper or dearer than its like only for having fewer items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from circinus.planning.exploration.knob_space import ConfigurationSpace, IntArray
from circinus.profiling import OperatorProfile
from circinus.spec import Configuration, Pipeline

_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class ProfileImputer:
    """One operator under the n prefixes that were measured."""

    profiles: tuple[OperatorProfile, ...]
    codes: IntArray
    """(n, d)"""
    items: IntArray
    """(n,) that each was measured on."""
    common: int
    """Items that all were measured on."""
    own: IntArray
    """Columns of the operator's knobs."""
    lineage: IntArray
    """Columns of these and its ancestors' knobs."""

    @classmethod
    def of(
        cls,
        space: ConfigurationSpace,
        pipeline: Pipeline,
        operator: str,
        known: Mapping[Configuration, OperatorProfile],
    ) -> ProfileImputer:
        """Of an operator that was measured under at least one prefix."""
        items = np.array([len(profile.service_s) for profile in known.values()], dtype=np.int64)
        return cls(
            profiles=tuple(known.values()),
            codes=space.prefix_codes(list(known)),
            items=items,
            common=int(items.min()),
            own=space.operator_columns(space.operators.index(operator)),
            lineage=space.ancestor_columns(pipeline, operator),
        )

    def impute(self, code: IntArray, service_s: float, output_bytes: float) -> OperatorProfile:
        """Under a prefix that was not measured: as the most similar one, with these means over the items common to all.

        Alike in the operator's own knobs before all else: these tell most of memory, and of batches.
        """
        differs = self.codes != code
        order = np.lexsort((differs[:, self.lineage].sum(axis=1), differs[:, self.own].sum(axis=1)))
        donor = self.profiles[int(order[0])]
        return self.extend(_scaled(donor, donor, self.common, service_s, output_bytes), code, known_on=self.common)

    def extend(self, profile: OperatorProfile, code: IntArray, known_on: int) -> OperatorProfile:
        """A profile on the most items that any was measured on, if these are more than those it is known on itself."""
        most = int(self.items.max())
        if most <= known_on:
            return profile
        among = np.flatnonzero(self.items == most)
        differs = self.codes[among] != code
        order = np.lexsort((differs[:, self.lineage].sum(axis=1), differs[:, self.own].sum(axis=1)))
        donor = self.profiles[int(among[order[0]])]
        known_s, known_bytes = profile.service_s[:known_on], profile.output_bytes[:known_on]
        return _scaled(profile, donor, known_on, float(known_s.mean()), float(known_bytes.mean()))


def _scaled(
    profile: OperatorProfile, donor: OperatorProfile, count: int, service_s: float, output_bytes: float
) -> OperatorProfile:
    """The profile with a donor's items, so that the first `count` have the given means."""
    donor_s, donor_bytes = float(donor.service_s[:count].mean()), float(donor.output_bytes[:count].mean())
    return replace(
        profile,
        service_s=donor.service_s * (service_s / max(donor_s, _LEAST)),
        output_bytes=donor.output_bytes * (output_bytes / max(donor_bytes, _LEAST)),
    )
