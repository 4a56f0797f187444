"""Transfer source as a profile of the target, to estimate plan costs before any measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.profiling.store.measurement_keys import LOCAL
from circinus.profiling.store.transfer_sources import SourceScores
from circinus.specification import Configuration, MetricSpec, Pipeline, has_knob_values, prefix_configuration
from circinus.statistics.interval import Interval
from circinus.statistics.winsorizing import winsorized_mean

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

        The means are over the common items, that of times is winsorized. Similarity in the operator's own knobs comes
        first, as these determine memory and batch behaviour.
        """
        donor = self._most_similar(code, np.arange(len(self.profiles)))
        return self.extend(
            _scaled(donor, donor, self.common_items, service_s, output_bytes), code, measured_items=self.common_items
        )

    def extend(self, profile: OperatorProfile, code: IntArray, measured_items: int) -> OperatorProfile:
        """Return the profile extended to the maximum number of items, if it has fewer.

        Service times are in the ratio of winsorized means: otherwise one slow run of either would make all further
        items as slow, or fast.
        """
        max_items = int(self.items.max())
        if max_items <= measured_items:
            return profile
        donor = self._most_similar(code, np.flatnonzero(self.items == max_items))
        measured_s, measured_bytes = profile.service_s[:measured_items], profile.output_bytes[:measured_items]
        return _scaled(profile, donor, measured_items, winsorized_mean(measured_s), float(measured_bytes.mean()))

    def ratio_error(self, profile: OperatorProfile, code: IntArray, measured_items: int) -> float:
        """Return the standard error of the log ratio that `extend` scales service times by; 0 without further items."""
        max_items = int(self.items.max())
        if max_items <= measured_items or measured_items < 2:
            return 0.0
        donor = self._most_similar(code, np.flatnonzero(self.items == max_items))
        times_s = np.stack([p.service_s[:measured_items] for p in (profile, donor)])
        reached = (times_s > 0).all(axis=0)  # of items that do not reach the operator, no ratio is known
        if reached.sum() < 2:
            return 0.0
        own, other = np.log(np.maximum(times_s[:, reached], _MIN_POSITIVE))
        return float((own - other).std(ddof=1) / np.sqrt(reached.sum()))

    def _most_similar(self, code: IntArray, rows: IntArray) -> OperatorProfile:
        """Return the one of these profiles whose own knobs, and then the ancestors', differ least."""
        differs = self.codes[rows] != code
        order = np.lexsort((differs[:, self.lineage].sum(axis=1), differs[:, self.own].sum(axis=1)))
        return self.profiles[int(rows[order[0]])]


def _scaled(
    profile: OperatorProfile, donor: OperatorProfile, count: int, service_s: float, output_bytes: float
) -> OperatorProfile:
    """Return the profile with a donor's items, scaled so that the first `count` have the given (winsorized) means."""
    donor_s, donor_bytes = winsorized_mean(donor.service_s[:count]), float(donor.output_bytes[:count].mean())
    own = replace(profile, service_s=donor.service_s, output_bytes=donor.output_bytes, runs=donor.runs)
    return own.with_totals(
        donor.service_s * (service_s / max(donor_s, _MIN_POSITIVE)),
        donor.output_bytes * (output_bytes / max(donor_bytes, _MIN_POSITIVE)),
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
    operators: dict[tuple[str, Configuration], OperatorProfile] = {}
    for row in np.flatnonzero(measured[:, columns].all(axis=1)).tolist():
        name, prefix = runs.prefixes[row]
        service_s, output_bytes = runs.service_s[row, columns], runs.output_bytes[row, columns]
        unloaded = OperatorProfile(name, prefix, service_s, output_bytes, np.nan, np.nan, batch_ratio={})
        spec, replica = pipeline.operator(name), runs.replicas.get((name, prefix[name]))
        if replica is not None and has_knob_values(spec, prefix[name]):
            operators[name, prefix] = unloaded.with_replica(spec, replica)
    names, items, profiles = [o.name for o in pipeline.operators], np.arange(int(columns.sum())), []
    for configuration in dict.fromkeys(source.configurations):
        if sorted(configuration) != sorted(names):
            continue
        keys = [(name, prefix_configuration(pipeline, configuration, name)) for name in names]
        if all(key in operators for key in keys):
            profiles.append(
                ConfigurationProfile(
                    configuration=configuration,
                    items=items,
                    scores=np.full(len(items), np.nan),
                    accuracy=metric_range(pipeline.metric),
                    input_bytes=runs.input_bytes[columns],
                    operators={key[0]: operators[key] for key in keys},
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


def metric_range(metric: MetricSpec) -> Interval:
    """Return the range of a metric, for the accuracy of a configuration that is not scored."""
    low, high = metric.range
    return Interval((low + high) / 2, low, high)
