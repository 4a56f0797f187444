from __future__ import annotations

from dataclasses import replace

from printed import printed

from circinus.estimation import Estimate
from circinus.reporting.load_table import load_table
from circinus.serving.loadtest.load_report import (
    GeneratorLag,
    LatencySummary,
    LoadReport,
    MeasuredBounds,
    QueryMeasurement,
)
from circinus.serving.loadtest.machine_load import MachineLoad
from circinus.serving.loadtest.plan_replacements import PlanReplacement
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import AccuracySlo, SloKind, Slos
from circinus.statistics.interval import Interval

MEASURED = QueryMeasurement(
    query="q",
    pipeline="p",
    weight=1.0,
    slos=Slos(accuracy=AccuracySlo(threshold=0.5)),
    served=True,
    requests=40,
    latency_s=LatencySummary(0.1, 0.2, 0.3, 0.4, 95.0, 0.3),
    score=0.75,
    cost_usd_per_h=0.5,
    slos_met={"accuracy": True},
    satisfied=True,
    items=24,
    bounds={SloKind.LATENCY: MeasuredBounds(0.2, None), SloKind.ACCURACY: MeasuredBounds(0.7, 0.8)},
    verdicts={SloKind.ACCURACY: SloVerdict.YES},
    verdict=SloVerdict.YES,
)
ON_TIME = GeneratorLag(0.0, 0.0, 0.0, late=False)
BUSY, QUIET = MachineLoad(2, 0.1, 1.9), MachineLoad(2, 0.1, 0.2)


def _report(
    measured: QueryMeasurement,
    machine: MachineLoad | None = None,
    lag: GeneratorLag = ON_TIME,
    replacements: tuple[PlanReplacement, ...] = (),
    others: tuple[QueryMeasurement, ...] = (),
) -> str:
    return printed(
        load_table(
            LoadReport(
                mode="replay",
                arrivals="poisson",
                load_factor=1.0,
                seed=0,
                warm_up_s=1.0,
                duration_s=10.0,
                queries=(measured, *others),
                lateness=lag,
                deployments_cost_usd_per_h=0.5,
                goodput=1.0,
                total_weight=1.0,
                promises_kept=1,
                promises=1,
                verdicts={measured.verdict: 1} if measured.verdict else {},
                machine=machine,
                replacements=replacements,
            )
        )
    )


def test_requests_without_a_score_are_shown() -> None:
    text = _report(replace(MEASURED, unscored=3))
    assert "3 unscored" in text
    assert "counted as the worst score of the range" in text


def test_where_every_request_was_scored_nothing_is_said_of_it() -> None:
    text = _report(MEASURED)
    assert "0.750" in text
    assert "unscored" not in text


def test_bounds_and_verdicts_are_shown_beside_what_the_plan_promises() -> None:
    estimate = Estimate(95.0, Interval(0.1, 0.1, 0.25), Interval(0.8, 0.61, 0.9), Interval.exact(0.1), (), 0.0)
    text = _report(replace(MEASURED, predicted=estimate))
    for part in ("0.700 to 0.800", "200 ms to ?", "≥ 0.610", "24 items", "1 yes, 0 no, 0 unsure"):
        assert part in text
    assert "narrow them" not in text
    unsure = replace(MEASURED, verdicts={SloKind.ACCURACY: SloVerdict.UNSURE}, verdict=SloVerdict.UNSURE)
    for needed, duration_s, advice in (
        (58, 30.0, "--duration 30s"),
        (120, None, "data set of 600 items"),
        (None, None, "24 of"),
    ):
        text = _report(
            replace(unsure, decisive_items=needed, decisive_duration_s=duration_s, decisive_data_set_items=600)
        )
        assert advice in text.partition("the bounds contain the limit")[2]
    assert "longer test has requests of q" in _report(replace(unsure, requests=0, items=0))


def test_queries_that_lack_items_share_a_sentence_the_nearest_first() -> None:
    lacking = replace(MEASURED, verdict=SloVerdict.UNSURE, decisive_items=120, decisive_data_set_items=600)
    nearer = replace(lacking, query="r", decisive_items=40, decisive_data_set_items=200)
    text = " ".join(_report(lacking, others=(nearer,)).split())
    assert "r takes 40 items like these, q 120, and" in text
    assert text.count("items like these") == text.count("200 to 600 items") == 1


def test_a_busy_machine_is_named_where_it_explains_something() -> None:
    estimate = Estimate(95.0, Interval(0.1, 0.1, 0.15), Interval(0.8, 0.6, 0.9), Interval.exact(0.1), (), 0.0)
    slow = replace(MEASURED, predicted=estimate, percentile_engine_s=0.02, percentile_lag_s=0.004)
    assert "other programs kept 1.9 of the machine's 2 CPUs busy: latencies exceed" in _report(slow, BUSY)
    for machine in (BUSY, QUIET):
        assert "q by 150 ms (engine 20 ms, late sending 4 ms)" in _report(slow, machine)
    assert "busy" not in _report(slow, QUIET)
    for service_s, is_named in ((0.11, True), (0.09, False)):
        outlying = replace(slow, stage_s={"add": 0.01}, percentile_stage_s={"add": service_s})
        assert ("add 110 ms instead of 10 ms" in _report(outlying, QUIET)) == is_named
    unsure = replace(
        slow, verdicts={SloKind.LATENCY: SloVerdict.UNSURE}, verdict=SloVerdict.UNSURE, decisive_duration_s=30.0
    )
    for machine, advised in ((BUSY, False), (QUIET, True)):
        assert ("--duration 30s" in _report(replace(unsure, decisive_items=58), machine)) == advised
    assert "busy" not in _report(MEASURED, BUSY)
    assert "busy" not in _report(replace(slow, latency_s=LatencySummary(0.1, 0.1, 0.14, 0.4, 95.0, 0.14)), BUSY)
    assert "busy" in _report(replace(MEASURED, verdicts={SloKind.LATENCY: SloVerdict.UNSURE}), BUSY)
    late = GeneratorLag(0.01, 0.05, 0.1, late=True)
    assert "were sent 50 ms late" in _report(MEASURED, BUSY, late)
    assert "the machine was too busy: requests were sent" in _report(MEASURED, QUIET, late)


def test_a_replaced_plan_is_not_blamed_on_other_programs() -> None:
    estimate = Estimate(95.0, Interval(0.1, 0.1, 0.15), Interval(0.8, 0.6, 0.9), Interval.exact(0.1), (), 0.0)
    verdicts = {SloKind.LATENCY: SloVerdict.UNSURE}
    late = replace(MEASURED, predicted=estimate, verdicts=verdicts, verdict=SloVerdict.UNSURE)
    lag = GeneratorLag(0.01, 0.05, 0.1, late=True)
    replaced = _report(late, BUSY, lag, (PlanReplacement(3.0, 1e9, "one", "two"),))
    for blame in ("other programs", "CPUs busy", "quiet machine"):
        assert blame in _report(late, BUSY, lag)
        assert blame not in replaced
    assert "exceed the plan's bounds" in replaced


def test_requests_without_an_answer_have_a_line_of_their_own() -> None:
    assert "all 40 requests answered" in _report(MEASURED)
    text = _report(replace(MEASURED, failures=3, dropped=2))
    assert "35 of 40 requests answered: 3 failed, 2 dropped as late" in text
    assert "without an answer" not in text
    assert "1 without an answer" in _report(replace(MEASURED, unanswered=1))
    assert "no requests" in _report(replace(MEASURED, requests=0))


def test_bounds_of_a_cost_that_exclude_the_prediction_are_named() -> None:
    estimate = Estimate(95.0, Interval(0.1, 0.1, 0.5), Interval(0.8, 0.6, 0.9), Interval.exact(0.1), (), 0.0)
    for lower, upper, is_named in ((0.4, 0.6, True), (0.01, 0.05, True), (0.09, 0.2, False), (0.1005, 0.2, False)):
        bounds = {SloKind.COST: MeasuredBounds(lower, upper)}
        text = _report(replace(MEASURED, predicted=estimate, bounds=bounds))
        assert ("q $0.50/h instead of $0.10/h" in text) == is_named
    free = replace(estimate, cost_usd_per_h=Interval.exact(0.0))
    for cost, is_named in ((0.4, True), (0.0, False)):
        bounds = {SloKind.COST: MeasuredBounds(cost, cost)}
        assert ("instead of" in _report(replace(MEASURED, predicted=free, bounds=bounds))) == is_named


def test_the_metric_is_named() -> None:
    text = _report(replace(MEASURED, metric="f1 [x]"))
    assert "f1 [x] >= 0.5" in text
    assert "accuracy >=" not in text
