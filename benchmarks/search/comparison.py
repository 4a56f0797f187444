"""Comparison of search methods on the same data sets, cases and seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from time import perf_counter
from typing import Any, Protocol
from zlib import crc32

import numpy as np
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
"""Cost over that of the optimum up to which a plan counts as optimal."""
SIMILAR = {"speech-voices": "speech-libri", "speech-libri": "speech-voices"}
"""Data set that an earlier query may have measured with the same pipeline, per data set."""


class Entrant(Protocol):
    """Picklable factory of searchers."""

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher | None:
        """Return the searcher for an arena; None: the method is not run there.

        Args:
            name: name of the arena.
            drawn: all arenas of the seed; others than `name` show what earlier queries have measured.
        """


@dataclass(frozen=True)
class Cold:
    """Factory of a searcher without earlier measurements."""

    searcher: Searcher

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher:
        """Return the same searcher everywhere."""
        return self.searcher


@dataclass(frozen=True)
class WarmPaperStyle:
    """Factory of the paper's method with measurements of the same pipeline on similar data."""

    def __call__(self, name: str, drawn: Mapping[str, Arena]) -> Searcher | None:
        """Return a searcher with complete measurements of the similar arena, free of charge."""
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
    """Assessed answer of a method to a case."""

    arena: str
    method: str
    seed: int
    case: int
    verdict: Verdict
    wall_s: float
    """Wall time of the search, without profiling."""


@dataclass(frozen=True)
class Standing:
    """Statistics of a method in an arena; shares of nothing are NaN."""

    arena: str
    method: str
    answers: int
    found: float
    """Share of the feasible cases with an answer that keeps all SLOs."""
    close: float
    """Share of the feasible cases with such an answer at no more than `CLOSE` times the least cost."""
    cost_over_optimum_median: float
    """Median over the feasible answers."""
    cost_over_optimum_p95: float
    recognised: float
    """Share of the infeasible cases without an answer."""
    broken: float
    """Share of the answers that violate an SLO."""
    inaccurate: float
    """Share of the answers that violate the accuracy SLO."""
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
    """Run every entrant in every arena on every case, seed by seed, in this process."""
    return [row for seed in seeds for row in _run(entrants, arenas, seed, count)]


def race_published(entrants: Sequence[Entrant], seeds: Sequence[int], *, count: int, jobs: int) -> list[Row]:
    """Run every entrant on every case of the three published data sets, with seeds in parallel.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    _published()  # before processes are forked, so that they share it, and to fail early
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(_run_published, [(tuple(entrants), seed, count) for seed in seeds])
        return [row for rows in track(results, "race", total=len(seeds)) for row in rows]


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Return the statistics of each arena and method, in order of first occurrence."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.arena, row.method), []).append(row)
    return [_standing(group) for group in groups.values()]


def tables(results: Sequence[Standing]) -> list[Table]:
    """Return a table of the statistics of each arena."""
    drawn: list[Table] = []
    for arena, group in groupby(results, key=lambda each: each.arena):
        drawn.append(Table("method", "found", f"to {CLOSE - 1:.0%}", "cost p95", "recognised", "inaccurate", "touched",
                           "p90", "seconds", "p90", title=arena))  # fmt: skip
        for each in group:
            drawn[-1].add_row(
                each.method, f"{each.found:.0%}", f"{each.close:.0%}", f"{each.cost_over_optimum_p95:.2f}",
                f"{each.recognised:.0%}", f"{each.inaccurate:.1%}", f"{each.touched_median:.0f}",
                f"{each.touched_p90:.0f}", f"{each.seconds_median:.0f}", f"{each.seconds_p90:.0f}",
            )  # fmt: skip
    return drawn


def as_records(results: Sequence[Standing]) -> list[dict[str, Any]]:
    """Return rows for a result file."""
    return [asdict(each) for each in results]


def _run(entrants: Sequence[Entrant], arenas: Sequence[Arena], seed: int, count: int) -> list[Row]:
    drawn = {a.space.name: a.drawn(np.random.default_rng([seed, at])) for at, a in enumerate(arenas)}
    rows: list[Row] = []
    for at, (name, arena) in enumerate(drawn.items()):
        arena_cases = cases(arena, np.random.default_rng([seed, at, 1]), count)
        for entrant in entrants:
            searcher = entrant(name, drawn)
            if searcher is None:
                continue
            for number, case in enumerate(arena_cases):
                meter = Meter(arena, reuse_prefixes=searcher.reuse_prefixes)
                rng = np.random.default_rng([seed, at, number, crc32(searcher.name.encode())])
                start_s = perf_counter()
                answer = searcher.search(case, meter, rng)
                wall_s = perf_counter() - start_s
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


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else np.nan
