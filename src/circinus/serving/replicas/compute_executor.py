"""Executor of the mode `real`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from circinus.errors import OperatorError
from circinus.operators.host import OperatorHost
from circinus.operators.pickling import Payload
from circinus.operators.process_output import print_exception
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, BatchResult, ItemResult, ReplicaSpec


class ComputeExecutor:
    """Executor that runs the operator, and sleeps for as long as the emulated hardware would compute longer.

    Service times are those of the profile, divided by the relative speed of the hardware.
    """

    def __init__(self, spec: ReplicaSpec) -> None:
        """Load the operator.

        Raises:
            OperatorError: see `OperatorHost`.
        """
        self._host = OperatorHost(
            spec.uses, spec.operator_version, spec.knobs, spec.cpus, spec.module_paths, spec.emission
        )
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
            run = self._host.run(inputs)
        except OperatorError as error:
            if len(items) == 1:
                print_exception()
                return [ItemResult(str(error), 0.0, 0.0, 0.0, has_payload=False)], []
            single = [self._answer([item], item_inputs) for item, item_inputs in zip(items, inputs, strict=True)]
            return [results[0] for results, _ in single], [output for _, outputs in single for output in outputs]
        service_s = run.service_s / self._relative_speed
        time.sleep(max(service_s - run.times.elapsed_s, 0.0))
        share_s = service_s / len(items)
        results = [
            ItemResult(
                "",
                service_s,
                share_s,
                sum(len(output) for _, output in outputs),
                has_payload=True,
                emitted=None if run.branches is None else tuple((branch, len(output)) for branch, output in outputs),
            )
            for outputs in run.of_inputs
        ]
        return results, run.outputs
