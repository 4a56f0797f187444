"""Outputs of reference configurations, computed live or recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling import Machine, Recordings, load_recordings
from circinus.profiling.dataset.scorer import ItemScorer, Scorer
from circinus.profiling.hardware.machine import current_machine
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.runner import Measurement, OperatorRuns
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.specification import Configuration, Pipeline, Specification, prefix_configuration

_MAX_ITEMS = 2000
"""Maximum number of items per runner before it is replaced, because it caches every item."""
_TIMEOUT_S = 60.0
"""Timeout of an operator per item."""


class ReferenceRunner(Protocol):
    """Runner of configurations on live items outside the engine."""

    @property
    def machine(self) -> Machine | None:
        """Machine of the measured service times; None for the machine of the profile."""
        ...

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        """Return (n,) pickled outputs by sink for n items, without using their ground truth. May take long.

        Raises:
            CircinusError: an item failed or has no recording.
        """
        ...

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """Return outputs, service times, and scores against the items' ground truth.

        Raises:
            CircinusError: an item or the metric failed.
        """
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class LiveReferenceRunner:
    """Runner that executes operators on this machine, as profiling does.

    Processes start at first use and stay; `close` ends them.
    """

    def __init__(self, specification: Specification) -> None:
        self._specification = specification
        self._runners: dict[str, LocalRunner] = {}
        self._items: dict[str, int] = {}

    @property
    def machine(self) -> Machine:
        return current_machine()

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        return self._runner(pipeline, len(items)).answers(configuration, items)

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        return self._runner(pipeline, len(items)).measure(configuration, items)

    def close(self) -> None:
        """End all processes."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _runner(self, name: str, items: int) -> LocalRunner:
        self._items[name] = self._items.get(name, 0) + items
        if self._items[name] > _MAX_ITEMS and name in self._runners:
            self._runners.pop(name).close()
            self._items[name] = items
        if name not in self._runners:
            pipeline, module_paths = self._specification.pipelines[name], self._specification.module_paths
            keys = MeasurementKeys(pipeline, pipeline_code(pipeline, module_paths), machine=current_machine())
            self._runners[name] = LocalRunner(keys, module_paths, timeout_s=_TIMEOUT_S)
        return self._runners[name]


class ReplayReferenceRunner:
    """Runner that reads recorded outputs from a profile store, for engines in replay mode."""

    def __init__(self, specification: Specification, store: Path) -> None:
        self._specification, self._store = specification, store
        self._recorded: dict[tuple[str, Configuration], Recordings] = {}
        self._scorers: dict[str, ItemScorer] = {}

    @property
    def machine(self) -> None:
        """No machine; times are those of the profile's machine."""
        return

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        spec = self._specification.pipelines[pipeline]
        recorded = self._recordings_of(spec, configuration, items)
        return {
            sink: tuple(recorded.outputs[prefix_configuration(spec, configuration, sink)][item.key] for item in items)
            for sink in spec.sinks()
        }

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """Implement `ReferenceRunner.measure` with recorded service times; nothing is executed."""
        spec = self._specification.pipelines[pipeline]
        outputs = self.answers(pipeline, configuration, items)
        recorded = self._recordings_of(spec, configuration, items)
        if pipeline not in self._scorers:
            self._scorers[pipeline] = Scorer(spec, self._specification.module_paths)
        scorer, runs = self._scorers[pipeline], {}
        for operator in spec.operators:
            recorded_runs = [
                recorded.run(prefix_configuration(spec, configuration, operator.name), item.key) for item in items
            ]
            runs[operator.name] = OperatorRuns.of_items(recorded_runs)
        scores = scorer.scores(configuration, items, outputs)
        return Measurement(runs, replicas={}, compute_s=0.0, outputs=outputs, scores=scores)

    def close(self) -> None:
        """Do nothing, because nothing was started."""

    def _recordings_of(self, pipeline: Pipeline, configuration: Configuration, items: Sequence[Item]) -> Recordings:
        """Return recordings that contain all items, reloaded if an item may have been recorded since."""
        key = pipeline.name, configuration
        recordings = self._recorded.get(key)
        if recordings is None or not all(item.key in recordings.items for item in items):
            prefixes = [prefix_configuration(pipeline, configuration, operator.name) for operator in pipeline.operators]
            recordings = self._recorded[key] = load_recordings(self._store, pipeline.name, prefixes)
        missing = [item.key for item in items if item.key not in recordings.items]
        if missing:
            raise ProfileError(
                f"item {missing[0]} has no recording of configuration {configuration}",
                code="recording.missing",
                location=f"pipeline {pipeline.name}",
                hint="Run `circinus apply --mode replay` to record it.",
            )
        return recordings
