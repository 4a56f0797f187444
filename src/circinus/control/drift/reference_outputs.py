"""What other plans than the one in force answer: computed, or recorded before."""

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

_MOST_ITEMS = 2000
"""That a runner is asked for before another takes its place: it remembers every item."""


class ReferenceRunner(Protocol):
    """Runs configurations on items that came, beside the engine."""

    @property
    def machine(self) -> Machine | None:
        """Whose service times are measured; None: they are those of the profile's own machine."""
        ...

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        """By sink: (n,) packed outputs for n items; no truth is looked at. May take long.

        Raises:
            CircinusError: it cannot be said of one of the items.
        """
        ...

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """The same with service times, and scores against the items' truths.

        Raises:
            CircinusError: as `answers`, or the metric failed.
        """
        ...


class LiveReferenceRunner:
    """By running the operators on this machine, as profiling does. Processes are started when they are first needed
    and kept; `close` ends them."""

    def __init__(self, specification: Specification, *, timeout_s: float = 60.0) -> None:
        """Start nothing yet.

        Args:
            specification: with the pipelines.
            timeout_s: an operator that takes longer for an item has failed.
        """
        self._specification, self._timeout_s = specification, timeout_s
        self._runners: dict[str, LocalRunner] = {}
        self._items: dict[str, int] = {}

    @property
    def machine(self) -> Machine:
        """As `Answers.machine`."""
        return current_machine()

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        """As `Answers.answers`."""
        return self._runner(pipeline, len(items)).answers(configuration, items)

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """As `Answers.measure`."""
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
        if self._items[name] > _MOST_ITEMS and name in self._runners:
            self._runners.pop(name).close()
            self._items[name] = items
        if name not in self._runners:
            pipeline, module_paths = self._specification.pipelines[name], self._specification.module_paths
            addresses = MeasurementKeys(pipeline, pipeline_code(pipeline, module_paths), machine=current_machine())
            self._runners[name] = LocalRunner(addresses, module_paths, timeout_s=self._timeout_s)
        return self._runners[name]


class ReplayReferenceRunner:
    """From a profile store, for engines that replay: of items and configurations that were recorded."""

    def __init__(self, specification: Specification, store: Path) -> None:
        """Read nothing yet.

        Args:
            specification: with the pipelines.
            store: the profile store.
        """
        self._specification, self._store = specification, store
        self._recorded: dict[tuple[str, Configuration], Recordings] = {}
        self._scorers: dict[str, ItemScorer] = {}

    @property
    def machine(self) -> None:
        """As `Answers.machine`."""
        return

    def answers(
        self, pipeline: str, configuration: Configuration, items: Sequence[Item]
    ) -> Mapping[str, tuple[bytes, ...]]:
        """As `Answers.answers`."""
        spec = self._specification.pipelines[pipeline]
        recorded = self._having(spec, configuration, items)
        return {
            sink: tuple(recorded.outputs[prefix_configuration(spec, configuration, sink)][item.key] for item in items)
            for sink in spec.sinks()
        }

    def measure(self, pipeline: str, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """As `Answers.measure`; the seconds are recorded ones, and nothing ran."""
        spec = self._specification.pipelines[pipeline]
        outputs = self.answers(pipeline, configuration, items)
        recorded = self._having(spec, configuration, items)
        if pipeline not in self._scorers:
            self._scorers[pipeline] = Scorer(spec, self._specification.module_paths)
        scorer, runs = self._scorers[pipeline], {}
        for operator in spec.operators:
            found = [recorded.run(prefix_configuration(spec, configuration, operator.name), item.key) for item in items]
            sizes = tuple(round(run.output_bytes) for run in found)
            runs[operator.name] = OperatorRuns(tuple(run.service_s for run in found), sizes)
        scores = tuple(
            scorer.score(configuration, item, {sink: outputs[sink][number] for sink in outputs})
            for number, item in enumerate(items)
        )
        return Measurement(runs, outputs, scores, replicas={}, compute_s=0.0, saved_s=0.0)

    def _having(self, pipeline: Pipeline, configuration: Configuration, items: Sequence[Item]) -> Recordings:
        """Read again where an item is missing: it may have been recorded since."""
        key = pipeline.name, configuration
        known = self._recorded.get(key)
        if known is None or not all(item.key in known.items for item in items):
            prefixes = [prefix_configuration(pipeline, configuration, operator.name) for operator in pipeline.operators]
            known = self._recorded[key] = load_recordings(self._store, pipeline.name, prefixes)
        missing = [item.key for item in items if item.key not in known.items]
        if missing:
            raise ProfileError(
                f"there is no recording of item {missing[0]} under {configuration}",
                code="recording.missing",
                location=f"pipeline {pipeline.name}",
                hint="Run `circinus apply --mode replay` to record it.",
            )
        return known
