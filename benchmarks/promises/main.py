"""Truth of what Circinus prints: each sentence is compared with what comes of it.

Parts: accuracy promises of whole profiling runs on fresh items; advice for rejected queries, followed one by one on
random and real applications; planning from what runs, compared with planning afresh; rejected queries that a simulation
would have kept; and promises of served queries under load. Figures of the code before are those of `before.json`, the
result file of an earlier commit.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult, Rows
from benchmarks.harness.results import Figure, records_table
from benchmarks.promises.accuracy import accuracy_part
from benchmarks.promises.advice import Followed, followed_advice
from benchmarks.promises.applications import SHARING, Application, real_application, stricter
from benchmarks.promises.caution import Caution, caution
from benchmarks.promises.incumbent import Replanned, replanned
from benchmarks.promises.kept import kept_part
from benchmarks.promises.rejections import Rejected, simulated_rejections

BEFORE = Path(__file__).parent / "before.json"
_EXAMPLES = ("starter", "meeting", "documents")
_SOME_S = 3.0
"""Simulated seconds of profiling of every fifth application, so that not all is decided."""

_T = TypeVar("_T")


def with_figures_before(part: Callable[[Options, Console], PartResult]) -> Callable[[Options, Console], PartResult]:
    """Return the part with the figures of an earlier commit in the notes."""

    def run(options: Options, console: Console) -> PartResult:
        figures, rows = part(options, console)
        if not BEFORE.is_file() or (options.out and options.out.resolve() == BEFORE):
            return figures, rows
        document = json.loads(BEFORE.read_text(encoding="utf-8"))
        before = {figure["name"]: figure for figure in document["figures"]}
        noted = []
        for figure in figures:
            if earlier := before.get(figure.name):
                text = f"{earlier['value']:.3g} at {document['commit']}"
                figure = replace(figure, note=f"{text}; {figure.note}" if figure.note else text)
            noted.append(figure)
        return noted, rows

    return run


def _seeds(count: int, jobs: int, run: Callable[[int], list[_T]], title: str) -> list[_T]:
    """Return the results of all seeds; one process takes those that share measurements."""
    blocks = [range(first, min(first + SHARING, count)) for first in range(0, count, SHARING)]
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(partial(_block, run), blocks)
        return [result for block in track(results, title, total=len(blocks)) for result in block]


def _block(run: Callable[[int], list[_T]], seeds: Iterable[int]) -> list[_T]:
    return [result for seed in seeds for result in run(seed)]


def advice_part(options: Options, console: Console) -> PartResult:
    """Follow all advice on random applications, and on the examples."""
    random = partial(_random_advice, options.state)
    followed = [(str(seed), f) for seed, f in _seeds(options.applications, options.jobs, random, "advice")]
    variants = [
        (f"{name} {seed}", stricter(real_application(name, options.state, options.profile_s), seed))
        for name in options.examples
        for seed in range(options.variants)
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        followed += [f for its in track(pool.map(_variant_advice, variants), "variants", len(variants)) for f in its]
    kinds: defaultdict[str, list[bool]] = defaultdict(list)
    for _, advice in followed:
        kinds[advice.kind].append(advice.holds)
    rows: Rows = [
        {"part": "advice", "kind": kind, "printed": len(held), "held": sum(held)} for kind, held in kinds.items()
    ]
    console.print(records_table(rows, "advice, followed"))
    broken = [{"part": "advice", "application": at, **asdict(f)} for at, f in followed if not f.holds]
    held = [advice.holds for _, advice in followed]
    note = f"{len(held)} pieces of advice, {options.applications} random applications and {len(options.examples)} real"
    return [
        Figure("advice that holds when followed", _mean(held), 1.0, "higher", "of advice", note),
        Figure("advice followed", len(held), 1.0 if options.quick else 1000.0, "higher", "pieces"),
        *(
            Figure(f"advice that holds: {kind}", _mean(of_kind), 1.0, "higher", "of advice", f"{len(of_kind)} pieces")
            for kind, of_kind in sorted(kinds.items())
        ),
    ], [*rows, *broken]


def _variant_advice(named: tuple[str, Application]) -> list[tuple[str, Followed]]:
    name, variant = named
    return [(name, advice) for advice in followed_advice(variant, variant.workspace().plan())]


def _random_advice(state: Path, seed: int) -> list[tuple[int, Followed]]:
    application = Application.random(seed, state, budget_s=_SOME_S if seed % 5 == 4 else None)
    return [(seed, advice) for advice in followed_advice(application, application.workspace().plan())]


def incumbent_part(options: Options, console: Console) -> PartResult:
    """Plan from what runs and afresh after one random change each."""
    results = _seeds(options.changes, options.jobs, partial(_replanned, options.state), "changes")
    differences = np.array([result.difference for result in results])
    lost = [result for result in results if result.difference < -1e-9]
    counts = Counter(result.change for result in lost)
    claimed = sum(r.incumbent_optimal for r in lost)
    console.print(f"{len(lost)} of {len(results)} lose weight: {dict(counts)}")
    equal = [r for r in results if abs(r.difference) < 1e-9]
    more = float(np.mean([r.incumbent_usd_per_h for r in equal]) - np.mean([r.fresh_usd_per_h for r in equal]))
    return [
        Figure("least weight of planning from what runs minus afresh", float(differences.min()), 0.0, "higher", "",
               f"{len(results)} changes"),
        Figure("changes after which the incumbent costs weight", len(lost), 0.0, "lower", "changes",
               f"of {len(results)}; {claimed} of them said to be optimal"),
        Figure("mean weight of planning from what runs minus afresh", float(differences.mean()), None, "higher", ""),
        Figure("mean cost of planning from what runs minus afresh", more, None, "lower", "$/h", "at equal weight"),
    ], [{"part": "incumbent", **asdict(result)} for result in results]  # fmt: skip


def _replanned(state: Path, seed: int) -> list[Replanned]:
    return [replanned(seed, state)]


def rejections_part(options: Options, console: Console) -> PartResult:
    """Simulate rejected queries of random applications on the answer as sized."""
    results = _seeds(options.applications, options.jobs, partial(_rejections, options.state), "rejections")
    composed = sum(rejected.composed > 0 for _, rejected in results)
    note = f"of {len(results)} rejected queries, {composed} with an accurate plan on running deployments"
    wrong = [{"part": "rejections", "seed": seed, **asdict(rejected)} for seed, rejected in results if rejected.keeps]
    return [
        Figure("rejected queries that a simulation keeps, with the allowance for few items",
               _mean(r.keeps_cautiously for _, r in results), 0.0, "lower", "of rejections", note),
        Figure("rejected queries that a simulation keeps",
               _mean(r.keeps for _, r in results), None, "lower", "of rejections", "without the allowance"),
    ], wrong  # fmt: skip


def _rejections(state: Path, seed: int) -> list[tuple[int, Rejected]]:
    application = Application.random(seed, state)
    return [(seed, rejected) for rejected in simulated_rejections(application, application.workspace().plan())]


def caution_part(options: Options, console: Console) -> PartResult:
    """Plan applications with promises for requests to come, and for the measured items."""
    results = _seeds(options.applications, options.jobs, partial(_caution, options.state), "caution")
    named = {"random": results} | {
        name: [caution(real_application(name, options.state, options.profile_s))] for name in options.examples
    }
    figures = []
    for name, plans in named.items():
        weight, for_items = sum(p.weight_for_requests for p in plans), sum(p.weight_for_items for p in plans)
        usd_per_h = sum(p.usd_per_h_for_requests for p in plans)
        ratio = usd_per_h / for_items_usd if (for_items_usd := sum(p.usd_per_h_for_items for p in plans)) else 1.0
        both = sum(p.queries_of_both for p in plans)
        figures += [
            Figure(f"weight served with promises for requests, {name}", weight / for_items if for_items else 1.0, None,
                   "higher", "of that for items", f"{weight:g} and {for_items:g}"),
            Figure(f"cost with promises for requests, {name}", ratio, None, "lower", "times that for items",
                   f"of plans for the {both} queries that both serve"),
        ]  # fmt: skip
    rows: Rows = [{"part": "caution", "application": name} | asdict(p) for name, plans in named.items() for p in plans]
    return figures, rows


def _caution(state: Path, seed: int) -> list[Caution]:
    return [caution(Application.random(seed, state))]


def _mean(values: Iterable[Any]) -> float:
    return float(np.mean(list(values) or [np.nan]))


BENCHMARK = Benchmark(
    options=(
        Option("runs", 500, "profiling runs of each shape of scores", quick=10),
        Option("applications", 90, "random applications whose advice and rejections are followed", quick=4),
        Option("changes", 300, "random changes of a specification", quick=20),
        Option("examples", _EXAMPLES, "applications with real operators", quick=("starter",), choices=_EXAMPLES),
        Option("variants", 2, "stricter variants of each of these whose advice is followed", quick=2),
        Option("duration", 20.0, "seconds of each of five load tests", quick=3.0),
        Option("profile_s", 120.0, "seconds of profiling each real pipeline", quick=10.0),
        Option("jobs", os.cpu_count() or 1, "number of processes"),
    ),
    parts=(
        Part("accuracy", with_figures_before(lambda o, console: accuracy_part(o.runs, o.jobs, console)), ("runs",)),
        Part("advice", with_figures_before(advice_part), ("applications", "examples", "variants", "profile_s")),
        Part("incumbent", with_figures_before(incumbent_part), ("changes",)),
        Part("rejections", with_figures_before(rejections_part), ("applications",)),
        Part("caution", caution_part, ("applications", "examples", "profile_s")),
        Part(
            "kept",
            with_figures_before(lambda o, console: kept_part(o.examples, o.duration, o.profile_s, o.state, console)),
            ("examples", "duration", "profile_s"),
        ),
    ),
)
