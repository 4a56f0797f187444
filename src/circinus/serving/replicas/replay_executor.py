"""Executor of the mode `replay`."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from circinus.errors import ProfileError, ServingError
from circinus.operators.pickling import Payload, unpack_list
from circinus.serving.replicas.replica_protocol import (
    Batch,
    BatchItem,
    BatchResult,
    ItemResult,
    ReplayRun,
    ReplayStage,
    ReplicaSpec,
)

if TYPE_CHECKING:  # processes of replicas start faster without the specification
    from circinus.profiling import Recordings
    from circinus.profiling.item_runs import ItemRuns
    from circinus.serving.engine import DesiredState
    from circinus.serving.routes import RouteStage
    from circinus.specification import Configuration
    from circinus.specification.dataflow import RunPath


def load_replay_stages(desired: DesiredState) -> Mapping[tuple[str, RouteStage], ReplayStage]:
    """Return the recordings of every stage of every route, by (pipeline, stage).

    Raises:
        ServingError: the state names no profile store, or the store lacks recordings that a route needs.
    """
    # Lazy import: reading recordings needs numpy, which an engine in mode `real` does not load.
    from circinus.profiling import load_recordings

    if desired.recordings is None:
        raise ServingError(
            "a profile store is required",
            code="engine.no_recordings",
            location="mode replay",
            hint="Pass the path of the store.",
        )
    prefixes: defaultdict[str, dict[Configuration, None]] = defaultdict(dict)
    for route in desired.routes:
        prefixes[route.pipeline].update((stage.prefix, None) for stage in route.all_stages)
    try:
        recordings = {name: load_recordings(desired.recordings, name, needed) for name, needed in prefixes.items()}
    except ProfileError as error:
        raise ServingError(f"cannot replay: {error}", code="engine.cannot_replay") from error
    stages = {}
    for route in desired.routes:
        recorded = recordings[route.pipeline]
        for stage in (stage.unlimited for stage in route.all_stages):
            stages[route.pipeline, stage] = replay_stage(recorded, stage, is_sink=stage.operator in route.sinks)
    return stages


def replay_stage(recorded: Recordings, stage: RouteStage, *, is_sink: bool) -> ReplayStage:
    """Return the recordings of one stage of a pipeline.

    Raises:
        ServingError: the speed with the allocated CPUs was not measured.
    """
    outputs = recorded.outputs.get(stage.prefix, {})
    runs: dict[str | tuple[str, RunPath], ReplayRun] = {}
    for key, recorded_runs in recorded.runs[stage.prefix].items():
        if not is_sink or key in outputs:
            own = replay_runs(recorded_runs, outputs[key] if is_sink else None, emits_many=stage.node.emits_many)
            runs |= {(key, path) if path else key: run for path, run in own.items()}
    return ReplayStage(
        runs=runs,
        batch_ratio=_batch_ratio(stage, recorded.batch_ratios.get((stage.operator, stage.deployment.knobs), {})),
    )


def replay_runs(runs: ItemRuns, output: bytes | None, *, emits_many: bool) -> Mapping[RunPath, ReplayRun]:
    """Return the recorded runs of a stage for an item, by path.

    Args:
        runs: the runs.
        output: output of a sink for the item: of its run, or nested lists of those of all elements.
        emits_many: whether each run has a list of outputs.
    """
    if runs.is_single and not emits_many:
        return {(): ReplayRun(runs.service_s[0], runs.output_bytes[0][0], output)}
    outputs: Iterator[bytes] | None = None
    if output is not None and runs.paths:
        outputs = iter(_elements(output, len(runs.paths[0]) + emits_many))
    return {
        path: ReplayRun(
            service_s,
            sum(sizes),
            None if outputs is None else b"",
            tuple(zip(branches, map(float, sizes), strict=True)),
            () if outputs is None else tuple(islice(outputs, len(sizes))),
        )
        for path, service_s, sizes, branches in zip(
            runs.paths, runs.service_s, runs.output_bytes, runs.branches, strict=True
        )
    }


def _elements(output: Payload, depth: int) -> list[bytes]:
    """Return the outputs in nested lists of some depth, in order."""
    if not depth:
        return [bytes(output)]
    return [element for part in unpack_list(output) for element in _elements(part, depth - 1)]


def _batch_ratio(stage: RouteStage, measured: Mapping[tuple[float, int], float]) -> Mapping[int, float]:
    cpus = stage.deployment.allocation.cpus
    ratios = {size: ratio for (measured_cpus, size), ratio in measured.items() if measured_cpus == cpus}
    if not ratios:
        raise ServingError(
            f"the speed with {cpus:g} CPUs was not measured, which a replay needs",
            code="deployment.allocation_not_measured",
            location=f"deployment {stage.deployment.name}",
            hint="Run `circinus profile`.",
        )
    return ratios


class ReplayExecutor:
    """Executor that sleeps for the recorded service time and returns the recorded outputs, still pickled."""

    def __init__(self, spec: ReplicaSpec) -> None:
        self._relative_speed = spec.relative_speed
        self._batch_ratio = dict(spec.batch_ratio)
        self._stages: dict[int | str, ReplayStage] = {}
        self._batches = 0

    def add_recordings(self, stages: Mapping[int, ReplayStage] | Mapping[str, ReplayStage]) -> None:
        """Add recordings. A stage replaces an earlier one with the same id."""
        for name, stage in stages.items():
            self._stages[name] = stage

    def answer(self, batch: Batch, payloads: Sequence[Payload]) -> tuple[BatchResult, Sequence[Payload]]:
        """Sleep until the batch would have ended. Items without a recording fail and take no time."""
        runs = [self._run(item) for item in batch.items]
        recorded = [(item, run) for item, run in zip(batch.items, runs, strict=True) if run is not None]
        service_s = 0.0
        if recorded:
            ratios = self._batch_ratio or self._stage(recorded[0][0]).batch_ratio
            ratio = interpolated_batch_ratio(ratios, len(recorded))
            service_s = sum(run.service_s for _, run in recorded) / len(recorded) * ratio / self._relative_speed
            time.sleep(max(batch.start_s + service_s - time.monotonic(), 0.0))
        results = []
        outputs: list[Payload] = []
        for item, run in zip(batch.items, runs, strict=True):
            if run is None:
                name = f"item {item.item_key!r}" if item.item_key else "an item without a key"
                error = f"{name} has no recording (send only recorded items, or record this one)"
                results.append(ItemResult(error, 0.0, 0.0, 0.0, has_payload=False))
                continue
            if run.output is not None:
                outputs += [run.output] if run.emitted is None else run.outputs
            share_s = service_s / len(recorded)
            has_payload = run.output is not None
            results.append(ItemResult("", service_s, share_s, run.output_bytes, has_payload, run.emitted))
        self._batches += 1
        return BatchResult(batch.start_s + service_s, results, self._batches - 1), outputs

    def _stage(self, item: BatchItem) -> ReplayStage:
        assert item.recording is not None, "a replaying engine names a recording with every item"
        return self._stages[item.recording]

    def _run(self, item: BatchItem) -> ReplayRun | None:
        return self._stage(item).runs.get((item.item_key, item.path) if item.path else item.item_key)


def interpolated_batch_ratio(measured: Mapping[int, float], size: int) -> float:
    """Return the interpolated service time of a batch over that of a batch of one item.

    Interpolates linearly between measured sizes, and is constant outside of them: no batch takes less time than was
    ever measured.

    Args:
        measured: batch size -> ratio; not empty.
        size: number of items, >= 1.
    """
    sizes = sorted(measured)
    index = bisect_left(sizes, size)
    if index == len(sizes):
        return measured[sizes[-1]]
    if index == 0 or sizes[index] == size:
        return measured[sizes[index]]
    below, above = sizes[index - 1], sizes[index]
    share = (size - below) / (above - below)
    return (1 - share) * measured[below] + share * measured[above]
