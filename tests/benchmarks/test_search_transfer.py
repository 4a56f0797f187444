"""Benchmark of transfer learning: its verdicts are those of the search, counted until they stay right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.search import transfer_learning as search_transfer
from benchmarks.search.arena import Arena
from benchmarks.search.transfer_learning import GOOD, MISLEADING, MOST, transfer_figures

from small_arenas import tiny_arena


def _named(arena: Arena, name: str) -> Arena:
    return replace(arena, space=replace(arena.space, name=name))


def test_good_sources_are_trusted_and_misleading_ones_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_transfer, "MOST", 5)
    rng = np.random.default_rng(0)
    arenas = [_named(tiny_arena(rng, sizes=6), name) for name in ("speech-voices", "speech-libri", "video-nuscenes")]
    figures, rows = transfer_figures(arenas, range(2))
    assert {(row["data"], row["source"]) for row in rows} == {
        (name, kind) for name in ("speech-voices", "speech-libri") for kind in (*GOOD, *MISLEADING)
    }
    assert len(figures) == len(rows)
    by_kind = {kind: [row for row in rows if row["source"] == kind] for kind in (*GOOD, *MISLEADING)}
    assert all(row["right_after"][5] == 1.0 for row in by_kind["as published"] + by_kind["reversed"])
    assert all(row["until_right_median"] <= 5 for row in by_kind["as published"] + by_kind["reversed"])
    assert all("until a source is dropped" in f.name for f in figures if f.name.endswith(("shuffled", "reversed")))


def test_what_is_counted_is_until_it_stays_right() -> None:
    wrong_again = (True,) * 3 + (False,) + (True,) * (MOST - 4)
    never = (True,) * (MOST - 1) + (False,)
    row = search_transfer._row("d", "shuffled", [(True,) * MOST, wrong_again, wrong_again, never])
    assert row["until_right_median"] == 5.0
    assert row["until_right_p95"] == MOST + 1
    assert row["right_within"] == 1.0
    assert row["stays_right_from"] == 0.75
    assert row["right_after"][4] == 0.5
