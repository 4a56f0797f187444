"""Inputs from files, outputs as bytes, and the item that is sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circinus.api import single_request
from circinus.api.plan_context import LoadedPlan
from circinus.api.single_request import RequestReport, parse_input, pipeline_of
from circinus.errors import PlanningError, ServingError
from circinus.operators import Item
from circinus.serving import Mode, Response
from circinus.serving.engine import ResponseTimings
from raised import raises_code


def opened(*served: str, rejected: str = "") -> Any:
    assignments = [SimpleNamespace(query=q, chosen=SimpleNamespace(plan=SimpleNamespace(pipeline="p"))) for q in served]
    matching = SimpleNamespace(assignments=assignments, rejections=[SimpleNamespace(query=rejected)])
    queries = [SimpleNamespace(name=name) for name in (*served, rejected)]
    specification: Any = SimpleNamespace(pipelines={"p": "the pipeline"}, module_paths=(), queries=queries)
    plan_set: Any = SimpleNamespace(matching=matching, seed=0)
    return LoadedPlan(plan_set, specification, Path(), unplanned=("new",))


def parsed(monkeypatch: pytest.MonkeyPatch, example: Any, data: bytes, mode: Mode = Mode.REAL) -> Any:
    dataset = SimpleNamespace(items=[SimpleNamespace(value=example)])
    monkeypatch.setattr(single_request, "load_dataset", lambda *_, **__: dataset)
    return parse_input(opened("q"), "q", data, mode)


@pytest.mark.parametrize(
    ("example", "data", "value"),
    [
        ("text", b"two lines\nof text\n", "two lines\nof text"),
        ("text", b"1\r\n", "1"),
        ("text", b"\n\n", "\n"),
        (b"bytes", b"\xff\n", b"\xff\n"),
        ([1], b"[2, 3]\n", [2, 3]),
        ({"a": 1}, b'{"b": null}', {"b": None}),
        (1.5, b"2", 2),
    ],
)
def test_a_file_holds_what_the_items_hold(
    monkeypatch: pytest.MonkeyPatch, example: Any, data: bytes, value: Any
) -> None:
    result = parsed(monkeypatch, example, data)
    assert (result, type(result)) == (value, type(value))


def test_what_a_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, example, data, mode in (
        ("request.malformed_input", "text", b"\xff", Mode.REAL),
        ("request.malformed_input", [1], b"[", Mode.REAL),
        ("request.malformed_input", [1], b"[" * 100_000, Mode.REAL),
        ("request.input_type", {1, 2}, b"1", Mode.REAL),
        ("request.not_recorded", "text", b"1", Mode.REPLAY),
    ):
        with raises_code(ServingError, code):
            parsed(monkeypatch, example, data, mode)


def test_only_served_queries_have_a_pipeline() -> None:
    plan = opened("served", rejected="rejected")
    assert pipeline_of(plan, "served") == "the pipeline"
    with raises_code(ServingError, "route.missing"):
        pipeline_of(plan, "rejected")
    with raises_code(PlanningError, "query.unknown") as caught:
        pipeline_of(plan, "nobody")
    assert "served, rejected" in caught.value.message
    with raises_code(PlanningError, "query.not_planned"):
        pipeline_of(plan, "new")


@pytest.mark.parametrize(
    ("output", "data", "value"),
    [
        ("é", "é".encode(), "é"),
        (b"\xff", b"\xff", None),
        ({"a": ["é"]}, '{"a": ["é"]}'.encode(), {"a": ["é"]}),
        (Item("k", 1, None), b'{"key": "k", "value": 1, "truth": null, "strata": {}}', vars(Item("k", 1, None))),
        (..., b"Ellipsis", None),
    ],
)
def test_outputs_are_bytes_and_json_where_it_holds_them(output: Any, data: bytes, value: Any) -> None:
    timings = ResponseTimings(0.5, {"a": 0.1, "b": 0.2, "c": 0.01}, {}, {}, {"b": 0.05, "c": 0.3})
    report = RequestReport("q", "", Response(output, timings), {"a": "edge"}, {"a": (), "b": ("a",), "c": ("a",)})
    assert report.output_bytes() == data
    assert str(report).splitlines()[0] == ("1 bytes" if isinstance(output, bytes) else data.decode())
    document = report.to_dict()
    assert document["output"] == value
    assert document["operators"]["a"] == {"service_s": 0.1, "wait_s": None, "runs": 1, "pool": "edge"}
    assert document["operators"]["b"] == {"service_s": 0.2, "wait_s": 0.05, "runs": 1, "pool": None}
    assert document["transfer_s"] == pytest.approx(0.5 - 0.1 - 0.31)


def test_the_time_on_links_is_unknown_where_runs_overlap() -> None:
    timings = ResponseTimings(0.3, {"a": 0.1, "b": 0.4}, {}, {}, {"b": 0.2}, runs={"a": 1, "b": 4})
    report = RequestReport("q", "", Response("x", timings), {}, {"a": (), "b": ("a",)})
    assert report.transfer_s is None
    assert report.to_dict()["transfer_s"] is None
    assert report.to_dict()["operators"]["b"]["runs"] == 4
    assert "b 400 ms in 4 runs, waiting 200 ms" in str(report)
