"""A source as a profile of the target: what plans would cost before anything of it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.profiling import ConfigurationProfile, Interval, OperatorProfile, PipelineProfile
from circinus.profiling.batch_time_ratios import allowed_allocations, batch_ratios, measured_allocations
from circinus.profiling.store.measurement_keys import LOCAL
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, Pipeline, has_knob_values, prefix_configuration

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


def profile_from_source(pipeline: Pipeline, earlier: SourceScores) -> PipelineProfile | None:
    """What operators took under the configurations of a source, as if it were the target; accuracies say nothing.

    Of those configurations all of whose operators were measured on the items that most prefixes were measured on.

    Args:
        pipeline: the target.
        earlier: the source.

    Returns:
        None where it has no such configuration, as where it shares some operators only.
    """
    runs = earlier.runs
    if not runs.prefixes:
        return None
    known = np.isfinite(runs.service_s)
    columns = known.sum(axis=0) == known.sum(axis=0).max()
    rows = {runs.prefixes[row]: row for row in np.flatnonzero(known[:, columns].all(axis=1)).tolist()}
    items, shared = np.arange(int(columns.sum())), _Shared(pipeline, earlier, rows, columns)
    found = []
    for configuration in dict.fromkeys(earlier.configurations):
        operators = shared.operators(configuration)
        if operators is not None:
            low, high = pipeline.metric.range
            found.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=items,
                    scores=np.full(len(items), np.nan),
                    accuracy=Interval((low + high) / 2, low, high),
                    input_bytes=runs.input_bytes[columns],
                    operators=operators,
                )
            )
    if not found:
        return None
    return PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint="",
        dataset_items=len(items),
        held_out_items=0,
        hardware_class=LOCAL,
        risk=0.0,
        configurations=tuple(found),
        unmeasured=0,
        profiled_s=0.0,
        saved_s=0.0,
    )


class _Shared:
    """Operators of the source as profiles; configurations that share a prefix share the object."""

    def __init__(
        self,
        pipeline: Pipeline,
        earlier: SourceScores,
        rows: dict[tuple[str, Configuration], int],
        columns: NDArray[np.bool_],
    ) -> None:
        self._pipeline, self._runs, self._rows, self._columns = pipeline, earlier.runs, rows, columns
        self._known: dict[tuple[str, Configuration], OperatorProfile] = {}

    def operators(self, configuration: Configuration) -> dict[str, OperatorProfile] | None:
        """By name; None where one was not measured, or has a choice that the target lacks."""
        if set(configuration) != {spec.name for spec in self._pipeline.operators}:
            return None
        found = {}
        for spec in self._pipeline.operators:
            profile = self._profile(spec.name, prefix_configuration(self._pipeline, configuration, spec.name))
            if profile is None or not has_knob_values(spec, configuration[spec.name]):
                return None
            found[spec.name] = profile
        return found

    def _profile(self, operator: str, of: Configuration) -> OperatorProfile | None:
        key, replica = (operator, of), (operator, of[operator])
        if key not in self._rows or replica not in self._runs.replicas:
            return None
        if key not in self._known:
            row, measured = self._rows[key], self._runs.allocations.get(replica, {})
            ratios = batch_ratios(allowed_allocations(self._pipeline.operator(operator)), measured)
            self._known[key] = OperatorProfile(
                operator=operator,
                prefix=of,
                service_s=self._runs.service_s[row, self._columns],
                output_bytes=self._runs.output_bytes[row, self._columns],
                peak_memory_bytes=self._runs.replicas[replica].peak_memory_bytes,
                load_s=self._runs.replicas[replica].load_s,
                batch_ratio=ratios,
                measured_allocations=measured_allocations(ratios, measured),
                startup_s=self._runs.replicas[replica].startup_s,
            )
        return self._known[key]
