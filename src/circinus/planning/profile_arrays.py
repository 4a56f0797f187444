"""A pipeline's profile as arrays, compiled once for all queries on the pipeline.

Measurements of an operator are shared by all configurations with the same prefix of the operator. Each distinct prefix
is one *row* of the operator's arrays, and a configuration is one row of each operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.estimation.percentiles import MeasuredSamples, PercentileEstimator, ScenarioGrid
from circinus.estimation.stage_latency import ElementTimes, batch_time_ratios
from circinus.estimation.traffic import RequestStream
from circinus.profiling import MIN_ITEMS, ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import HardwareClass, OperatorSpec, Pipeline

if TYPE_CHECKING:
    from circinus.planning.search_space import SearchSpace

_BatchRatios = tuple[tuple[tuple[tuple[float, ...], ...], ...], FloatArray]
"""Ratios of partly and of full batches on a hardware class, by row and by `sizes`."""
INPUT_INDEX = 0
"""Producer 0 is the pipeline's input; producer i + 1 is the i-th operator in topological order."""


@dataclass(frozen=True, eq=False)
class ProducerRows:
    """Outputs of the pipeline's input or of one operator, a row for each distinct prefix."""

    scenarios_bytes: FloatArray
    """(rows, scenarios)"""
    mean_bytes: FloatArray
    """(rows,)"""
    mean_factor: FloatArray
    """(rows,) upper bound of the population mean over the mean of the measured items; guarantees are computed with it.
    """
    scv: FloatArray
    """(rows,) squared coefficient of variation of the sizes."""
    skew: FloatArray
    """(rows,) mean cube of the sizes over the cube of their mean."""

    def of_rows(self, rows: IntArray) -> ProducerRows:
        """Return the outputs of some rows."""
        return ProducerRows(
            self.scenarios_bytes[rows], self.mean_bytes[rows], self.mean_factor[rows], self.scv[rows], self.skew[rows]
        )


@dataclass(frozen=True, eq=False)
class OperatorRows:
    """Measurements of one operator, a row for each distinct prefix."""

    spec: OperatorSpec
    scenarios_s: FloatArray
    """(rows, scenarios) unbatched seconds of one item on the fewest CPUs, inflated by the small-sample allowance."""
    mean_s: FloatArray
    """(rows,)"""
    mean_factor: FloatArray
    """(rows,) upper bound of the population mean over the mean of the measured items; guarantees are computed with it.
    """
    scv: FloatArray
    """(rows,)"""
    skew: FloatArray
    """(rows,) mean cube over the cube of the mean."""
    memory_bytes: FloatArray
    """(rows,)"""
    gpu_memory_bytes: FloatArray
    """(rows,)"""
    sizes: tuple[tuple[float, int], ...]
    """(CPUs, batch size) pairs that the operator's specification allows."""
    profiles: tuple[OperatorProfile, ...]
    """(rows,) source profiles."""
    grid: ScenarioGrid
    inflation: FloatArray
    """(rows,) factor of `scenarios_s`."""
    part_of: tuple[OperatorRows, IntArray] | None = None
    """The rows that these were taken from, and their indexes, whose slowdowns and ratios are computed once."""

    def of_rows(self, rows: IntArray) -> OperatorRows:
        """Return the measurements of some rows."""
        return replace(
            self,
            scenarios_s=self.scenarios_s[rows],
            mean_s=self.mean_s[rows],
            mean_factor=self.mean_factor[rows],
            scv=self.scv[rows],
            skew=self.skew[rows],
            memory_bytes=self.memory_bytes[rows],
            gpu_memory_bytes=self.gpu_memory_bytes[rows],
            profiles=tuple(self.profiles[row] for row in rows.tolist()),
            inflation=self.inflation[rows],
            part_of=(self, rows),
        )

    @cached_property
    def has_runs(self) -> bool:
        """Whether items may have none or several runs."""
        return any(profile.runs is not None for profile in self.profiles)

    @cached_property
    def has_elements(self) -> BoolArray:
        """(rows,) `OperatorProfile.has_elements`."""
        return np.array([profile.has_elements for profile in self.profiles], dtype=np.bool_)

    @cached_property
    def has_run(self) -> BoolArray:
        """(rows, scenarios) whether the item has a run."""
        return np.stack([p.run_counts[self.grid.items(len(p.run_counts))] > 0 for p in self.profiles])

    def min_times_in(self, hardware: Sequence[HardwareClass]) -> FloatArray:
        """Return (rows, len(hardware), sizes, scenarios) inflated seconds that a request takes at least, for its runs.

        They are those of its longest run, in a batch of its runs, where it has none or several; 0 otherwise.
        """
        shape = len(self.profiles), len(hardware), len(self.sizes), self.grid.count
        min_s = np.zeros(shape, dtype=self.scenarios_s.dtype)
        slowness = self.slowness_in(hardware) * self.inflation[:, None]
        for column, hardware_class in enumerate(hardware):
            fill = self.fill_ratios_on(hardware_class)
            for row, profile in enumerate(self.profiles):
                for size in range(len(self.sizes)):
                    elements = ElementTimes.of(profile, fill[row][size], self.grid)
                    if elements is not None:
                        min_s[row, column, size] = elements.min_s * slowness[row, column]
        return min_s

    def slowness_in(self, hardware: Sequence[HardwareClass]) -> FloatArray:
        """Return (rows, len(hardware)) `OperatorProfile.slowdown` on each hardware class."""
        if self.part_of is not None:
            whole, rows = self.part_of
            return whole.slowness_in(hardware)[rows]
        for hardware_class in hardware:
            if hardware_class not in self._slowness:
                self._slowness[hardware_class] = np.array([p.slowdown(hardware_class) for p in self.profiles])
        if not hardware:  # no pool is open to the query
            return np.empty((len(self.profiles), 0))
        return np.stack([self._slowness[hardware_class] for hardware_class in hardware], axis=1)

    def fill_ratios_on(self, hardware: HardwareClass) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """Return (batch size,) `batch_time_ratios` on a hardware class, by row and by `sizes`."""
        return self._ratios_on(hardware)[0]

    def full_batch_ratios_on(self, hardware: Sequence[HardwareClass]) -> FloatArray:
        """Return (rows, len(hardware), sizes) seconds of a full batch over those of one of its items."""
        if not hardware:
            return np.empty((len(self.profiles), 0, len(self.sizes)))
        return np.stack([self._ratios_on(hardware_class)[1] for hardware_class in hardware], axis=1)

    def _ratios_on(self, hardware: HardwareClass) -> _BatchRatios:
        if hardware.name not in self._ratios and self.part_of is not None:
            whole, rows = self.part_of
            fill, full = whole._ratios_on(hardware)
            self._ratios[hardware.name] = tuple(fill[row] for row in rows.tolist()), full[rows]
        if hardware.name not in self._ratios:
            has_own = any(profile.speeds.batches(hardware) for profile in self.profiles)
            key = hardware.name if has_own else ""  # classes with the ratios of the profile share them
            if key not in self._ratios:
                fill = tuple(tuple(batch_time_ratios(p, hardware, *size) for size in self.sizes) for p in self.profiles)
                self._ratios[key] = fill, np.array([[of_size[-1] for of_size in row] for row in fill])
            self._ratios[hardware.name] = self._ratios[key]
        return self._ratios[hardware.name]

    @cached_property
    def _slowness(self) -> dict[HardwareClass, FloatArray]:
        return {}

    @cached_property
    def _ratios(self) -> dict[str, _BatchRatios]:
        return {}


@dataclass(frozen=True, eq=False)
class ProfileArrays:
    """All configurations of a profile, prepared for the percentile of a query."""

    percentile: PercentileEstimator
    order: tuple[OperatorSpec, ...]
    """Operators in topological order."""
    parents: tuple[tuple[int, ...], ...]
    """Producers of the inputs of each operator."""
    configurations: tuple[ConfigurationProfile, ...]
    """Sorted by `rows`, so that configurations with a common prefix are neighbours."""
    rows: IntArray
    """(configurations, producers)"""
    producers: tuple[ProducerRows, ...]
    operators: tuple[OperatorRows, ...]
    consumers: tuple[tuple[int, ...], ...]
    """Consumers of each producer in topological order; empty for a sink."""
    population: int
    """Number of items that may be profiled."""
    score_population: int
    """Number of items of the population whose mean scores are bounded; `UNLIMITED` for requests to come."""

    def of_configurations(self, selected: Sequence[IntArray]) -> tuple[ProfileArrays, tuple[IntArray, ...]]:
        """Return the arrays of some configurations, and the owner of each row, by producer.

        Args:
            selected: ascending indexes of configurations, by owner; owners have rows of their own.
        """
        used = [[np.unique(column, return_inverse=True) for column in self.rows[own].T] for own in selected]
        index, owners, rows = [], [], []
        for of_owners in zip(*used, strict=True):
            counts = [len(own) for own, _ in of_owners]
            index.append(np.concatenate([own for own, _ in of_owners]))
            owners.append(np.repeat(np.arange(len(counts)), counts))
            begins = np.cumsum(counts) - counts
            rows.append(np.concatenate([own + begin for (_, own), begin in zip(of_owners, begins, strict=True)]))
        part = replace(
            self,
            configurations=tuple(self.configurations[number] for number in np.concatenate(selected).tolist()),
            rows=np.column_stack(rows),
            producers=tuple(producer.of_rows(own) for producer, own in zip(self.producers, index, strict=True)),
            operators=tuple(operator.of_rows(own) for operator, own in zip(self.operators, index[1:], strict=True)),
        )
        return part, tuple(owners)

    @cached_property
    def samples(self) -> MeasuredSamples:
        """Samples of the configurations for estimates."""
        return MeasuredSamples(self.percentile)

    @cached_property
    def spaces(self) -> dict[object, SearchSpace]:
        """Search spaces of queries on these arrays (`compile_query`), least recently used first."""
        return {}


def compile_profile(
    pipeline: Pipeline, profile: PipelineProfile, percentile: PercentileEstimator, dtype: type[np.floating] = np.float64
) -> ProfileArrays:
    """Compile `profile` for the search.

    Raises:
        PlanningError: the profile is of another pipeline, or has no configuration with enough items.
    """
    if profile.pipeline != pipeline.name:
        raise PlanningError(
            f"the profile is of pipeline {profile.pipeline}",
            code="profile.other_pipeline",
            location=f"pipeline {pipeline.name}",
            hint="Use a profile of this pipeline.",
        )
    measured = profile.usable
    if not measured:
        raise PlanningError(
            f"no configuration is measured on {MIN_ITEMS} items (or on all items of the data set)",
            code="profile.too_few_items",
            location=f"pipeline {pipeline.name}",
            hint="Profile the pipeline longer (`circinus profile`).",
        )
    return compile_configurations(pipeline, profile, measured, percentile, dtype)


def compile_configurations(
    pipeline: Pipeline,
    profile: PipelineProfile,
    measured: Sequence[ConfigurationProfile],
    percentile: PercentileEstimator,
    dtype: type[np.floating],
) -> ProfileArrays:
    """Compile some configurations of `profile`, at least one."""
    order = pipeline.topological_order()
    producers = range(len(order) + 1)
    index = {operator.name: position + 1 for position, operator in enumerate(order)}
    rows = np.zeros((len(measured), len(order) + 1), dtype=np.int64)
    keys: list[list[tuple[object, ...]]] = [[(c.items.tobytes(),) for c in measured]]
    keys += [[(c.operators[o.name].prefix, c.items.tobytes()) for c in measured] for o in order]
    first: list[list[ConfigurationProfile]] = []
    for producer, column in enumerate(keys):
        row_of_key: dict[object, int] = {}
        owners: list[ConfigurationProfile] = []
        for position, key in enumerate(column):
            if key not in row_of_key:
                row_of_key[key] = len(row_of_key)
                owners.append(measured[position])
            rows[position, producer] = row_of_key[key]
        first.append(owners)
    shared = [_with_shared_profiles(c, order, first, rows[position]) for position, c in enumerate(measured)]
    sorting = np.lexsort(rows.T[::-1])
    parents = tuple(tuple(dict.fromkeys(index[name] for name in o.parents)) or (INPUT_INDEX,) for o in order)
    return ProfileArrays(
        percentile=percentile,
        order=order,
        parents=parents,
        consumers=tuple(tuple(o for o, ps in enumerate(parents) if producer in ps) for producer in producers),
        configurations=tuple(shared[position] for position in sorting),
        rows=rows[sorting],
        population=profile.population,
        score_population=profile.score_population,
        producers=(
            _producer_rows([c.input_bytes for c in first[0]], percentile, dtype),
            *(
                _producer_rows([c.operators[o.name].output_bytes for c in owners], percentile, dtype)
                for o, owners in zip(order, first[1:], strict=True)
            ),
        ),
        operators=tuple(
            _operator_rows(o, [c.operators[o.name] for c in owners], percentile, dtype)
            for o, owners in zip(order, first[1:], strict=True)
        ),
    )


def _with_shared_profiles(
    configuration: ConfigurationProfile,
    order: Sequence[OperatorSpec],
    first: Sequence[Sequence[ConfigurationProfile]],
    rows: IntArray,
) -> ConfigurationProfile:
    """Return the configuration with the profile objects of the first configuration that shares each prefix."""
    return replace(
        configuration,
        input_bytes=first[INPUT_INDEX][rows[INPUT_INDEX]].input_bytes,
        operators={o.name: first[i + 1][rows[i + 1]].operators[o.name] for i, o in enumerate(order)},
    )


def _producer_rows(
    sizes: Sequence[FloatArray], percentile: PercentileEstimator, dtype: type[np.floating]
) -> ProducerRows:
    mean_bytes, scv, skew = _moments(sizes)
    return ProducerRows(
        scenarios_bytes=_scenarios(sizes, percentile.grid, dtype),
        mean_bytes=mean_bytes,
        mean_factor=np.array([percentile.allowance.of_mean(sizes_bytes) for sizes_bytes in sizes]),
        scv=scv,
        skew=skew,
    )


def _operator_rows(
    spec: OperatorSpec, profiles: Sequence[OperatorProfile], percentile: PercentileEstimator, dtype: type[np.floating]
) -> OperatorRows:
    services = [profile.service_s for profile in profiles]
    inflated = [percentile.allowance.inflate(service_s) for service_s in services]
    mean_s, scv, skew = _moments(services)
    sizes = tuple(dict.fromkeys(product(spec.cpus, spec.batch_sizes)))
    return OperatorRows(
        spec=spec,
        scenarios_s=_scenarios(inflated, percentile.grid, dtype),
        mean_s=mean_s,
        mean_factor=np.array([percentile.allowance.of_mean(service_s) for service_s in services]),
        scv=scv,
        skew=skew,
        memory_bytes=np.array([profile.peak_memory_bytes for profile in profiles]),
        gpu_memory_bytes=np.array([spec.replica_gpu_memory_bytes(p.prefix[spec.name].as_dict()) for p in profiles]),
        sizes=sizes,
        profiles=tuple(profiles),
        grid=percentile.grid,
        inflation=np.array([percentile.allowance.of(service_s) for service_s in services]),
    )


def _scenarios(measured: Sequence[FloatArray], grid: ScenarioGrid, dtype: type[np.floating]) -> FloatArray:
    return np.stack([values[grid.items(len(values))] for values in measured]).astype(dtype)


def _moments(measured: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    traffics = [
        RequestStream(1.0, float(values.mean()), float((values**2.0).mean()), float((values**3.0).mean()))
        for values in measured
    ]
    means, scv = np.array([traffic.mean_s for traffic in traffics]), np.array([traffic.scv for traffic in traffics])
    return means, scv, np.array([traffic.skew for traffic in traffics])
