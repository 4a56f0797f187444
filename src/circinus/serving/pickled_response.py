"""Responses with pickled outputs, the form in which processes exchange them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.serving.engine import Response, ResponseTimings
from circinus.serving.replicas.replica_protocol import Payload


@dataclass(frozen=True)
class PickledResponse:
    """Response with pickled outputs of the sinks."""

    outputs: Mapping[str, Payload]
    """Sink -> pickled output, in the order of the route."""
    timings: ResponseTimings

    def unpickle(self) -> Response:
        """Return the response with its output unpickled: that of the only sink, or a dict of several.

        Raises:
            ServingError: the type of an output cannot be imported in this process.
        """
        try:
            outputs = {sink: unpickle_value(output) for sink, output in self.outputs.items()}
        except Exception as error:  # unpickling of user types may raise anything
            raise ServingError(
                f"the response cannot be unpickled: {type(error).__name__}: {error}",
                code="engine.unreadable_response",
                hint="Make the modules of its types importable in this process.",
            ) from error
        return Response(next(iter(outputs.values())) if len(outputs) == 1 else outputs, self.timings)
