"""Answers as they travel: packed until somebody looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.serving.engine import Response
from circinus.serving.replicas.replica_protocol import Payload


@dataclass(frozen=True)
class PickledResponse:
    """`Response` with the sinks' outputs still packed."""

    outputs: Mapping[str, Payload]
    """By sink, in the route's order."""
    latency_s: float
    stage_s: Mapping[str, float]
    busy_s: Mapping[str, float]
    link_bytes: Mapping[str, float]


def unpickle_response(response: PickledResponse) -> Response:
    """With the outputs unpickled: the sink's, or a dict of them where there are several.

    Raises:
        ServingError: an output's type cannot be imported here.
    """
    try:
        outputs = {sink: unpickle_value(output) for sink, output in response.outputs.items()}
    except Exception as error:  # whatever the user's types raise while they are unpickled
        raise ServingError(
            f"the response cannot be unpickled: {type(error).__name__}: {error}",
            code="engine.unreadable_response",
            hint="Make the modules of its types importable in this process.",
        ) from error
    output = next(iter(outputs.values())) if len(outputs) == 1 else outputs
    return Response(output, response.latency_s, response.stage_s, response.busy_s, response.link_bytes)
