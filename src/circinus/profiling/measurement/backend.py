"""Measurement backends: sources of a pipeline's measurements, such as its operators on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from circinus.operators.user_code import user_code
from circinus.profiling.dataset.items import Dataset, load_dataset
from circinus.profiling.dataset.scorer import ItemScorer, Scorer
from circinus.profiling.hardware.machine import Machine, current_machine
from circinus.profiling.measurement.runner import Runner
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.specification import Pipeline

if TYPE_CHECKING:
    from circinus.profiling.measurement.operator_session import OperatorSession


class MeasurementBackend(Protocol):
    """Interface of the external resources that a measurement needs."""

    @property
    def clock(self) -> Callable[[], float]:
        """Clock of the budget, in seconds."""
        ...

    @property
    def machine(self) -> Machine | None:
        """Machine of the service times, or None if it is not recorded."""
        ...

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """Return the store keys of measurements made on `machine`.

        Raises:
            OperatorError: an operator, metric or data set cannot be found.
            ProfileError: the backend has no measurement of this pipeline.
        """
        ...

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """Return the items with their measurement order.

        Raises:
            OperatorError, ProfileError: see `load_dataset`.
        """
        ...

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """Return the scorer of stored outputs."""
        ...

    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """Return the runner of measurements. An operator that takes longer than `timeout_s` fails."""
        ...


class LocalBackend:
    """Backend that runs the operators in processes on this machine."""

    def __init__(self, module_paths: Sequence[Path], output: Path | None = None) -> None:
        """Use operators, metrics and data sets from `module_paths`.

        Args:
            module_paths: folders of modules.
            output: folder of the output of user code; by default it is not kept.
        """
        self._module_paths = tuple(module_paths)
        self._output = output
        if module_paths:  # else no code is at hand
            user_code(module_paths, output)
        self._datasets: dict[tuple[str, int], Dataset] = {}
        self._session: OperatorSession | None = None

    @contextmanager
    def shared_session(self) -> Iterator[OperatorSession]:
        """Share replicas and outputs among all runners until the end of the context; inner contexts share them, too."""
        from circinus.profiling.measurement.operator_session import OperatorSession

        if self._session is not None:
            yield self._session
            return
        with OperatorSession(self._module_paths, output=self._output) as self._session:
            try:
                yield self._session
            finally:
                self._session = None

    @property
    def clock(self) -> Callable[[], float]:
        return time.monotonic

    @property
    def machine(self) -> Machine:
        return current_machine()

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        return MeasurementKeys(pipeline, pipeline_code(pipeline, self._module_paths), machine=machine)

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """Return the cached data set (see `MeasurementBackend.dataset`)."""
        key = pipeline.name, seed
        if key not in self._datasets:
            self._datasets[key] = load_dataset(pipeline, self._module_paths, seed=seed)
        return self._datasets[key]

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        return Scorer(pipeline, self._module_paths)

    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        return self._shared_runner(keys, timeout_s)

    @contextmanager
    def _shared_runner(self, keys: MeasurementKeys, timeout_s: float) -> Iterator[Runner]:
        from circinus.profiling.measurement.local_runner import LocalRunner

        with self.shared_session() as session:
            yield LocalRunner(keys, timeout_s=timeout_s, session=session)
