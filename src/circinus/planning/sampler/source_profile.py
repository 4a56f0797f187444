"""Transfer source as a profile of the target, to estimate plan costs before any measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.profiling.batch_time_ratios import allowed_allocations, batch_ratios, measured_allocations
from circinus.profiling.store.measurement_keys import LOCAL
from circinus.profiling.store.transfer_sources import SourceRuns, SourceScores
from circinus.specification import Configuration, OperatorSpec, Pipeline, has_knob_values, prefix_configuration
from circinus.statistics.interval import Interval

_MIN_POSITIVE = 1e-9


@dataclass(frozen=True, eq=False)
class ProfileImputer:
    """Imputation of one operator's profiles from n measured prefixes."""

    profiles: tuple[OperatorProfile, ...]
    codes: IntArray
    """(n, d)"""
    items: IntArray
    """(n,) number of items of each profile."""
    common_items: int
    """Number of items that all profiles share."""
    own: IntArray
    """Columns of the operator's knobs."""
    lineage: IntArray
    """Columns of the operator's and its ancestors' knobs."""

    @classmethod
    def of(
        cls,
        space: ConfigurationSpace,
        pipeline: Pipeline,
        operator: str,
        measured: Mapping[Configuration, OperatorProfile],
    ) -> ProfileImputer:
        """Build the imputer of an operator with at least one measured prefix."""
        items = np.array([len(profile.service_s) for profile in measured.values()], dtype=np.int64)
        return cls(
            profiles=tuple(measured.values()),
            codes=space.prefix_codes(list(measured)),
            items=items,
            common_items=int(items.min()),
            own=space.operator_columns(space.operators.index(operator)),
            lineage=space.ancestor_columns(pipeline, operator),
        )

    def impute(self, code: IntArray, service_s: float, output_bytes: float) -> OperatorProfile:
        """Return the profile of an unmeasured prefix: the most similar one, scaled to the given means.

        The means are over the common items. Similarity in the operator's own knobs comes first, as these determine
        memory and batch behaviour.
        """
        differs = self.codes != code
        order = np.lexsort((differs[:, self.lineage].sum(axis=1), differs[:, self.own].sum(axis=1)))
        donor = self.profiles[int(order[0])]
        return self.extend(
            _scaled(donor, donor, self.common_items, service_s, output_bytes), code, measured_items=self.common_items
        )

    def extend(self, profile: OperatorProfile, code: IntArray, measured_items: int) -> OperatorProfile:
        """Return the profile extended to the maximum number of items, if it has fewer."""
        max_items = int(self.items.max())
        if max_items <= measured_items:
            return profile
        longest = np.flatnonzero(self.items == max_items)
        differs = self.codes[longest] != code
        order = np.lexsort((differs[:, self.lineage].sum(axis=1), differs[:, self.own].sum(axis=1)))
        donor = self.profiles[int(longest[order[0]])]
        measured_s, measured_bytes = profile.service_s[:measured_items], profile.output_bytes[:measured_items]
        return _scaled(profile, donor, measured_items, float(measured_s.mean()), float(measured_bytes.mean()))


def _scaled(
    profile: OperatorProfile, donor: OperatorProfile, count: int, service_s: float, output_bytes: float
) -> OperatorProfile:
    """Return the profile with a donor's items, scaled so that the first `count` have the given means."""
    donor_s, donor_bytes = float(donor.service_s[:count].mean()), float(donor.output_bytes[:count].mean())
    return replace(
        profile,
        service_s=donor.service_s * (service_s / max(donor_s, _MIN_POSITIVE)),
        output_bytes=donor.output_bytes * (output_bytes / max(donor_bytes, _MIN_POSITIVE)),
    )


def profile_from_source(pipeline: Pipeline, source: SourceScores) -> PipelineProfile | None:
    """Return the operators' measurements of a source as a profile of the target; its accuracies are meaningless.

    Included are the configurations whose operators were all measured on the items that most prefixes have.

    Args:
        pipeline: target.
        source: source.

    Returns:
        None without such a configuration, as if only some operators are shared.
    """
    runs = source.runs
    if not runs.prefixes:
        return None
    measured = np.isfinite(runs.service_s)
    columns = measured.sum(axis=0) == measured.sum(axis=0).max()
    rows = {runs.prefixes[row]: row for row in np.flatnonzero(measured[:, columns].all(axis=1)).tolist()}
    items, shared = np.arange(int(columns.sum())), _SharedProfiles(pipeline, source, rows, columns)
    profiles = []
    for configuration in dict.fromkeys(source.configurations):
        operators = shared.operators(configuration)
        if operators is not None:
            low, high = pipeline.metric.range
            profiles.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=items,
                    scores=np.full(len(items), np.nan),
                    accuracy=Interval((low + high) / 2, low, high),
                    input_bytes=runs.input_bytes[columns],
                    operators=operators,
                )
            )
    if not profiles:
        return None
    return PipelineProfile(
        pipeline=pipeline.name,
        dataset_fingerprint="",
        dataset_items=len(items),
        held_out_items=0,
        hardware_class=LOCAL,
        risk=0.0,
        configurations=tuple(profiles),
        unmeasured=0,
        profiled_s=0.0,
        saved_s=0.0,
    )


class _SharedProfiles:
    """Operator profiles of a source; configurations with a common prefix share the object."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: SourceScores,
        rows: dict[tuple[str, Configuration], int],
        columns: BoolArray,
    ) -> None:
        self._pipeline, self._runs, self._rows, self._columns = pipeline, source.runs, rows, columns
        self._profiles: dict[tuple[str, Configuration], OperatorProfile | None] = {}

    def operators(self, configuration: Configuration) -> dict[str, OperatorProfile] | None:
        """Return the profiles by operator, or None if one was not measured or has a choice that the target lacks."""
        if set(configuration) != {spec.name for spec in self._pipeline.operators}:
            return None
        profiles = {}
        for spec in self._pipeline.operators:
            profile = self._profile(spec.name, prefix_configuration(self._pipeline, configuration, spec.name))
            if profile is None or not has_knob_values(spec, configuration[spec.name]):
                return None
            profiles[spec.name] = profile
        return profiles

    def _profile(self, operator: str, of: Configuration) -> OperatorProfile | None:
        key = operator, of
        if key not in self._rows:
            return None
        if key not in self._profiles:
            row = self._rows[key]
            service_s, output_bytes = (
                values[row, self._columns] for values in (self._runs.service_s, self._runs.output_bytes)
            )
            measured = OperatorProfile(operator, of, service_s, output_bytes, np.nan, np.nan, batch_ratio={})
            self._profiles[key] = with_replica(measured, self._pipeline.operator(operator), self._runs)
        return self._profiles[key]


def with_replica(profile: OperatorProfile, spec: OperatorSpec, runs: SourceRuns) -> OperatorProfile | None:
    """Return the profile with a source's replica measurements for its knob values, or None without any."""
    key = spec.name, profile.prefix[spec.name]
    if key not in runs.replicas:
        return None
    replica, measured = runs.replicas[key], runs.allocations.get(key, {})
    ratios = batch_ratios(allowed_allocations(spec), measured)
    return replace(
        profile,
        peak_memory_bytes=replica.peak_memory_bytes,
        load_s=replica.load_s,
        batch_ratio=ratios,
        measured_allocations=measured_allocations(ratios, measured),
        startup_s=replica.startup_s,
    )
