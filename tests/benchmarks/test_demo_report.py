from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from benchmarks.demo.report import comparison
from rich.console import Console

from circinus.matching import Matching, match
from circinus.planning import Frontier
from circinus.serving.loadtest.load_report import GeneratorLag, LatencySummary, LoadReport, QueryMeasurement
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import Query, Slos
from random_matchings import candidate, deployment, infrastructure, reestimate, use

NAMES = ("Circinus", "everything best in the cloud", "everything cheapest on the device")


def _strategies() -> dict[str, Matching]:
    infra = infrastructure([("office-server-with-a-long-name", 1, 4.0, 16.0, 1.0)])
    slos = Slos.parse(["latency p95 <= 1s", "accuracy >= 0.8", "cost <= $0.80/h"])
    uses = [
        use(deployment(name, 0, "office-server-with-a-long-name"), 0.5, infra)
        for name in ("denoise", "speech_to_text", "keywords")
    ]
    plan = candidate("boardroom-captions", uses)
    query = Query(name=plan.query, pipeline="p", source="home", rate="1/s", slos=slos)
    return dict.fromkeys(NAMES, match({plan.query: Frontier(query, (plan,), {}, (), (), "")}, infra, reestimate))


def _report(matching: Matching, *, missed: bool) -> LoadReport:
    (assignment,) = matching.assignments
    measured = QueryMeasurement(
        query=assignment.query,
        pipeline="p",
        weight=1.0,
        slos=Slos.parse(["latency p95 <= 1s", "accuracy >= 0.8", "cost <= $0.80/h"]),
        served=True,
        requests=40,
        latency_s=LatencySummary(0.1, 0.2, 1.203, 1.5, 95.0, 1.203),
        score=0.754,
        cost_usd_per_h=0.000735,
        slos_met={"latency": not missed, "accuracy": not missed, "cost": True},
        satisfied=not missed,
        predicted=assignment.chosen.estimate,
        verdict=SloVerdict.NO if missed else SloVerdict.UNSURE,
    )
    return LoadReport(
        mode="replay",
        arrivals="poisson",
        seed=0,
        load_factor=1.0,
        warm_up_s=1.0,
        duration_s=10.0,
        queries=(
            measured,
            replace(measured, query="huddle-live-dubbing", served=False, slos_met=None, satisfied=False),
        ),
        lateness=GeneratorLag(0.0, 0.0, 0.0, late=False),
        deployments_cost_usd_per_h=0.5,
        goodput=float(not missed),
        total_weight=2.0,
        promises_kept=int(not missed),
        promises=1,
    )


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_nothing_is_cut_whatever_the_width(width: int) -> None:
    strategies = _strategies()
    reports = {name: _report(matching, missed=name != NAMES[0]) for name, matching in strategies.items()}
    written = StringIO()
    Console(file=written, width=width).print(comparison(strategies, reports))
    lines = written.getvalue().splitlines()
    rows = [line for line in lines if line.startswith("│")]
    assert rows
    assert {line.count("│") for line in rows} == {len(NAMES) + 2}
    assert max(map(len, lines)) <= width
    columns = [" ".join(cell) for cell in zip(*(map(str.strip, line.split("│")) for line in rows), strict=True)]
    plan, ours, cloud, device = (" ".join(column.split()) for column in columns[1:-1])
    for words in ("boardroom-captions", "p95 <= 1s", "accuracy >= 0.8", "cost <= $0.80/h"):
        assert words.replace(" ", "") in plan.replace(" ", "")  # a narrow column folds within words
    assert "p95 500 ms → 1.2 s accuracy 0.900 → 0.754" in ours
    assert "$0.000735/h all SLOs met, unsure no: no plan 1 of 2 1 of 1 served" in ours
    for other in (cloud, device):
        assert "1.2 s accuracy 0.754 $0.000735/h missed latency, accuracy no: no room 0 of 2" in other
