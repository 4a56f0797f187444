"""Searches against each other: the same data sets, cases and seconds for all.

`python -m benchmarks.search.comparison --seeds 2 --cases 10` for a look.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from time import perf_counter
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.baselines.search import (
    Exhaustive,
    OptunaConstrained,
    PaperStyle,
    RandomSearch,
    SuccessiveHalving,
    VulcanStyle,
)
from benchmarks.baselines.search.paper_style import Earlier
from benchmarks.search.arena import Arena
from benchmarks.search.meter import Meter, Searcher, Verdict, judge
from benchmarks.search.slo_cases import cases
from benchmarks.workloads.published.speech import traces_folder
from benchmarks.workloads.published.traces import read_arenas

CASES = 40
CLOSE = 1.01
"""Cost over the optimum's up to which a plan counts as optimal."""
SIMILAR = {"speech-voices": "speech-libri", "speech-libri": "speech-voices"}
"""What an earlier query may have measured: the same pipeline on other data."""


class Entrant(Protocol):
    """Brings a searcher to an arena. It must be picklable."""

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher | None:
        """The searcher for the arena `name`; None: it does not take part there.

        Args:
            name: of the arena.
            drawn: all arenas of the seed, of which only others may be used, for what earlier queries have measured.
        """


@dataclass(frozen=True)
class Cold:
    """A searcher that knows nothing beforehand."""

    searcher: Searcher

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher:
        """The same everywhere."""
        return self.searcher


@dataclass(frozen=True)
class WarmPaperStyle:
    """The paper's way after the same pipeline was measured on similar data."""

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher | None:
        """With what measuring all of the similar arena shows; that is not charged again."""
        return PaperStyle(earlier=Earlier.of(drawn[SIMILAR[name]])) if name in SIMILAR else None


BASELINES: tuple[Entrant, ...] = (
    Cold(Exhaustive()),
    Cold(VulcanStyle()),
    Cold(PaperStyle()),
    WarmPaperStyle(),
    Cold(RandomSearch()),
    Cold(SuccessiveHalving()),
    Cold(OptunaConstrained()),
)


@dataclass(frozen=True)
class Row:
    """One answer."""

    arena: str
    method: str
    seed: int
    case: int
    verdict: Verdict
    wall_s: float
    """Of the search itself, profiling not counted."""


@dataclass(frozen=True)
class Standing:
    """All answers of a method in an arena. Shares are NaN where there is nothing to share."""

    arena: str
    method: str
    answers: int
    found: float
    """Share of the feasible cases where the answer keeps all SLOs."""
    close: float
    """Share of the feasible cases where it does so at no more than `CLOSE` times the least cost."""
    cost_over_optimum_median: float
    cost_over_optimum_p95: float
    """Both of the feasible plans that were found."""
    recognised: float
    """Share of the infeasible cases that are called so."""
    broken: float
    """Share of the plans given that break an SLO."""
    inaccurate: float
    """Share of the plans given that break the accuracy SLO."""
    touched_median: float
    touched_p90: float
    seconds_median: float
    seconds_p90: float
    seconds_mean: float
    wall_s_median: float


def race(
    entrants: Sequence[Entrant],
    arenas: Sequence[Arena],
    seeds: Iterable[int],
    *,
    count: int = CASES,
) -> list[Row]:
    """Every entrant in every arena on every case, one seed after the other, in this process."""
    return [row for seed in seeds for row in _run(entrants, arenas, seed, count)]


def race_published(entrants: Sequence[Entrant], seeds: Sequence[int], *, count: int, jobs: int) -> list[Row]:
    """The same on the three published data sets, seeds in parallel.

    Raises:
        TracesAbsentError: they are not there.
    """
    _published()  # before there are processes, so that they have it, and to fail early
    with ProcessPoolExecutor(jobs) as pool:
        found = pool.map(_run_published, [(tuple(entrants), seed, count) for seed in seeds])
        return [row for rows in track(found, "race", total=len(seeds)) for row in rows]


def standings(rows: Sequence[Row]) -> list[Standing]:
    """One for each arena and method, in the order in which they first occur."""
    places: dict[tuple[str, str], int] = {}
    for row in rows:
        places.setdefault((row.arena, row.method), len(places))
    ordered = sorted(rows, key=lambda row: places[row.arena, row.method])
    return [_standing(list(group)) for _, group in groupby(ordered, key=lambda row: (row.arena, row.method))]


def tables(found: Sequence[Standing]) -> list[Table]:
    """For people, one for each arena."""
    drawn: list[Table] = []
    for arena, group in groupby(found, key=lambda each: each.arena):
        head = (
            "found",
            f"to {CLOSE - 1:.0%}",
            "cost p95",
            "recognised",
            "inaccurate",
            "touched",
            "p90",
            "seconds",
            "p90",
        )
        drawn.append(Table("method", *head, title=arena))
        for each in group:
            drawn[-1].add_row(
                each.method,
                f"{each.found:.0%}",
                f"{each.close:.0%}",
                f"{each.cost_over_optimum_p95:.2f}",
                f"{each.recognised:.0%}",
                f"{each.inaccurate:.1%}",
                f"{each.touched_median:.0f}",
                f"{each.touched_p90:.0f}",
                f"{each.seconds_median:.0f}",
                f"{each.seconds_p90:.0f}",
            )
    return drawn


def as_records(found: Sequence[Standing]) -> list[dict[str, Any]]:
    """For a file of results."""
    return [asdict(each) for each in found]


def _run(entrants: Sequence[Entrant], arenas: Sequence[Arena], seed: int, count: int) -> list[Row]:
    drawn = {a.space.name: a.drawn(np.random.default_rng([seed, at])) for at, a in enumerate(arenas)}
    rows: list[Row] = []
    for at, (name, arena) in enumerate(drawn.items()):
        asked = cases(arena, np.random.default_rng([seed, at, 1]), count)
        for entrant in entrants:
            searcher = entrant(name, drawn)
            if searcher is None:
                continue
            for number, case in enumerate(asked):
                meter = Meter(arena, reuse_prefixes=searcher.reuse_prefixes)
                rng = np.random.default_rng([seed, at, number, crc32(searcher.name.encode())])
                began = perf_counter()
                answer = searcher.search(case, meter, rng)
                wall_s = perf_counter() - began
                rows.append(Row(name, searcher.name, seed, number, judge(case, answer, arena, meter), wall_s))
    return rows


def _run_published(job: tuple[tuple[Entrant, ...], int, int]) -> list[Row]:
    entrants, seed, count = job
    return _run(entrants, _published(), seed, count)


@cache
def _published() -> tuple[Arena, ...]:
    return read_arenas(traces_folder())


def _standing(rows: Sequence[Row]) -> Standing:
    verdicts = [row.verdict for row in rows]
    feasible = [verdict for verdict in verdicts if verdict.feasible]
    ratios = [verdict.cost_over_optimum for verdict in feasible if verdict.found]
    return Standing(
        arena=rows[0].arena,
        method=rows[0].method,
        answers=len(rows),
        found=_share(verdict.found for verdict in feasible),
        close=_share(verdict.found and verdict.cost_over_optimum <= CLOSE for verdict in feasible),
        cost_over_optimum_median=float(np.median(ratios)) if ratios else np.nan,
        cost_over_optimum_p95=float(np.quantile(ratios, 0.95)) if ratios else np.nan,
        recognised=_share(not verdict.answered for verdict in verdicts if not verdict.feasible),
        broken=_share(not verdict.found for verdict in verdicts if verdict.answered),
        inaccurate=_share(not verdict.accurate for verdict in verdicts if verdict.answered),
        touched_median=float(np.median([verdict.touched for verdict in verdicts])),
        touched_p90=float(np.quantile([verdict.touched for verdict in verdicts], 0.9)),
        seconds_median=float(np.median([verdict.seconds for verdict in verdicts])),
        seconds_p90=float(np.quantile([verdict.seconds for verdict in verdicts], 0.9)),
        seconds_mean=float(np.mean([verdict.seconds for verdict in verdicts])),
        wall_s_median=float(np.median([row.wall_s for row in rows])),
    )


def _share(found: Iterable[bool]) -> float:
    listed = list(found)
    return float(np.mean(listed)) if listed else np.nan


def main() -> None:
    """Race the baselines, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.comparison", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    rows = race_published(BASELINES, seeds, count=chosen.cases, jobs=chosen.jobs)
    Console().print(*tables(standings(rows)))


if __name__ == "__main__":
    main()
