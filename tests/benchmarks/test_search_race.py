"""Comparisons of searches are fair, repeatable and correctly summarised."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.baselines.search import Exhaustive, RandomSearch
from benchmarks.search.comparison import BASELINES, Cold, Row, as_records, race, race_published, standings, tables
from benchmarks.search.meter import Verdict
from benchmarks.workloads.published.speech import TracesAbsentError, traces_folder
from rich.console import Console

from small_arenas import tiny_arena

ARENA = tiny_arena(np.random.default_rng(0), sizes=4)


def test_a_race_is_repeatable_and_the_same_for_all() -> None:
    entrants = [Cold(Exhaustive()), Cold(RandomSearch(3))]
    rows, again = (race(entrants, [ARENA], [0, 1], count=5) for _ in range(2))
    assert len(rows) == 2 * 2 * 5
    assert [r.verdict.seconds for r in rows] == [r.verdict.seconds for r in again]
    feasible = {(row.seed, row.case, row.verdict.feasible) for row in rows}
    assert len(feasible) == 10  # no case that is feasible for one method only
    alone = race(entrants[1:], [ARENA], [1], count=5)
    assert [r.verdict.seconds for r in alone] == [r.verdict.seconds for r in rows[15:]]


def test_standings_by_hand() -> None:
    def row(feasible: bool, answered: bool, found: bool, ratio: float, touched: int, accurate: bool = True) -> Row:
        verdict = Verdict(feasible, answered, found, ratio, touched, 10, float(touched), accurate)
        return Row("a", "m", 0, 0, verdict, 0.1)

    found = standings(
        [
            row(True, True, True, 1.0, 4),
            row(True, True, True, 1.2, 8),
            row(True, True, False, np.nan, 6),
            row(True, False, False, np.nan, 6),
            row(False, False, False, np.nan, 2),
            row(False, True, False, np.nan, 10, accurate=False),
        ]
    )
    assert len(found) == 1
    assert (found[0].found, found[0].close, found[0].recognised) == (0.5, 0.25, 0.5)
    assert found[0].broken == 0.5  # of the four plans given
    assert found[0].inaccurate == 0.25
    assert (found[0].touched_p90, found[0].seconds_p90) == (9.0, 9.0)
    assert found[0].cost_over_optimum_median == pytest.approx(1.1)
    assert (found[0].touched_median, found[0].seconds_mean) == (6.0, 6.0)
    assert as_records(found)[0]["method"] == "m"


def test_tables_name_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    found = standings(race([Cold(Exhaustive()), Cold(RandomSearch(3))], [ARENA], [0], count=5))
    Console(width=100).print(*tables(found))
    printed = capsys.readouterr().out
    assert "exhaustive" in printed
    assert "random 3" in printed


def test_all_baselines_on_the_published_data() -> None:
    pytest.importorskip("pyarrow", reason="the published scores are in a Parquet file")
    try:
        traces_folder()
    except TracesAbsentError as absent:
        pytest.skip(str(absent))
    rows = race_published(BASELINES, [0], count=3, jobs=1)
    found = {(each.arena, each.method): each for each in standings(rows)}
    assert len(found) == 3 * len(BASELINES) - 1  # nothing similar to learn from in the video arena
    for (_, method), each in found.items():
        if method == "exhaustive":
            assert (each.found, each.close, each.recognised) == (1.0, 1.0, 1.0)
            exhaustive_s = each.seconds_median
        else:
            assert each.seconds_median <= exhaustive_s * 1.2
