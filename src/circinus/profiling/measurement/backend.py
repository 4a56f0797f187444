"""Where the measurements of a pipeline come from: its operators, run here, or what was recorded of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from circinus.profiling.dataset.items import Dataset, load_dataset
from circinus.profiling.dataset.scorer import ItemScorer, Scorer
from circinus.profiling.hardware.machine import Machine, current_machine
from circinus.profiling.measurement.runner import Runner
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.specification import Pipeline


class MeasurementBackend(Protocol):
    """Everything that measuring takes from outside."""

    @property
    def clock(self) -> Callable[[], float]:
        """The seconds that a budget of this source counts."""
        ...

    @property
    def machine(self) -> Machine | None:
        """Whose service times these are; None: nobody knows."""
        ...

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """Where measurements made on `machine` stand in the store.

        Raises:
            OperatorError: an operator, metric or data set is not found.
            ProfileError: the source has nothing of this pipeline.
        """
        ...

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """The items in order.

        Raises:
            OperatorError, ProfileError: as `load_dataset`.
        """
        ...

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """What scores outputs that the store has already."""
        ...

    def runner(self, addresses: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """What measures. An operator that takes longer than `timeout_s` has failed."""
        ...


class LocalBackend:
    """The operators themselves, in processes on this machine."""

    def __init__(self, module_paths: Sequence[Path]) -> None:
        """Find operators, metric and data set in `module_paths`."""
        self._module_paths = tuple(module_paths)
        self._datasets: dict[tuple[str, int], Dataset] = {}

    @property
    def clock(self) -> Callable[[], float]:
        """See `Source.clock`."""
        return time.monotonic

    @property
    def machine(self) -> Machine:
        """See `Source.machine`."""
        return current_machine()

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """See `Source.addresses`."""
        return MeasurementKeys(pipeline, pipeline_code(pipeline, self._module_paths), machine=machine)

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """See `Source.dataset`; made once."""
        key = pipeline.name, seed
        if key not in self._datasets:
            self._datasets[key] = load_dataset(pipeline, self._module_paths, seed=seed)
        return self._datasets[key]

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """See `Source.scorer`."""
        return Scorer(pipeline, self._module_paths)

    def runner(self, addresses: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """See `Source.runner`."""
        from circinus.profiling.measurement.local_runner import LocalRunner

        return LocalRunner(addresses, self._module_paths, timeout_s=timeout_s)
