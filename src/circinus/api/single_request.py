"""Single request to a deployed plan, from a file or an item of the data set, and its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from circinus.api.traffic_items import select_traffic_items
from circinus.errors import ServingError
from circinus.profiling.dataset.items import load_dataset
from circinus.serving import Mode
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification.formatting import format_duration
from circinus.specification.json_dump import parse_json

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.operators import Item
    from circinus.serving import EngineStatus, Response, Route
    from circinus.specification import Pipeline


@dataclass(frozen=True)
class RequestReport:
    """Answer to one request."""

    query: str
    item: str
    """Key of the item that was sent; empty for another input."""
    response: Response
    pools: Mapping[str, str]
    """Operator -> pool that ran it; empty if a controller may have moved the query."""

    inputs: Mapping[str, Sequence[str]]
    """Operator -> operators whose outputs it takes, in topological order."""
    share: float | None = None
    """Share of the query's requests that take the part of its plan that answered; None if the plan is not split, or if
    a controller may have moved the query."""

    def __str__(self) -> str:
        """Return the output, or the number of its bytes, and the times."""
        output = self.response.output
        is_bytes = isinstance(output, bytes | bytearray)
        return f"{f'{len(output)} bytes' if is_bytes else self.output_bytes().decode()}\n{self.times}"

    @property
    def times(self) -> str:
        """The latency, and a line for each of its parts: operators with their pools, and transfers."""
        timings = self.response.timings
        part = "" if self.share is None else f", on the plan of {self.share:.1%} of the requests"
        lines = [f"{f'item {self.item}: ' if self.item else ''}{format_duration(timings.latency_s)}{part}"]
        for operator, seconds in timings.stage_s.items():
            waited = f", waiting {format_duration(timings.wait_s.get(operator, 0.0))}"
            pool = f" ({self.pools[operator]})" if operator in self.pools else ""
            runs = timings.runs.get(operator, 1)
            several = f" in {runs} runs" if runs > 1 else ""
            lines.append(f"{operator} {format_duration(seconds)}{several}{waited}{pool}")
        if self.transfer_s is None:
            lines.append("runs for several elements overlap, so that their times add up to more than the latency")
        else:
            lines.append(f"links and routers {format_duration(self.transfer_s)}")
        return "\n  ".join(lines)

    @property
    def transfer_s(self) -> float | None:
        """Seconds on links and in routers, see `ResponseTimings.outside_s`; None if an operator ran several times."""
        if max(self.response.timings.runs.values(), default=1) > 1:
            return None
        return self.response.timings.outside_s(self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; `output` is None where JSON cannot hold it."""
        output, timings = self.response.output, self.response.timings
        text = None if isinstance(output, bytes | bytearray) else _json(output)
        return {
            "query": self.query,
            "item": self.item or None,
            "latency_s": timings.latency_s,
            **({} if self.share is None else {"part": timings.part, "share": self.share}),
            "operators": {
                operator: {
                    "service_s": seconds,
                    "wait_s": timings.wait_s.get(operator),
                    "runs": timings.runs.get(operator, 1),
                    "pool": self.pools.get(operator),
                }
                for operator, seconds in timings.stage_s.items()
            },
            "transfer_s": self.transfer_s,
            "output": None if text is None else json.loads(text),
            "output_type": type(output).__name__,
        }

    def output_bytes(self) -> bytes:
        """Return the output: bytes as they are, text in UTF-8, else JSON or, if it has none, as Python prints it."""
        output = self.response.output
        if isinstance(output, bytes | bytearray):
            return bytes(output)
        text = output if isinstance(output, str) else _json(output)
        return (repr(output) if text is None else text).encode("utf-8", errors="replace")


def _json(value: Any) -> str | None:
    """Return JSON of plain values and dataclasses, or None for other values."""
    try:
        return json.dumps(to_jsonable_python(value, bytes_mode="base64"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None


def pipeline_of(opened: LoadedPlan, query: str) -> Pipeline:
    """Return the pipeline of a query that a plan serves.

    Raises:
        PlanningError: the plan has no such query.
        ServingError: the plan rejects it.
    """
    matching = opened.plan_set.matching
    for assignment in matching.assignments:
        if assignment.query == query:
            return opened.specification.pipelines[assignment.chosen.plan.pipeline]
    if any(rejection.query == query for rejection in matching.rejections):
        raise ServingError(
            "the plan does not serve the query",
            code="route.missing",
            location=f"query {query}",
            hint="Run `circinus explain` to see why.",
        )
    raise opened.missing_query(query)


def find_item(opened: LoadedPlan, query: str, key: str, mode: Mode) -> Item:
    """Return an item of a query's data set by its key, or the first held-out one.

    Raises:
        ServingError: there is no such item, or a replay has not recorded any.
    """
    pipeline, seed = pipeline_of(opened, query), opened.plan_set.seed
    if not key:
        items = select_traffic_items(opened.specification, opened.plan_set.matching, opened.store, 1, mode, seed)
        if items[pipeline.name]:
            return items[pipeline.name][0]
        raise ServingError(
            "the replay has no recorded item", code="request.no_item", hint="Run `circinus apply` again."
        )
    dataset = load_dataset(pipeline, opened.specification.module_paths, seed=seed)
    for item in dataset.items:
        if item.key == key:
            return item
    raise ServingError(
        f"the data set has no item {key!r}",
        code="request.no_item",
        location=f"query {query}",
        hint=f"Name an item such as {dataset.items[dataset.order[-1]].key!r}.",
    )


def parse_input(opened: LoadedPlan, query: str, data: bytes, mode: Mode) -> Any:
    """Return a pipeline's input from the content of a file: text, bytes or JSON, as the items of its data set are.

    The line break at the end of a text is left out.

    Raises:
        ServingError: the engine replays, the items are of another type, or the content is malformed.
    """
    pipeline, location = pipeline_of(opened, query), f"query {query}"
    if mode is Mode.REPLAY:
        raise ServingError(
            "a replay answers only recorded items of the data set",
            code="request.not_recorded",
            location=location,
            hint="Name an item with --item, or deploy with `circinus apply --mode real`.",
        )
    example = load_dataset(pipeline, opened.specification.module_paths, seed=opened.plan_set.seed).items[0].value
    if isinstance(example, bytes | bytearray):
        return data
    if not isinstance(example, str | int | float | list | dict | None):
        raise ServingError(
            f"the inputs of the pipeline are of type {type(example).__name__}, which no file holds",
            code="request.input_type",
            location=location,
            hint="Name an item with --item, or send a value from Python.",
        )
    try:
        return re.sub(r"\r?\n\Z", "", data.decode()) if isinstance(example, str) else parse_json(data)
    except ValueError as error:
        raise ServingError(
            f"the input is not {'text in UTF-8' if isinstance(example, str) else 'JSON'}: {error}",
            code="request.malformed_input",
            location=location,
        ) from error


def route_of(opened: LoadedPlan, query: str, status: EngineStatus) -> Route | None:
    """Return the route of a served query, or None if the engine runs another state than that of the plan."""
    desired = opened.desired_state(status.mode)
    if status.state != state_fingerprint(desired):
        return None
    return next(route for route in desired.routes if route.query == query)


def report_request(
    query: str, item: str, response: Response, route: Route | None, inputs: Mapping[str, Sequence[str]]
) -> RequestReport:
    """Return the report of an answered request.

    Args:
        query: name of the query.
        item: key of the item that was sent; empty for another input.
        response: the response.
        route: route of the query; None if a controller may have changed it.
        inputs: operator -> operators whose outputs it takes, in topological order.
    """
    if route is None or response.timings.part >= len(route.parts):  # a controller has just changed it
        return RequestReport(query, item, response, {}, inputs)
    part = route.parts[response.timings.part]
    pools = {stage.operator: stage.deployment.pool for stage in part.stages}
    return RequestReport(query, item, response, pools, inputs, part.share if route.others else None)
