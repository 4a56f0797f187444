from __future__ import annotations

from dataclasses import replace

from printed import printed

from circinus.reporting.load_table import load_table
from circinus.serving.loadtest.load_report import GeneratorLag, LatencySummary, LoadReport, QueryMeasurement
from circinus.specification import AccuracySlo, Slos

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
)


def _report(measured: QueryMeasurement) -> str:
    return printed(
        load_table(
            LoadReport(
                mode="replay",
                arrivals="poisson",
                rate_factor=1.0,
                seed=0,
                warm_up_s=1.0,
                duration_s=10.0,
                queries=(measured,),
                lateness=GeneratorLag(0.0, 0.0, 0.0, late=False),
                deployments_cost_usd_per_h=0.5,
                goodput=1.0,
                total_weight=1.0,
                promises_kept=1,
                promises=1,
            )
        )
    )


def test_requests_without_a_score_are_shown() -> None:
    text = _report(replace(MEASURED, unscored=3))
    assert "0.750 (3 unscored)" in text
    assert "counted as the worst score of the range" in text


def test_where_every_request_was_scored_nothing_is_said_of_it() -> None:
    text = _report(MEASURED)
    assert "0.750" in text
    assert "unscored" not in text
