"""Unanswered request at the router where it entered."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from circinus.serving.engine import ResponseTimings
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.router.entry_route import EntryRoute
from circinus.serving.router.joins import SinkResult
from circinus.serving.router.request_messages import PickledResponse, RequestTrace, RouterMessage, by_operator


@dataclass(eq=False)
class EnteredRequest:
    """Request on one part of its query's route."""

    entry: EntryRoute
    """Parts in force when it took its part."""
    route: CompiledRoute
    answer: asyncio.Future[PickledResponse]
    start_s: float
    tried_parts: tuple[CompiledRoute, ...] = ()
    """Parts that could not answer it."""
    results: dict[str, SinkResult] = field(default_factory=dict)
    """Sink -> its outputs so far."""

    def add_result(self, message: RouterMessage, now_s: float) -> None:
        """Add an output of a sink, and complete the answer with the last one."""
        if self.answer.done():
            return  # its caller has gone
        self.results.setdefault(message.producer, SinkResult()).add(message)
        if len(self.results) < len(self.route.sinks) or not all(r.is_complete for r in self.results.values()):
            return
        trace = RequestTrace.joined(*(trace for result in self.results.values() for trace in result.traces))
        self.answer.set_result(
            PickledResponse(
                outputs={sink: self.results[sink].payload() for sink in self.route.sinks},
                timings=ResponseTimings(
                    now_s - self.start_s,
                    by_operator(trace.stage_s),
                    by_operator(trace.replica_s),
                    trace.link_bytes,
                    by_operator(trace.wait_s),
                    self.route.part,
                    Counter(operator for operator, _ in trace.stage_s),
                ),
            )
        )
