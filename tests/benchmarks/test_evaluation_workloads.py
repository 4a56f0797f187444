"""Recorded uplinks and traffic, workloads, and the page of the evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.baselines.planners.paper import PAPER
from benchmarks.evaluation import goodput
from benchmarks.evaluation.goodput import OURS, figures
from benchmarks.evaluation.method import FILES
from benchmarks.evaluation.page import page
from benchmarks.evaluation.summary import misses, readme_lines
from benchmarks.evaluation.workloads import available, contests
from benchmarks.workloads.load_traces import Uplink
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from benchmarks.workloads.recorded import recorded


def test_an_uplink_keeps_its_bandwidth_until_the_next_change() -> None:
    uplink = Uplink(np.array([0.0, 30.0, 60.0]), np.array([10.0, 2.0, 50.0]))
    assert [uplink.at(time_s) for time_s in (-1.0, 0.0, 29.9, 30.0, 59.0, 60.0, 1e6)] == [10, 10, 10, 2, 2, 50, 50]
    assert uplink.exceeded_for(0.9, 0.0, 90.0) == 2.0
    assert uplink.exceeded_for(0.5, 0.0, 90.0) == 10.0


def test_a_recording_has_every_configuration_on_every_item() -> None:
    trace, truth = recorded("meeting")
    assert np.isfinite(trace.service_s).all()
    assert {len(measured.items) for measured in truth.configurations} == {truth.population} == {len(trace.item_keys)}


@pytest.fixture(scope="module")
def moving() -> Any:
    try:
        return next(contests("traffic", (0.1,), 0))
    except TracesAbsentError as error:
        pytest.skip(str(error))


def test_uplinks_move_and_all_else_stays(moving: Any) -> None:
    seen, *moments = [moving.specification.required_infrastructure, *moving.moments]
    assert len(moments) == 10
    bandwidths = np.array([[link.bandwidth_bytes_per_s for link in places.links] for places in (seen, *moments)])
    moves = np.ptp(bandwidths[1:], axis=0) > 0
    assert [link.source.startswith("place-") for link in seen.links] == moves.tolist()
    assert all(moment.pools == seen.pools for moment in moments)
    assert np.mean(bandwidths[1:, moves] >= bandwidths[0, moves]) > 0.5


def test_queries_hold_their_accuracy_with_some_configuration(moving: Any) -> None:
    for query in moving.specification.queries:
        means = [float(measured.scores.mean()) for measured in moving.truth[query.pipeline].configurations]
        assert any(query.slos.accuracy.is_met_by(mean) for mean in means)


def _row(planner: str, goodput: float, scope: str = "all tiers", **more: Any) -> dict[str, Any]:
    costs = {"share": 2.0, "node": 3.0, "busy seconds": 1.0}
    return {
        "part": "goodput", "contest": "meeting, load 2, mixed", "workload": "meeting", "load": 2.0,
        "tightness": "mixed", "scope": scope, "planner": planner, "seed": 0, "queries": 10, "offered": 20.0,
        "bound": 16.0, "promised": goodput, "goodput": goodput, "served": 5, "kept": ["a", "b", "c", "d"],
        "too_close": 0, "late": 1, "inaccurate": 0, "too_dear": 0, "usd_per_h": costs, "profiled_s": 10.0,
        "touched": 3, "first_plan_s": 1.0, "planning_s": 2.0,
    } | more  # fmt: skip


def _rows() -> list[dict[str, Any]]:
    costs = {"share": 2.0, "node": 3.0, "busy seconds": 1.0}
    theirs = {name: 4 * usd_per_h for name, usd_per_h in costs.items()}
    in_cloud = _row(
        "IPA-style", 8.0, "cloud", profiled_s=200.0, same_set=True, usd_per_h_ours=costs, usd_per_h_theirs=theirs
    )
    everywhere = [_row(OURS.name, 15.0), _row("IPA-style", 6.0, profiled_s=200.0), _row("Optuna + greedy", 12.0)]
    everywhere.append(_row(PAPER.name, 10.0, profiled_s=22.0))
    return [*everywhere, _row(OURS.name, 7.0, "cloud", kept=["a", "b"]), in_cloud]


def test_figures_compare_with_the_best_of_each_kind() -> None:
    seen = {figure.name: figure.value for figure in figures(_rows())}
    assert seen["goodput at saturation over the best earlier planner's, median"] == pytest.approx(15 / 8)
    assert seen["goodput that is possible over the best earlier planner, median"] == pytest.approx(2.0)
    assert seen["goodput over the best of all others, least"] == pytest.approx(15 / 12)
    assert seen["promises broken, all tiers"] == pytest.approx(0.2)
    assert seen["promises broken, all plans"] == pytest.approx(0.4)
    assert seen["goodput at saturation over the best of all others, median"] == pytest.approx(15 / 12)
    assert seen["cost by node, earlier planners in their own tiers over ours, median"] == pytest.approx(4.0)
    assert seen["profiled seconds: the quickest earlier planner's over ours, median"] == pytest.approx(20.0)
    assert seen["goodput at saturation over the paper's planner's, median"] == pytest.approx(15 / 10)
    assert seen["time to the final plan, with profiling: the paper's planner's over ours, median"] == pytest.approx(2.0)
    assert seen["time to the final plan, with profiling: the quickest earlier planner's over ours, median"] == (
        pytest.approx(202 / 12)
    )


def test_the_page_has_every_planner_and_every_figure() -> None:
    found = list(figures(_rows()))
    document = {
        "commit": "abc",
        "wall_s": 60.0,
        "machine": {"cpus": 2, "memory_gib": 8.0},
        "figures": [vars(figure) for figure in found],
        "rows": _rows(),
    }
    text = page(document)
    assert all(figure.name in text for figure in found)
    assert text.count("| IPA-style | cloud |") == 2  # goodput and costs
    assert readme_lines(document).count("\n- ") == 2


def test_misses_name_where_others_keep_more_or_pay_less_and_what_breaks_promises() -> None:
    costs = dict.fromkeys(("share", "node", "busy seconds"), 4.0)
    theirs = costs | {"share": 2.0, "node": 2.0}
    cheap = _row("IPA-style", 15.0, usd_per_h_ours=costs, usd_per_h_theirs=theirs, same_set=4)
    varied = [
        {"part": "sensitivity", "varied": what, "value": value, "broken": broken, "served": 40, "contest": "c"}
        for what, value, broken in (("risk", 0.2, 8), ("true speed", 0.7, 3), ("noise", 0.1, 2))
    ]
    text = misses([*_rows()[:1], cheap, *_rows()[4:], *varied])
    flat = " ".join(text.split())
    assert "ahead by more than chance (0.0%) in 0 of 1 contests and behind in none." in flat
    assert "in 0 of 1 contests and behind in 1, by weight kept: meeting, load 2, mixed, cloud: 7 (IPA-style 8)" in flat
    assert "by share for 1, by node for 1, by busy seconds for 0" in flat
    assert [line for line in text.splitlines() if "broken" in line] == [
        "- Pools 30% slower than declared: 3 of 40 promises are broken."
    ]


class _Kept:
    """Contest whose plans are the names of its queries, of which the judge lets some hold."""

    def __init__(self, names: Collection[str]) -> None:
        self.specification = tuple(names)

    def of(self, names: Collection[str]) -> _Kept:
        return _Kept(names)

    def within(self, tiers: Collection[str]) -> _Kept:
        return self

    def plan(self, contest: _Kept, seed: int) -> Any:
        return SimpleNamespace(matching=contest.specification)


@pytest.mark.parametrize(("lost_by_round", "compared"), [((), 6), ((1,), 5), ((1, 1), 4), ((1, 1, 1), 0), ((6,), 0)])
def test_costs_are_those_of_queries_that_both_keep(
    monkeypatch: pytest.MonkeyPatch, lost_by_round: tuple[int, ...], compared: int
) -> None:
    """In each round, some queries are lost when they are all."""
    lost = iter(lost for lost in lost_by_round for _ in ("ours", "theirs"))

    def judged(contest: _Kept, matching: Sequence[str], seed: int) -> Any:
        return SimpleNamespace(kept=frozenset(matching[next(lost, 0) :]), usd_per_h={"share": float(len(matching))})

    monkeypatch.setattr(goodput, "judged", judged)
    monkeypatch.setattr(goodput, "OURS", SimpleNamespace(planned=lambda names, _: SimpleNamespace(matching=names)))
    found: Any = goodput.costs_of_the_same(_Kept("abcdef"), "cloud", tuple("abcdef"), _Kept(()), None, 0)  # type: ignore[arg-type]
    assert found["same_set"] == compared
    assert found.get("usd_per_h_ours") == ({"share": float(compared)} if compared else None)


def test_published_traces_are_those_of_the_page() -> None:
    try:
        folder = traces_folder()
    except TracesAbsentError as error:
        pytest.skip(str(error))
    seen = {name: sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    assert {name: seen[name][: len(digest)] for name, digest in FILES.items()} == FILES


def test_without_published_traces_recorded_examples_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIRCINUS_TRACES", str(tmp_path))
    assert set(available()) == {"meeting", "documents"}
