"""Load tests in virtual time, and one with a real engine."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic_core import to_jsonable_python
from served_scenario import (
    ITEMS,
    MODULE,
    ObedientEngine,
    infrastructure,
    matching,
    part_in_turns,
    query,
    specification,
    split_matching,
)

from circinus.errors import ServingError
from circinus.operators import Item
from circinus.queueing.arrivals import arrival_process
from circinus.serving import Mode, Response, ResponseTimings
from circinus.serving.desired_state import build_desired_state
from circinus.serving.engine import DROPPED_LATE, EngineStatus
from circinus.serving.loadtest.load_report import LoadReport, QueryMeasurement
from circinus.serving.loadtest.load_test import LoadProgress, LoadSpec, run_load_test
from circinus.serving.loadtest.open_loop import RequestOutcome
from circinus.serving.loadtest.request_sample import _smallest
from circinus.serving.loadtest.scoring import ERRORS_KEPT, measure_queries
from circinus.serving.loadtest.service_time_learning import PredictionsAtRun
from circinus.serving.local.engine import LocalEngine
from circinus.specification import (
    AccuracySlo,
    BurstyArrivals,
    CostSlo,
    LatencySlo,
    MetricSpec,
    PeriodicArrivals,
    PoissonArrivals,
    SloKind,
    Slos,
)
from golden import check_message
from raised import raises_code
from virtual_time import run

ALL = Slos(latency=LatencySlo(limit=0.1), accuracy=AccuracySlo(threshold=0.9), cost=CostSlo(limit=0.7))


def load(engine: ObedientEngine, *queries: Any, traffic: LoadSpec, **arguments: Any) -> LoadReport:
    served = [q.name for q in queries if q.name in engine.queries]
    rejected = [q.name for q in queries if q.name not in engine.queries]
    return run(
        run_load_test(engine, specification(*queries), matching(served, rejected), {"p": ITEMS}, traffic, **arguments)
    )


def test_every_request_is_measured_and_every_objective_judged() -> None:
    engine = ObedientEngine(("q",))
    report = load(engine, query("q", slos=ALL), traffic=LoadSpec(duration_s=100.0))
    (measured,) = report.queries
    assert measured.requests == len(engine.received)
    assert measured.requests == pytest.approx(1000, abs=160)
    assert measured.rate_per_s == measured.requests / 100.0
    assert measured.latency_s is not None
    assert measured.latency_s.p50_s == pytest.approx(0.05)
    assert measured.latency_s.p99_s == pytest.approx(0.05)
    assert (measured.failures, measured.unanswered) == (0, 0)
    assert (measured.score, measured.score_standard_error) == (1.0, 0.0)
    assert measured.stage_s == pytest.approx({"add": 0.05})
    assert measured.cost_usd_per_h == pytest.approx(0.6)
    assert measured.slos_met == {"latency": True, "accuracy": True, "cost": True}
    assert measured.satisfied
    assert measured.items == len(ITEMS)
    assert measured.verdicts == {"latency": "yes", "accuracy": "unsure", "cost": "yes"}, "ten items bound no such score"
    assert (measured.verdict, report.verdicts) == ("unsure", {"yes": 0, "no": 0, "unsure": 1})
    assert (measured.decisive_items, measured.available_items) == (37, len(ITEMS))
    assert measured.decisive_data_set_items == 185, "a fifth is held out"
    assert measured.predicted is not None
    assert measured.predicted.latency_s.value == 0.1
    assert (report.goodput, report.total_weight, report.promises_kept, report.promises) == (1.0, 1.0, 0, 1)
    assert not report.lateness.late


def test_the_duration_that_decides_an_slo_does() -> None:
    """Requests repeat items, so that the number of distinct items grows more slowly than that of requests."""
    items = [Item(f"number-{value}", float(value), float(value + 1)) for value in range(80)]
    given = specification(query("q", rate_per_s=6.0, slos=Slos(accuracy=AccuracySlo(threshold=0.93))))

    def measured(duration_s: float) -> QueryMeasurement:
        traffic = LoadSpec(duration_s=duration_s, warm_up_s=1.0)
        return run(run_load_test(ObedientEngine(("q",)), given, matching(["q"]), {"p": items}, traffic)).queries[0]

    first = measured(7.0)
    assert first.verdict == "unsure"
    assert first.decisive_duration_s is not None
    assert first.decisive_duration_s > 7.0
    longer = measured(first.decisive_duration_s)
    assert (longer.verdict, longer.items) == ("yes", first.decisive_items)
    assert measured(first.decisive_duration_s - 5.0).verdict == "unsure"
    assert measured(0.15).decisive_duration_s is None, "too short to be prolonged"


@pytest.mark.parametrize(("least", "expected"), [(14, 14), (20, 20), (21, None), (13, 13)])
def test_the_smallest_longer_test_is_sought_up_to_the_limit(least: int, expected: int | None) -> None:
    assert _smallest(lambda number: number >= least, above=12, limit=20) == expected


def test_warm_up_is_sent_and_not_measured() -> None:
    engine = ObedientEngine(("q",), service_s=lambda request, before: 5.0 if before < 50 else 0.05)
    report = load(engine, query("q"), traffic=LoadSpec(duration_s=60.0, warm_up_s=20.0))
    (measured,) = report.queries
    late = [time_s for time_s, _ in engine.received if time_s >= 20.0]
    assert len(engine.received) - len(late) > 50
    assert measured.requests == len(late)
    assert measured.latency_s is not None
    assert measured.latency_s.p99_s == pytest.approx(0.05)


def test_items_take_turns() -> None:
    engine = ObedientEngine(("q",))
    load(engine, query("q"), traffic=LoadSpec(duration_s=10.0))
    keys = [request.item_key for _, request in engine.received]
    assert len(keys) > 30
    for begin in range(0, 30, 10):
        assert len(set(keys[begin : begin + 10])) == 10
    assert keys[:10] != keys[10:20]
    sizes = {request.input_bytes for _, request in engine.received}
    assert all(size > 8 for size in sizes)


def test_dropped_requests_are_late_and_no_failures() -> None:
    engine = ObedientEngine(("q",), fails=lambda request: request.item_key == "number-3", error_code=DROPPED_LATE)
    (measured,) = load(engine, query("q", slos=ALL), traffic=LoadSpec(duration_s=50.0)).queries
    assert measured.dropped == sum(request.item_key == "number-3" for _, request in engine.received) > 0
    assert (measured.failures, measured.unanswered, measured.errors) == (0, 0, ())
    assert measured.slos_met == {"latency": False, "accuracy": True, "cost": True}


def test_failures_and_missing_answers_violate_the_latency() -> None:
    engine = ObedientEngine(
        ("q",),
        service_s=lambda request, before: None if before % 10 == 0 else 0.05,
        fails=lambda request: request.item_key == "number-3",
    )
    report = load(engine, query("q", slos=ALL), traffic=LoadSpec(duration_s=50.0, drain_timeout_s=5.0))
    (measured,) = report.queries
    assert measured.failures + measured.unanswered == pytest.approx(measured.requests * 0.19, rel=0.1)
    assert measured.unanswered == (len(engine.received) + 9) // 10
    assert measured.latency_s is not None
    assert measured.latency_s.p50_s == pytest.approx(0.05)
    assert measured.latency_s.at_percentile_s is None
    assert measured.slos_met == {"latency": False, "accuracy": True, "cost": True}
    assert not measured.satisfied
    assert (measured.verdict, measured.verdicts["latency"]) == ("no", "no")
    assert measured.errors == ("item number-3 is bad",)


def test_a_stall_cannot_hide_behind_late_requests() -> None:
    """A generator that waits for answers would see a single slow request; an open loop sees all that were scheduled."""

    class Stalling(ObedientEngine):
        async def submit(self, request: Any) -> Any:
            now_s = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, 60.0 - now_s) if now_s >= 50.0 else 0.0)
            return await super().submit(request)

    report = load(Stalling(("q",)), query("q"), traffic=LoadSpec(duration_s=100.0))
    assert report.queries[0].latency_s is not None
    p95_s = report.queries[0].latency_s.p95_s
    assert p95_s is not None
    assert p95_s == pytest.approx(5.0, abs=0.7)  # a tenth of the requests was due in the 10 s of the stall


def test_late_generator_is_reported_and_its_lateness_counts() -> None:
    """Other work in the event loop may delay the generator."""

    class Blocking(ObedientEngine):
        async def submit(self, request: Any) -> Any:
            loop: Any = asyncio.get_running_loop()
            loop._jumping.now_s += 0.2  # as if a computation had taken that long
            return await super().submit(request)

    slos = Slos(latency=LatencySlo(limit=0.4))
    report = load(Blocking(("q",)), query("q", rate_per_s=4.0, slos=slos), traffic=LoadSpec(duration_s=100.0))
    assert report.lateness.late
    assert report.queries[0].slos_met == {"latency": False}
    assert report.queries[0].verdicts == {"latency": "unsure"}, "the lag alone may have missed it"
    assert report.lateness.max_s >= report.lateness.p99_s > 0.2
    bounds = (report.queries[0].bounds or {})[SloKind.LATENCY]
    assert bounds.lower is not None
    assert bounds.lower >= 0.05 - 1e-9, "no latency is below the service time"
    assert report.queries[0].latency_s is not None
    assert report.queries[0].latency_s.p50_s is not None
    assert report.queries[0].latency_s.p50_s > 0.25


def test_a_miss_by_the_own_time_of_the_engine_is_unsure_on_a_busy_machine() -> None:
    """Routers of a busy machine add 0.2 s to a service of 0.05 s."""
    timings = ResponseTimings(0.25, {"add": 0.05}, {"add": 0.05}, {})
    sent = [
        RequestOutcome("q", ITEMS[turn % 10].key, turn / 10, 0.26, Response(ITEMS[turn % 10].truth, timings))
        for turn in range(100)
    ]
    given = specification(query("q", slos=Slos(latency=LatencySlo(limit=0.1))))
    for busy, verdict in ((False, "no"), (True, "unsure")):
        (measured,) = measure_queries(given, matching(["q"]), sent, {"p": ITEMS}, 10.0, busy=busy)
        assert (measured.verdict, measured.percentile_engine_s) == (verdict, pytest.approx(0.21))
        assert measured.percentile_stage_s == {"add": 0.05}


def test_costs_are_shared_by_busy_seconds_and_transfers_come_on_top() -> None:
    engine = ObedientEngine(
        ("a", "b"),
        service_s=lambda request, before: 0.3 if request.query == "a" else 0.1,
        link_bytes={"home->center": 500_000.0, "center->home": 500_000.0},
    )
    report = load(engine, query("a", rate_per_s=10.0), query("b", rate_per_s=10.0), traffic=LoadSpec(duration_s=20.0))
    a, b = report.queries
    assert a.cost_usd_per_h is not None
    assert b.cost_usd_per_h is not None
    transfers = {m.query: m.requests * 1e6 * 2.0 / 1e9 * 3600 / 20 for m in report.queries}
    shares = {"a": a.requests * 0.3, "b": b.requests * 0.1}
    assert a.cost_usd_per_h - transfers["a"] == pytest.approx(0.6 * shares["a"] / sum(shares.values()))
    assert a.cost_usd_per_h + b.cost_usd_per_h == pytest.approx(0.6 + sum(transfers.values()))
    assert report.deployments_cost_usd_per_h == pytest.approx(0.6)


@pytest.mark.parametrize(("accuracy_of", "score"), [("mean", 0.8), ("each", 0.0)])
def test_the_parts_of_a_split_plan_are_measured_and_paid_apart(accuracy_of: str, score: float) -> None:
    split = query("a", rate_per_s=10.0).model_copy(update={"accuracy_of": accuracy_of})
    engine = ObedientEngine(("a", "b"), service_s=lambda request, _: 0.1 * (1 + engine.part(request)))
    engine.part = lambda request: part_in_turns(request) if request.query == "a" else 0
    engine.answer = lambda request: request.value + 1.0 - engine.part(request)
    both = split_matching(["a"])
    chosen = replace(both, assignments=(*both.assignments, *matching(["b"]).assignments))
    given, traffic = specification(split, query("b", rate_per_s=10.0)), LoadSpec(duration_s=40.0)
    report = run(run_load_test(engine, given, chosen, {"p": ITEMS}, traffic))
    a, b = report.queries
    small, large = a.parts
    assert (small.planned_share, large.planned_share) == (0.75, 0.25)
    assert (small.score, large.score) == (1.0, 0.0)
    assert (small.at_percentile_s, large.at_percentile_s) == pytest.approx((0.1, 0.2))
    assert (small.share, large.share) == pytest.approx((0.8, 0.2), abs=0.01)  # of ten items
    assert a.score == pytest.approx(score, abs=0.01)
    assert b.parts == ()
    assert a.cost_usd_per_h == pytest.approx(1.2 + 0.6 * small.answered / (small.answered + b.requests))


def test_rejected_queries_count_as_not_served() -> None:
    engine = ObedientEngine(("served",))
    report = load(engine, query("served", weight=2.0), query("rejected", weight=3.0), traffic=LoadSpec(duration_s=20.0))
    assert [q.served for q in report.queries] == [True, False]
    assert {request.query for _, request in engine.received} == {"served"}
    assert (report.goodput, report.total_weight, report.promises_kept, report.promises) == (2.0, 5.0, 1, 1)
    assert [q.verdict for q in report.queries] == ["yes", None]


@pytest.mark.parametrize(("load_factor", "ratios"), [(3.0, []), (4.0, [pytest.approx(1.2)])])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_deployments_asked_for_more_than_they_can_do_are_named(
    load_factor: float, ratios: list[float], batch_size: int
) -> None:
    """The plan's deployment is utilized to 30 % with full batches."""
    planned = matching(["q"])
    (sized,) = planned.deployments
    batched = replace(sized.deployment, allocation=replace(sized.deployment.allocation, batch_size=batch_size))
    planned = replace(planned, deployments=(replace(sized, deployment=batched),))
    traffic = LoadSpec(duration_s=1.0, load_factor=load_factor)
    report = run(run_load_test(ObedientEngine(("q",)), specification(query("q")), planned, {"p": ITEMS}, traffic))
    assert list(report.overloaded.values()) == ratios


def test_load_factor_and_seed() -> None:
    one, two, other = ObedientEngine(("q",)), ObedientEngine(("q",)), ObedientEngine(("q",))
    load(one, query("q"), traffic=LoadSpec(duration_s=30.0, load_factor=3.0))
    load(two, query("q"), traffic=LoadSpec(duration_s=30.0, load_factor=3.0))
    load(other, query("q"), traffic=LoadSpec(duration_s=30.0, load_factor=3.0, seed=1))
    assert len(one.received) == pytest.approx(900, abs=150)
    assert [time_s for time_s, _ in one.received] == [time_s for time_s, _ in two.received]
    assert [time_s for time_s, _ in one.received] != [time_s for time_s, _ in other.received]


def test_queries_are_sent_what_they_ask_for_and_its_burstiness_is_reported() -> None:
    """The index is that of the process within the error of some 150 windows: a third for the bursty process."""
    queries = [
        query(name, rate_per_s=5.0).model_copy(update={"arrivals": arrivals})
        for name, arrivals in {
            "camera": PeriodicArrivals(jitter="10ms"),
            "bursts": BurstyArrivals(peak=4, burst="1s", every="6s"),
            "people": PoissonArrivals(),
        }.items()
    ]
    engine = ObedientEngine(("camera", "bursts", "people"))
    report = load(
        engine, *queries, query("rejected"), traffic=LoadSpec(duration_s=200.0, warm_up_s=10.0, load_factor=2.0)
    )
    assert report.arrivals == "periodic and bursty and poisson"
    index = {measured.query: measured.index_of_dispersion for measured in report.queries}
    assert index["rejected"] is None
    for sent_query in queries:
        measured_index = index[sent_query.name]
        assert measured_index is not None
        assert set(measured_index) == {"1s", "10s"}
        expected = arrival_process(sent_query).scaled(2.0).index_of_dispersion(np.array([1.0]))[0]
        assert measured_index["1s"] == pytest.approx(expected, rel=0.35, abs=0.02)
    sent = [request.query for _, request in engine.received]
    assert sent.count("camera") == pytest.approx(10.0 * 210.0, abs=1)


def test_windows_too_long_for_the_time_measured_are_not_reported() -> None:
    report = load(ObedientEngine(("q",)), query("q"), traffic=LoadSpec(duration_s=30.0, warm_up_s=100.0))
    assert set(report.queries[0].index_of_dispersion or {}) == {"1s"}
    assert report.arrivals == "poisson"


def test_trace_is_played(tmp_path: Path) -> None:
    trace = tmp_path / "bursts.csv"
    trace.write_text("time_s,query\n" + "".join(f"{t},{q}\n" for t, q in [(1, "q"), (1, "q"), (3, "gone"), (8, "q")]))
    engine = ObedientEngine(("q",))
    report = load(
        engine,
        query("q"),
        query("gone"),
        traffic=LoadSpec(duration_s=3.0, load_factor=2.0, warm_up_s=0.25, arrivals=trace),
    )
    assert [time_s for time_s, _ in engine.received] == pytest.approx([0.5, 0.5])
    assert report.arrivals == "bursts.csv"
    assert report.queries[0].requests == 2


def test_replay_sends_no_values() -> None:
    engine = ObedientEngine(("q",), mode=Mode.REPLAY, answer=lambda request: 0.0)
    report = load(engine, query("q"), traffic=LoadSpec(duration_s=10.0))
    assert all(request.value is None for _, request in engine.received)
    assert report.mode == "replay"
    assert report.queries[0].score == 0.0


def test_progress_is_told() -> None:
    states: list[LoadProgress] = []
    load(ObedientEngine(("q",)), query("q"), traffic=LoadSpec(duration_s=10.0), on_progress=states.append)
    assert len(states) > 20
    assert [state.sent for state in states] == sorted(state.sent for state in states)
    assert states[-1].sent == states[-1].answered == states[-1].due


def test_an_engine_that_ends_ends_the_test() -> None:
    """The report is that of the time before; requests that the engine did not finish count neither way."""
    engine = ObedientEngine(("q",), fails=lambda request: len(engine.received) > 60, error_code="engine.killed")
    report = load(engine, query("q"), traffic=LoadSpec(duration_s=100.0, warm_up_s=1.0))
    first_s, last_s = (engine.received[index][0] for index in (0, -1))
    assert report.engine_end_s is not None
    assert first_s < report.engine_end_s <= last_s + 0.1
    assert report.warm_up_s + report.duration_s == report.engine_end_s
    (measured,) = report.queries
    assert (measured.failures, measured.unanswered) == (0, 0)
    assert 0 < measured.requests <= 60 < len(engine.received) < 80
    engine.received.clear()
    with raises_code(ServingError, "load.engine_ended"):
        load(engine, query("q"), traffic=LoadSpec(duration_s=100.0, warm_up_s=50.0))


def test_waiting_for_answers_is_no_measured_time() -> None:
    """The first request is open until the engine ends, two seconds after the last request."""
    engine = ObedientEngine(
        ("q",),
        service_s=lambda request, earlier: 0.05 if earlier else 12.0,
        fails=lambda request: request is engine.received[0][1],
        error_code="engine.killed",
    )
    report = load(engine, query("q"), traffic=LoadSpec(duration_s=10.0))
    assert report.engine_end_s is not None
    assert report.engine_end_s > 12.0
    assert report.duration_s == 10.0


def test_an_engine_that_ends_after_its_last_answer_loses_no_report() -> None:
    class Ended(ObedientEngine):
        async def status(self) -> EngineStatus:
            if self.received:
                raise ServingError("no engine is running", code="engine.not_running")
            return await super().status()

    expected = PredictionsAtRun({}, datetime.now(UTC))
    report = load(Ended(("q",)), query("q"), traffic=LoadSpec(duration_s=10.0), expected=expected)
    assert (report.queries[0].failures, report.learning, report.engine_end_s) == (0, None, None)


def test_report_is_json() -> None:
    engine = ObedientEngine(("q",), service_s=lambda request, before: None)
    report = load(
        engine, query("q", slos=ALL), query("rejected"), traffic=LoadSpec(duration_s=1.0, drain_timeout_s=1.0)
    )
    document = json.loads(json.dumps(to_jsonable_python(report), allow_nan=False))
    assert document["schema_version"] == 3
    assert document["queries"][0]["latency_s"]["p50_s"] is None
    assert document["queries"][0]["slos_met"] == {"latency": False, "accuracy": False, "cost": True}
    assert document["queries"][0]["verdicts"] == {"latency": "no", "accuracy": "unsure", "cost": "yes"}
    assert document["queries"][0]["bounds"]["latency"] == {"lower": None, "upper": None}


def test_query_without_a_request_is_not_satisfied() -> None:
    report = load(ObedientEngine(("q",)), query("q", rate_per_s=1e-9), traffic=LoadSpec(duration_s=1.0))
    assert report.queries[0].requests == 0
    assert report.queries[0].verdict == "unsure"
    assert report.goodput == 0


def test_missing_routes_and_items_are_told_before_anything_is_sent() -> None:
    engine = ObedientEngine(("other",))
    with raises_code(ServingError, "load.no_route") as caught:
        run(run_load_test(engine, specification(query("q")), matching(["q"]), {"p": ITEMS}, LoadSpec(duration_s=1.0)))
    check_message("serving/load_no_route", str(caught.value))
    engine = ObedientEngine(("q",))
    with raises_code(ServingError, "load.no_items"):
        run(run_load_test(engine, specification(query("q")), matching(["q"]), {"p": []}, LoadSpec(duration_s=10.0)))
    assert not engine.received


def load_scored_by(
    metric: MetricSpec, engine: ObedientEngine, slos: Slos | None = None, module_paths: tuple[Path, ...] = ()
) -> QueryMeasurement:
    given = replace(specification(query("q", slos=slos)), module_paths=module_paths)
    scored = given.pipelines["p"].model_copy(update={"metric": metric})
    traffic = LoadSpec(duration_s=30.0)
    report = run(run_load_test(engine, replace(given, pipelines={"p": scored}), matching(["q"]), {"p": ITEMS}, traffic))
    return report.queries[0]


@pytest.mark.parametrize(
    ("direction", "score", "met"), [("maximize", 0.9, True), ("minimize", 0.1, True), ("maximize", 0.9, False)]
)
def test_answers_that_cannot_be_scored_count_with_the_worst_score(
    tmp_path: Path, direction: Literal["maximize", "minimize"], score: float, met: bool
) -> None:
    """Other results of the load test are kept."""
    best = 1.0 if direction == "maximize" else 0.0
    source = f"def equal(output, truth):\n    return {best} if truth != 4.0 else 1 / 0\n"
    (tmp_path / "partial_metric.py").write_text(source, encoding="utf-8")
    spec = MetricSpec(name="equal", uses="partial_metric:equal", direction=direction)
    threshold = score - 0.05 if (direction == "maximize") == met else score + 0.05
    slos = Slos(accuracy=AccuracySlo(threshold=threshold, comparison=">=" if direction == "maximize" else "<="))
    measured = load_scored_by(spec, ObedientEngine(("q",)), slos, (tmp_path,))
    assert measured.score == pytest.approx(score, abs=0.01)
    assert measured.unscored == pytest.approx(measured.requests / 10, abs=1)
    assert (measured.failures, measured.unanswered) == (0, 0)
    assert measured.slos_met == {"accuracy": met}
    assert len(measured.errors) == 1
    assert re.search("item number-3: metric equal .*failed with ZeroDivisionError", measured.errors[0])
    assert measured.latency_s is not None
    assert measured.latency_s.p50_s == pytest.approx(0.05)


def test_scores_outside_the_range_are_reported_and_rounding_is_not() -> None:
    narrow = MetricSpec(name="equal", uses=f"{MODULE}:exact_match", range=(0.0, 0.5))
    measured = load_scored_by(narrow, ObedientEngine(("q",)))
    assert measured.unscored == measured.requests
    assert measured.score == 0.0
    assert all(re.search(r"item number-\d: metric .* from 0 to 0\.5, got 1\.0", e) for e in measured.errors)
    rounded = MetricSpec(name="equal", uses=f"{MODULE}:exact_match", range=(0.0, 1.0 - 2**-53))
    measured = load_scored_by(rounded, ObedientEngine(("q",)))
    assert (measured.unscored, measured.errors) == (0, ())
    assert measured.score == pytest.approx(1.0)


def test_a_faulty_metric_is_named_however_many_requests_failed() -> None:
    narrow = MetricSpec(name="equal", uses=f"{MODULE}:exact_match", range=(0.0, 0.5))
    engine = ObedientEngine(("q",), fails=lambda request: request.item_key != "number-3")
    measured = load_scored_by(narrow, engine)
    assert len(measured.errors) == ERRORS_KEPT
    assert sum("metric equal" in error for error in measured.errors) == 1


def test_fault_of_the_engine_is_not_taken_for_a_lost_request() -> None:
    class Broken(ObedientEngine):
        async def submit(self, request: Any) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load(Broken(("q",)), query("q"), traffic=LoadSpec(duration_s=10.0))


def test_senseless_traffic_is_refused() -> None:
    with raises_code(ServingError, "load.invalid_settings"):
        LoadSpec(duration_s=0.0)
    with raises_code(ServingError, "load.invalid_settings"):
        LoadSpec(duration_s=1.0, load_factor=-1.0)


@pytest.mark.slow
def test_real_engine_under_traffic() -> None:
    """Deploy a matching and load it in real time: all answers are right and take at least the time of the links."""
    delayed = infrastructure().links[0].model_copy(update={"round_trip_s": 0.02})
    given = replace(
        specification(query("q", rate_per_s=40.0, slos=Slos(accuracy=AccuracySlo(threshold=1.0)))),
        infrastructure=infrastructure().model_copy(update={"links": (delayed,)}),
    )
    chosen = matching(["q"])

    async def body() -> LoadReport:
        engine = LocalEngine()
        try:
            await engine.apply(build_desired_state(chosen, given, Mode.REAL))
            return await run_load_test(engine, given, chosen, {"p": ITEMS}, LoadSpec(duration_s=1.0, warm_up_s=0.2))
        finally:
            await engine.close()

    report = asyncio.run(body())
    (measured,) = report.queries
    assert measured.satisfied
    assert measured.requests > 10
    assert measured.latency_s is not None
    assert measured.latency_s.p50_s is not None
    assert measured.latency_s.p50_s >= 0.02
    assert measured.cost_usd_per_h is not None
    assert measured.cost_usd_per_h > 0.6
