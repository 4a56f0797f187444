"""Runner on this machine: one process per operator, with a cache of outputs by prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from circinus.operators import Item
from circinus.operators.executor_process import OperatorProcessError
from circinus.operators.host import BatchRun
from circinus.operators.pickling import pack_list, pickle_value
from circinus.operators.protocol import Emission
from circinus.operators.run_clock import RunTimes
from circinus.operators.user_code import user_code
from circinus.profiling.dataset.pickled_item import pickled_value
from circinus.profiling.dataset.scorer import Scorer
from circinus.profiling.hardware.machine import available_cpus
from circinus.profiling.item_runs import ItemRuns, branch_name
from circinus.profiling.measurement.operator_process import OperatorProcess, OperatorProcessKey
from circinus.profiling.measurement.operator_session import OperatorRun, OperatorSession
from circinus.profiling.measurement.prefix_cache import PrefixCache, RunOutputs, operators_to_run
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    ElapsedTimes,
    Measurement,
    MeasurementError,
    OperatorRuns,
    OperatorsMeasurement,
    ReplicaStats,
)
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Configuration, OperatorSpec
from circinus.specification.dataflow import FlowNode, ItemFlow, RunPath


def _due(flow: ItemFlow[bytes], spec: OperatorSpec, item: Item) -> list[tuple[RunPath, list[bytes]]]:
    """Return the path and the pickled inputs of each run of an operator for an item."""
    due = flow.due(spec.name, pickled_value(item) if not spec.after else None)
    return [(path, [_packed(value) for value in inputs]) for path, inputs in due]


def _add(flow: ItemFlow[bytes], node: FlowNode, outputs: RunOutputs) -> None:
    """Add an operator's outputs to those of its item."""
    for path, its_outputs in outputs:
        flow.add(node.name, path, [(branch_name(node, branch), output) for branch, output in its_outputs])


def _packed(answer: Any) -> bytes:
    """Return the payload of an output, of a list of outputs, or of None."""
    if isinstance(answer, bytes):
        return answer
    return pickle_value(None) if answer is None else pack_list([_packed(part) for part in answer])


class LocalRunner:
    """Runner that measures a pipeline's configurations on this machine.

    A process holds one operator with its knob values, like a replica in service: crashes and leaks stay isolated, and
    load time and resident memory are those of a replica. Processes are reused (`OperatorSession`). An operator whose
    fewest CPUs exceed the machine's is measured with all CPUs of the machine, assuming that more would hardly speed it
    up.
    """

    def __init__(
        self,
        keys: MeasurementKeys,
        module_paths: Sequence[Path] = (),
        *,
        timeout_s: float = PROFILING.operator_timeout_s,
        session: OperatorSession | None = None,
    ) -> None:
        """Create the runner without starting a process.

        Args:
            keys: keys of the pipeline's measurements.
            module_paths: folders of the operators' modules, for a session of this runner alone.
            timeout_s: timeout of loading an operator or processing a batch.
            session: session to share; by default one that ends with this runner.

        Raises:
            OperatorError: an operator or the metric cannot be found.
        """
        self._is_shared = session is not None
        self._session = session or OperatorSession(module_paths)
        self._scorer = Scorer(keys.pipeline, self._session.module_paths, timeout_s)
        self._keys = keys
        self._dataset = keys.dataset()
        self._pipeline = keys.pipeline
        self._topological = self._pipeline.topological_order()
        self._lineages = {o.name: (*self._pipeline.ancestors(o.name), o.name) for o in self._pipeline.operators}
        self._cpus = available_cpus()
        self._timeout_s = timeout_s
        self._operators_s, self._loading_s = 0.0, self._session.loading_s
        code = user_code(self._session.module_paths)
        self._takes_cpus = {o.uses: code.operator(o.uses).takes_cpus for o in keys.pipeline.operators}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop all processes of a session that is not shared."""
        if not self._is_shared:
            self._session.close()

    @property
    def cache(self) -> PrefixCache:
        """Cache of outputs."""
        return self._session.cache

    @property
    def cpus(self) -> float:
        return self._cpus

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        sinks = self._pipeline.sinks()
        flows, ran_s = self._outputs(configuration, items, sinks)
        self._load_unused(configuration)
        outputs = {sink: tuple(_packed(flow.answer(sink)) for flow in flows) for sink in sinks}
        return Measurement(
            runs=self._operator_runs(configuration, items, [operator.name for operator in self._topological]),
            outputs=outputs,
            scores=self._scorer.scores(configuration, items, outputs),
            replicas=self._replicas_stats(configuration),
            compute_s=ran_s,
            elapsed=self._take_elapsed(),
        )

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        _, ran_s = self._outputs(configuration, items, operators)
        lineages = {name for operator in operators for name in self._lineages[operator]}
        return OperatorsMeasurement(
            runs=self._operator_runs(configuration, items, lineages),
            replicas={name: stats for name, stats in self._replicas_stats(configuration).items() if name in lineages},
            compute_s=ran_s,
            elapsed=self._take_elapsed(),
        )

    def answers(self, configuration: Configuration, items: Sequence[Item]) -> Mapping[str, tuple[bytes, ...]]:
        """Return (n,) pickled outputs of each sink on n items, without scoring or timing.

        Raises:
            MeasurementError: an operator failed.
        """
        sinks = self._pipeline.sinks()
        flows, _ = self._outputs(configuration, items, sinks)
        return {sink: tuple(_packed(flow.answer(sink)) for flow in flows) for sink in sinks}

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """See `Runner.measure_allocations`.

        The single items are measured again next to the batches, so that both see the machine in the same state. A batch
        larger than the number of items repeats them.
        """
        key = self._prefix(operator, configuration), str(allocations)
        if key in self._session.failures:
            raise self._error(configuration, items[0], self._session.failures[key])
        try:
            return self._measure_allocations(configuration, self._pipeline.operator(operator), allocations, items)
        except MeasurementError as error:
            self._session.failures[key] = error.message
            raise

    def _measure_allocations(
        self,
        configuration: Configuration,
        spec: OperatorSpec,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        flows, ran_s = self._outputs(configuration, items, spec.parents)
        due = [(item, inputs) for item, flow in zip(items, flows, strict=True) for _, inputs in _due(flow, spec, item)]
        rows, owners = [inputs for _, inputs in due], [item for item, _ in due]
        single_runs = self._process_each(spec, configuration, min(spec.cpus), [[row] for row in rows], owners)
        unbatched_s = [run.service_s for run in single_runs]
        ran_s += sum(unbatched_s)
        ratios = {}
        for cpus, size in allocations if rows else ():
            starts = range(0, len(rows), size)
            selected = [[(start + k) % len(rows) for k in range(size)] for start in starts]
            batches = [[rows[i] for i in indexes] for indexes in selected]
            runs = self._process_each(spec, configuration, cpus, batches, [owners[start] for start in starts])
            batch_s = sum(run.service_s for run in runs)
            item_s = sum(unbatched_s[i] for indexes in selected for i in indexes) / size
            ratios[cpus, size] = batch_s / max(item_s, 1e-9)
            ran_s += batch_s
        self._load_unused(configuration, [spec])
        fewest = self._key(spec, configuration, min(spec.cpus))
        others = {self._key(spec, configuration, cpus) for cpus, _ in allocations if rows} - {fewest}
        stats = self._replica_stats(spec, configuration)
        return AllocationMeasurement(
            ratios,
            replace(stats, peak_memory_bytes=max(self._session.peaks[key] for key in (fewest, *others))),
            ran_s,
            self._take_elapsed(),
        )

    def _outputs(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> tuple[list[ItemFlow[bytes]], float]:
        """Return the outputs of operators and of what ran for them, and the seconds of computing missing ones.

        Runs operator by operator, so that few are loaded at a time.

        Returns:
            The outputs of each item, and the seconds.
        """
        missing: dict[str, list[int]] = {operator.name: [] for operator in self._topological}
        prefixes = {operator.name: self._prefix(operator.name, configuration) for operator in self._topological}
        cached: list[dict[str, RunOutputs]] = [{} for _ in items]
        for index, item in enumerate(items):

            def is_cached(operator: str, index: int = index, item: Item = item) -> bool:
                outputs = self.cache.get(prefixes[operator], item.key)
                if outputs is not None:
                    cached[index][operator] = outputs
                return outputs is not None

            for name in operators_to_run(self._topological, operators, is_cached):
                missing[name].append(index)
        nodes = tuple(operator.flow for operator in self._topological)
        flows = [ItemFlow[bytes](nodes) for _ in items]
        ran_s = 0.0
        for operator in self._topological:
            runs = self._run(operator, configuration, [(items[i], flows[i]) for i in missing[operator.name]])
            for index, (outputs, service_s) in zip(missing[operator.name], runs, strict=True):
                cached[index][operator.name] = outputs
                ran_s += service_s
            for flow, its_outputs in zip(flows, cached, strict=True):
                if operator.name in its_outputs:
                    _add(flow, operator.flow, its_outputs[operator.name])
        return flows, ran_s

    def _run(
        self, spec: OperatorSpec, configuration: Configuration, items: Sequence[tuple[Item, ItemFlow[bytes]]]
    ) -> Iterator[tuple[RunOutputs, float]]:
        """Run an operator on items, one run after the other, and cache its outputs.

        Args:
            spec: the operator.
            configuration: the configuration.
            items: items, each with the outputs of the operator's parents.

        Yields:
            The outputs of each item, and the seconds of its runs.
        """
        prefix = self._prefix(spec.name, configuration)
        for item, _ in items:
            if (prefix, item.key) in self._session.failures:
                raise self._error(configuration, item, self._session.failures[prefix, item.key])
        due = [_due(flow, spec, item) for item, flow in items]
        owners = [item for (item, _), rows in zip(items, due, strict=True) for _ in rows]
        batches = [[inputs] for rows in due for _, inputs in rows]
        done = 0
        try:
            processed = self._process_each(spec, configuration, min(spec.cpus), batches, owners)
            for (item, _), rows in zip(items, due, strict=True):
                runs: list[BatchRun] = []
                for _ in rows:
                    runs.append(next(processed))
                    done += 1
                outputs = tuple((path, run.of_inputs[0]) for (path, _), run in zip(rows, runs, strict=True))
                measured = ItemRuns(
                    tuple(path for path, _ in rows),
                    tuple(run.service_s for run in runs),
                    tuple(tuple(len(value) for _, value in its_outputs) for _, its_outputs in outputs),
                    tuple(tuple(branch for branch, _ in its_outputs) for _, its_outputs in outputs),
                )
                times = RunTimes.total(run.times for run in runs)
                self.cache.put(prefix, item.key, outputs, measured.total_s)
                self._session.runs[prefix, item.key] = OperatorRun(measured, times)
                yield outputs, measured.total_s
        except MeasurementError as error:
            if done < len(owners):
                self._session.failures[prefix, owners[done].key] = error.message
            raise

    def _process_each(
        self,
        spec: OperatorSpec,
        configuration: Configuration,
        cpus: float,
        batches: Sequence[Sequence[Sequence[bytes]]],
        items: Sequence[Item],
    ) -> Iterator[BatchRun]:
        """Yield the runs of batches in order; `items` has the first item of each, for errors."""
        key = self._key(spec, configuration, cpus)
        done, is_retry = 0, False
        while done < len(batches):
            replica = self._replica(spec, configuration, key)
            before_s, source = replica.elapsed_s, self._prefix(spec.name, configuration)
            try:
                for run in replica.process_each(batches[done:], min(cpus, self._cpus), source):
                    done, is_retry = done + 1, False
                    yield run
            except OperatorProcessError as error:
                if not replica.alive:
                    self._session.replicas.discard(key)
                    if replica.was_bystander and not is_retry:
                        is_retry = True
                        continue
                raise self._error(configuration, items[done], f"operator {spec.name} ({spec.uses}): {error}") from error
            finally:
                self._operators_s += replica.elapsed_s - before_s
                if replica.peak_memory_bytes:
                    self._session.peaks[key] = max(self._session.peaks.get(key, 0), replica.peak_memory_bytes)

    def _load_unused(self, configuration: Configuration, operators: Sequence[OperatorSpec] | None = None) -> None:
        """Load operators that no item reached, for the times and memory of their replicas."""
        for spec in self._topological if operators is None else operators:
            key = self._key(spec, configuration, min(spec.cpus))
            if key not in self._session.peaks:
                self._session.peaks[key] = self._replica(spec, configuration, key).memory_bytes()

    def _replica(self, spec: OperatorSpec, configuration: Configuration, key: OperatorProcessKey) -> OperatorProcess:
        """Return the loaded replica of an operator."""
        if key in self._session.unloadable:
            raise self._unloadable(configuration, spec, key)
        try:
            return self._session.replicas.get(key, self._timeout_s)
        except OperatorProcessError as error:
            self._session.unloadable[key] = f"cannot be loaded: {error}"
            raise self._unloadable(configuration, spec, key) from error

    def _take_elapsed(self) -> ElapsedTimes:
        """Return the times since the last call."""
        elapsed = ElapsedTimes(self._operators_s, self._session.loading_s - self._loading_s)
        self._operators_s, self._loading_s = 0.0, self._session.loading_s
        return elapsed

    def _key(self, spec: OperatorSpec, configuration: Configuration, cpus: float) -> OperatorProcessKey:
        """Return the key of the process; operators that ignore their CPUs share one for all with as many threads."""
        cpus = min(cpus, self._cpus)
        if not self._takes_cpus[spec.uses]:
            cpus = max(1.0, float(ceil(cpus)))
        version = self._keys.code.operators[spec.uses]
        return OperatorProcessKey(spec.uses, version, configuration[spec.name], cpus, Emission.of(spec))

    def _prefix(self, operator: str, configuration: Configuration) -> str:
        """Return the key of an operator's runs on the items of the data set, with the CPUs that their times are for."""
        services = (self._keys.service(name, configuration) for name in self._lineages[operator])
        return " ".join((self._dataset, *services))

    def _operator_runs(
        self, configuration: Configuration, items: Sequence[Item], operators: Iterable[str]
    ) -> dict[str, OperatorRuns]:
        result = {}
        for name in operators:
            prefix = self._prefix(name, configuration)
            runs = [self._session.runs[prefix, item.key] for item in items]
            result[name] = OperatorRuns.of_items([run.runs for run in runs], [run.times for run in runs])
        return result

    def _replicas_stats(self, configuration: Configuration) -> Mapping[str, ReplicaStats]:
        return {
            spec.name: self._replica_stats(spec, configuration)
            for spec in self._topological
            if self._key(spec, configuration, min(spec.cpus)) in self._session.peaks
        }

    def _replica_stats(self, spec: OperatorSpec, configuration: Configuration) -> ReplicaStats:
        """Return the statistics of the replica on the fewest CPUs, with the starts since the last call."""
        key = self._key(spec, configuration, min(spec.cpus))
        starts = self._session.new_starts(key, self._keys.replica(spec.name, configuration[spec.name]))
        return ReplicaStats(
            tuple(start.load_s for start in starts),
            tuple(start.startup_s for start in starts),
            self._session.peaks[key],
        )

    def _unloadable(
        self, configuration: Configuration, spec: OperatorSpec, key: OperatorProcessKey
    ) -> MeasurementError:
        reason = f"operator {spec.name} ({spec.uses}) {self._session.unloadable[key]}"
        return self._error(configuration, None, reason)

    def _error(self, configuration: Configuration, item: Item | None, reason: str) -> MeasurementError:
        code = "operator.failed" if item else "operator.not_loadable"
        return MeasurementError(reason, self._pipeline.name, configuration, item.key if item else None, code=code)
