"""Answering by computing: the mode `real`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

from circinus.errors import OperatorError
from circinus.operators import Operator, resolve_operator
from circinus.profiling.measurement.pickling import pickle_value, unpickle_value
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult, Payload, ReplicaSpec


class ComputeExecutor:
    """Runs the operator, and then waits as long as its share of CPUs on the emulated hardware would have computed on.

    Service times are what the profile says they are: at least the CPU time over the replica's CPUs (threads are limited
    to whole CPUs, and not every library keeps to it), over the relative speed of the hardware.
    """

    def __init__(self, spec: ReplicaSpec) -> None:
        """Load the operator.

        Raises:
            OperatorError: it is not found, or of another version than expected.
            Exception: whatever the operator raises while it loads.
        """
        operator_type = resolve_operator(spec.uses, spec.module_paths)
        if spec.operator_version not in ("", operator_type.version):
            raise OperatorError(
                "the source was edited since the plan was made",
                code="operator.edited",
                location=f"operator {spec.uses}",
                hint="Run `circinus plan`.",
            )
        self._operator: Operator = operator_type.create(spec.knobs, spec.cpus)
        self._cpus = spec.cpus
        self._relative_speed = spec.relative_speed
        self._batches = 0

    def answer(self, batch: Batch, payloads: Sequence[Payload]) -> tuple[BatchResult, Sequence[Payload]]:
        """Process a batch. Where it fails, each item is processed alone, so that only the faulty ones fail."""
        results, outputs = self._answer(batch.items, payloads)
        self._batches += 1
        return BatchResult(time.monotonic(), results, self._batches - 1), outputs

    def _answer(
        self, items: Sequence[BatchItem], payloads: Sequence[Payload]
    ) -> tuple[list[ItemResult], Sequence[Payload]]:
        inputs: list[Sequence[Payload]] = []
        for item in items:
            begin = sum(map(len, inputs))
            inputs.append(payloads[begin : begin + item.inputs])
        try:
            outputs, service_s = self._process(inputs)
        except Exception as error:  # whatever the user's operator raises is the answer, not the end of the replica
            if len(items) == 1:
                traceback.print_exc()
                failure = f"{type(error).__name__}: {error}"
                return [ItemResult(failure, 0.0, 0.0, 0.0, has_payload=False)], []
            alone = [self._answer([item], its_inputs) for item, its_inputs in zip(items, inputs, strict=True)]
            return [results[0] for results, _ in alone], [output for _, outputs in alone for output in outputs]
        share_s = service_s / len(items)
        return [ItemResult("", service_s, share_s, len(output), has_payload=True) for output in outputs], outputs

    def _process(self, inputs: Sequence[Sequence[Payload]]) -> tuple[list[bytes], float]:
        columns = [[unpickle_value(value) for value in column] for column in zip(*inputs, strict=True)]
        cpu_before_s, begin_s = time.process_time(), time.perf_counter()
        outputs = self._operator.process(*columns)
        elapsed_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - cpu_before_s
        if len(outputs) != len(inputs):
            raise ValueError(f"found {len(outputs)} outputs for a batch of {len(inputs)}, expected one for each item")
        service_s = max(elapsed_s, cpu_s / self._cpus) / self._relative_speed
        time.sleep(max(service_s - elapsed_s, 0.0))
        return [pickle_value(output) for output in outputs], service_s
