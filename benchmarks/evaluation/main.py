"""Circinus and other planners on the same queries, and on deployments that others measured."""

from __future__ import annotations

from rich.console import Console

from benchmarks.evaluation import ablations as left_out
from benchmarks.evaluation import sensitivity as varied
from benchmarks.evaluation.goodput import CASES, QUICK, goodput
from benchmarks.evaluation.growth import COUNTS, growth
from benchmarks.evaluation.llm_deployments import llm_deployments
from benchmarks.evaluation.page import write_page
from benchmarks.evaluation.workloads import available
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult

_HERE = available()


def _goodput(options: Options, console: Console) -> PartResult:
    cases = QUICK if options.quick else CASES
    return goodput([case for case in cases if case.workload in options.workloads], options.seed, console)


BENCHMARK = Benchmark(
    options=(
        Option(
            "workloads",
            tuple(dict.fromkeys(case.workload for case in CASES if case.workload in _HERE)),
            "workloads of goodput; without the published traces, those of the examples",
            quick=tuple(case.workload for case in QUICK if case.workload in _HERE)[:1],
        ),
        Option("seed", 0, "seed of all that is drawn"),
        Option("counts", COUNTS, "numbers of queries that are planned", quick=(1, 10)),
        Option("ablated", left_out.WORKLOADS, "workloads without one mechanism at a time"),
        Option("varied", varied.WORKLOADS, "workloads that are varied"),
        Option("repetitions", 10, "number of seeds of one contest, for an interval"),
        Option("cells", 75, "number of cells of LLM deployments", quick=8),
    ),
    parts=(
        Part("goodput", _goodput, ("seed", "workloads")),
        Part("growth", lambda o, console: growth(o.counts, o.seed, console), ("seed", "counts")),
        Part(
            "ablations",
            lambda o, console: left_out.ablations(o.seed, o.ablated, console),
            ("seed", "ablated"),
            quick=False,
        ),
        Part(
            "sensitivity",
            lambda o, console: varied.sensitivity(o.repetitions, o.varied, console),
            ("varied", "repetitions"),
            quick=False,
        ),
        Part("llm-deployments", lambda o, console: llm_deployments((o.seed,), o.cells, console), ("seed", "cells")),
    ),
    page=write_page,
    note="Needs the published traces, in the folder that CIRCINUS_TRACES names. The whole takes 80 minutes on two slow "
    "cores, and writes docs/evaluation.md and its lines of README.md again. --quick has one contest of goodput.",
)
