"""Ablations: the product with one mechanism at a time replaced by its plain counterpart, judged like all planners.

Each row replaces one collaborator, or sets the one setting that switches the mechanism off; see `counterparts`. Rows
about planning start from the measurements of the complete product. The ladder is in no row: plans that are made once
never step. `python -m benchmarks serving` measures it under bursts, and the day of the controller with and without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from rich.console import Console

from benchmarks.evaluation import counterparts as plain
from benchmarks.evaluation.contest import Contest
from benchmarks.evaluation.outcomes import in_two_processes, outcome, span, spread
from benchmarks.evaluation.product import Product, Profiled
from benchmarks.evaluation.workloads import contests
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.markdown import table
from benchmarks.harness.results import FOLDER, Figure
from circinus.estimation import stage_latency
from circinus.matching import MatchSettings, admission, optimizer, plan_all
from circinus.matching import search as matching_search
from circinus.planning.sampler import sampler
from circinus.planning.sampler.kernel import KnobKernel
from circinus.profiling import profiler
from circinus.profiling.race import configuration_race, run_confidence
from circinus.profiling.store import profile_loader
from circinus.queueing import station_model
from circinus.queueing.waiting_time import WaitDistribution
from circinus.statistics import covariates

PART = "ablations"
NOTHING, AGAIN = "nothing", "nothing, once more"
"""Names of the complete product's rows, and of those of a second run, which differ by chance."""
LOAD = 1.5
"""Load: more than can be served."""
WORKLOADS = ("speech", "speech-voices", "video-nuscenes")
TRANSFER_SEEDS = 3
"""Number of seeds of each contest of several pipelines, in which only transfer is left out."""
SAME = 0.01
"""Relative difference below which two medians count as equal."""


@dataclass(frozen=True)
class Ablation:
    """A mechanism to leave out."""

    mechanism: str
    instead: str
    replacements: tuple[tuple[Any, str, Any], ...] = ()
    """(module or class, attribute, plain counterpart): each place where the mechanism's collaborator is named."""
    settings: MatchSettings = field(default_factory=MatchSettings)
    in_profiling: bool = False
    """Whether profiling differs, too."""
    has_own_pipelines: bool = False
    """Whether no two queries share a deployment."""

    def row(self, contest: Contest, profiled: Profiled, seed: int) -> dict[str, Any]:
        """Return what is reached without the mechanism.

        Args:
            contest: of the complete product.
            profiled: measurements of the complete product; unused if profiling differs.
            seed: of profiling and of the judge.
        """
        product = Product(settings=self.settings)
        with ExitStack() as stack:
            for owner, attribute, counterpart in self.replacements:
                stack.enter_context(mock.patch.object(owner, attribute, counterpart))
            if self.in_profiling:
                profiled = product.profiled(contest, seed)
            measured = profiled.touched
            if self.has_own_pipelines:
                contest, profiles = plain.with_own_pipelines(contest, profiled.profiles)
                profiled = replace(profiled, profiles=profiles)
            planned = replace(product.planned(contest.specification, profiled), touched=measured)
        return {"part": PART, "without": self.mechanism, **outcome(contest, planned, seed)}


WHOLE = Ablation(NOTHING, "")
ABLATIONS = {
    ablation.mechanism: ablation
    for ablation in (
        Ablation(AGAIN, "measured and planned again: what differs is chance", in_profiling=True),
        Ablation(
            "plan similarity",
            "scores of other configurations say nothing about a configuration",
            (
                (KnobKernel, "logarithms", plain.unrelated_logarithms),
                (KnobKernel, "slopes", plain.unrelated_slopes),
            ),
            in_profiling=True,
        ),
        Ablation(
            "pairing",
            "mean scores are compared as if each configuration had its own items",
            ((sampler, "estimate_mean_scores", plain.unpaired_means),),
            in_profiling=True,
        ),
        Ablation(
            "strata",
            "all items are one stratum",
            ((run_confidence, "one_hot_strata", plain.no_strata), (covariates, "request_strata", plain.one_stratum)),
            in_profiling=True,
        ),
        Ablation(
            "early stop",
            "each configuration that is started is measured on all items",
            ((configuration_race, "look_schedule", plain.whole_data_set),),
            in_profiling=True,
        ),
        Ablation(
            "transfer",
            "each pipeline is profiled without the measurements of related ones",
            (
                (profiler, "load_source_scores", plain.no_sources),
                (profile_loader, "load_source_scores", plain.no_sources),
            ),
            in_profiling=True,
        ),
        Ablation(
            "prices",
            "the heaviest query first, on the cheapest plan that still fits",
            (
                (optimizer, "_solver", lambda *_: plain.FirstFitSolver()),
                (matching_search, "MilpSolver", lambda **_: plain.FirstFitSolver()),
                (matching_search, "generate_columns", plain.without_columns),
            ),
        ),
        Ablation("sharing", "each query has its own replicas", has_own_pipelines=True),
        Ablation("splitting", "all requests of a query take one plan", settings=MatchSettings(divides_requests=False)),
        Ablation(
            "queueing",
            "latencies without waits, at the same utilization targets",
            (
                (WaitDistribution, "at", plain.no_waits),
                (stage_latency, "_shared_longest_times", stage_latency._longest_times),  # without the cached waits
                (station_model, "_response", station_model._response.__wrapped__),
            ),
        ),
        Ablation(
            "verification",
            "uncertain latencies are taken from formulas, not from a simulation",
            (
                (plan_all, "check_by_simulation", plain.trusting_check),
                (admission, "check_by_simulation", plain.trusting_check),
            ),
        ),
    )
}


def ablations(seed: int, names: Sequence[str], console: Console) -> PartResult:
    """Leave out one mechanism after another in each contest.

    Args:
        seed: of the contests, and the first one of repeated runs.
        names: of the workloads.
        console: of the progress.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """

    def report(own: Rows) -> None:
        shown = (f"without {row['without']} {row['goodput']:g} of {row['promised']:g}" for row in own)
        console.print(f"{own[0]['contest']}: {'; '.join(shown)}", highlight=False)

    jobs = (
        (rows_of, (contest, mechanisms, seed + number))
        for name in names
        for contest in contests(name, (LOAD,), seed)
        for mechanisms in _groups(contest)
        for number in range(TRANSFER_SEEDS if "transfer" in mechanisms else 1)
    )
    rows = in_two_processes(jobs, report)
    return list(figures(rows)), rows


def _groups(contest: Contest) -> Iterator[tuple[str, ...]]:
    """Yield the mechanisms of each job; transfer, which alone needs several pipelines, is left out of these only."""
    if len(contest.traces) > 1:
        yield NOTHING, "transfer"
        return
    yield NOTHING, *(name for name, ablation in ABLATIONS.items() if not ablation.in_profiling)
    yield tuple(name for name, ablation in ABLATIONS.items() if ablation.in_profiling and name != "transfer")


def rows_of(contest: Contest, mechanisms: Sequence[str], seed: int) -> Rows:
    """Return what the product reaches without each of some mechanisms; see `Ablation.row`."""
    chosen = [ABLATIONS.get(name, WHOLE) for name in mechanisms]
    in_profiling = all(ablation.in_profiling for ablation in chosen)
    profiled = Profiled({}) if in_profiling else Product().profiled(contest, seed)
    return [ablation.row(contest, profiled, seed) for ablation in chosen]


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield what is reached without each mechanism, and how long is measured then, relative to the complete product."""
    for mechanism, pairs in _pairs(rows).items():
        goodput = [_relative(row, whole, "goodput") for whole, row in pairs]
        broken, served = (sum(row[what] for _, row in pairs) for what in ("broken", "served"))
        if mechanism == AGAIN:
            yield Figure("goodput of a second run over that of the first, median", median(goodput), None, "higher",
                         "times", f"{spread(goodput)}; what differs is chance")  # fmt: skip
            continue
        note = f"{spread(goodput)}; broken without: {broken} of {served} queries"
        yield Figure(f"goodput without {mechanism} over that with it, median", median(goodput), 1.0, "lower", "times",
                     note)  # fmt: skip
        if ABLATIONS[mechanism].in_profiling:
            seconds = [_relative(row, whole, "profiled_s") for whole, row in pairs]
            yield Figure(f"profiled seconds without {mechanism} over those with it, median", median(seconds), 1.0,
                         "higher", "times", spread(seconds))  # fmt: skip


def _pairs(rows: Rows) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Return for each mechanism the rows of the complete product and of that without it, contest by contest."""
    whole = {(row["contest"], row["seed"]): row for row in rows if row["without"] == NOTHING}
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {name: [] for name in ABLATIONS}
    for row in rows:
        if row["without"] != NOTHING:
            pairs[row["without"]].append((whole[row["contest"], row["seed"]], row))
    return {name: own for name, own in pairs.items() if own}


def chance(rows: Rows) -> float:
    """Return the greatest share by which the goodput of a second run differs, of the result file's rows."""
    again = _pairs([row for row in rows if row.get("part") == PART]).get(AGAIN, ())
    return max((abs(_relative(row, whole, "goodput") - 1) for whole, row in again), default=0.0)


_HEAD = """## Ablations

The product without one mechanism at a time, in contests of {queries} queries at load {load:g}. Goodput, cost and
profiled seconds are those without the mechanism over those of the complete product, medians of {runs}. Cost is for
each unit of goodput. Decisions and plans have limits of time, so that runs differ by chance, too: by as much as the row
"nothing, once more" differs from 1. Transfer is left out in {transfers} of several pipelines, everything else in
contests of one.

"""


def _of_ladders(serving: Path) -> str:
    """Return what ladders keep on the simulated day, from the result file of another benchmark."""
    rows = json.loads(serving.read_text(encoding="utf-8"))["rows"]
    ways = {row["way"]: row for row in rows if row.get("part") == "day"}
    kept, fixed = ways["ladders alone"], ways["plans as they are"]
    parts = (("goodput_bursts", "in half hours with bursts"), ("goodput_whole_day", "on the whole day"))
    shares = " and ".join(f"{kept[key]:.0%} of the goodput {text} ({fixed[key]:.0%} without)" for key, text in parts)
    return (
        "\nLadders are in no row: they act while requests arrive, and plans that are made once never step. On the "
        f"simulated day of `python -m benchmarks serving`, ladders alone keep {shares}.\n"
    )


def section(rows: Rows, serving: Path = FOLDER / "serving.json") -> str:
    """Return the section of the page about these rows, in Markdown.

    Args:
        rows: of the result file.
        serving: result file of the benchmark that measures ladders.
    """
    rows = [row for row in rows if row.get("part") == PART]
    pairs = _pairs(rows)
    if not pairs:
        return ""
    queries = sorted({row["queries"] for row in rows})
    lines = list[tuple[str, ...]]()
    for name, own in sorted(pairs.items(), key=lambda item: item[0] == "transfer"):
        if name == "transfer" or not lines:
            whole = [row for row, _ in own]
            label = f"{NOTHING}, of several pipelines" if name == "transfer" else NOTHING
            lines.append(_line(label, "", [(row, row) for row in whole]))
        lines.append(_line(name, ABLATIONS[name].instead, own))
    idle = [name for name, own in pairs.items() if name != AGAIN and _pays_nothing(own)]
    says = f"\nNo gain is seen here, as no median is worse without it: {', '.join(idle)}.\n" if idle else ""
    head = (
        "left out",
        "instead",
        "goodput",
        "range",
        "broken",
        "cost",
        "profiled seconds",
        "measured",
        "planning seconds",
    )
    count = " to ".join(map(str, sorted({queries[0], queries[-1]})))
    runs, transfers = (_runs(len(pairs.get(name, ()))) for name in (AGAIN, "transfer"))
    intro = _HEAD.format(queries=count, load=LOAD, runs=runs, transfers=transfers)
    return f"{intro}{table(head, lines)}{says}{_of_ladders(serving)}"


def _runs(count: int) -> str:
    return f"{count} runs" if count != 1 else "1 run"


def _line(name: str, instead: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[str, ...]:
    goodput = [_relative(row, whole, "goodput") for whole, row in pairs]
    own = [row for _, row in pairs]
    return (
        name,
        instead,
        f"{median(goodput):.2f}",
        span(goodput),
        f"{sum(row['broken'] for row in own)} of {sum(row['served'] for row in own)}",
        f"{median(_cost(row) / _cost(whole) for whole, row in pairs):.2f}",
        f"{median(_relative(row, whole, 'profiled_s') for whole, row in pairs):.2f}",
        f"{median(row['touched'] for row in own):g}",
        f"{median(row['planning_s'] for row in own):.1f}",
    )


def _relative(row: dict[str, Any], whole: dict[str, Any], what: str) -> float:
    return float(row[what] / max(whole[what], 1e-9))


def _cost(row: dict[str, Any]) -> float:
    return float(max(row["usd_per_h"], 1e-9) / max(row["goodput"], 1.0))


def _pays_nothing(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    """Return whether no median is worse without the mechanism, nor are more promises broken."""
    goodput = median(_relative(row, whole, "goodput") for whole, row in pairs)
    dearer = median(_cost(row) / _cost(whole) for whole, row in pairs)
    longer = median(_relative(row, whole, "profiled_s") for whole, row in pairs)
    broken = [sum(one["broken"] for one in own) for own in zip(*pairs, strict=True)]
    return goodput >= 1 - SAME and max(dearer, longer) <= 1 + SAME and broken[1] <= broken[0]
