"""Executor of the mode `real`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

from circinus.errors import OperatorError
from circinus.operators import Operator, resolve_operator
from circinus.operators.pickling import Payload, pickle_value, unpickle_value
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult, ReplicaSpec


class ComputeExecutor:
    """Executor that runs the operator, and sleeps for as long as the emulated hardware would compute longer.

    Service times are those of the profile: at least the CPU time over the replica's CPUs (threads are limited to whole
    CPUs, and some libraries ignore the limit), divided by the relative speed of the hardware.
    """

    def __init__(self, spec: ReplicaSpec) -> None:
        """Load the operator.

        Raises:
            OperatorError: the operator is missing, or has another version than expected.
            Exception: any exception that the operator raises while loading.
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
        """Process a batch. If it fails, process every item in a batch of one, so that only faulty items fail."""
        results, outputs = self._answer(batch.items, payloads)
        self._batches += 1
        return BatchResult(time.monotonic(), results, self._batches - 1), outputs

    def _answer(
        self, items: Sequence[BatchItem], payloads: Sequence[Payload]
    ) -> tuple[list[ItemResult], Sequence[Payload]]:
        inputs: list[Sequence[Payload]] = []
        for item in items:
            start = sum(map(len, inputs))
            inputs.append(payloads[start : start + item.inputs])
        try:
            outputs, service_s = self._process(inputs)
        except Exception as error:  # an error of the operator fails its items, not the replica
            if len(items) == 1:
                traceback.print_exc()
                failure = f"{type(error).__name__}: {error}"
                return [ItemResult(failure, 0.0, 0.0, 0.0, has_payload=False)], []
            single = [self._answer([item], item_inputs) for item, item_inputs in zip(items, inputs, strict=True)]
            return [results[0] for results, _ in single], [output for _, outputs in single for output in outputs]
        share_s = service_s / len(items)
        return [ItemResult("", service_s, share_s, len(output), has_payload=True) for output in outputs], outputs

    def _process(self, inputs: Sequence[Sequence[Payload]]) -> tuple[list[bytes], float]:
        columns = [[unpickle_value(value) for value in column] for column in zip(*inputs, strict=True)]
        start_cpu_s, start_s = time.process_time(), time.perf_counter()
        outputs = self._operator.process(*columns)
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        if len(outputs) != len(inputs):
            raise ValueError(f"the operator returned {len(outputs)} outputs for a batch of {len(inputs)}")
        service_s = max(elapsed_s, cpu_s / self._cpus) / self._relative_speed
        time.sleep(max(service_s - elapsed_s, 0.0))
        return [pickle_value(output) for output in outputs], service_s
