"""Processor seconds of plan, explain and admit, as whole processes, against those of `--help`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

import circinus as c
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import ROOT, Figure, records_table
from benchmarks.speed.processes import run_command

_COPIES = 7
"""Copies of the example's queries, pools' nodes and links' bandwidths; two more queries make a hundred."""
_REJECTED = "huddle-live-dubbing"
"""Query of the example that no plan serves."""
_ADMIT = "admit, dry run"


def commands_part(state: Path, profile_s: float, repeats: int, console: Console) -> PartResult:
    """Profile the meeting example, and time each command in turn."""
    folder = state / "meeting"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "examples" / "meeting", folder, ignore=shutil.ignore_patterns(".circinus", "__pycache__"))
    console.print(f"profiling the meeting example for {profile_s:g} s")
    run_command("profile", "--budget", f"{profile_s:g}s", folder=folder)
    (folder / "hundred").mkdir()
    (folder / "hundred" / "specification.yaml").write_text(_hundred_queries(folder).to_yaml(), encoding="utf-8")
    store = str(folder / ".circinus" / "profiles.sqlite")
    # Plans are not written over: a plan in force would be changed instead of made afresh.
    run_command("plan", "--output", "plan.json", folder=folder)
    first = c.load_specification([folder]).queries[0].name
    cases = {
        "help": ["--help"],
        "plan 14 queries": ["plan", "--output", "none.json"],
        "explain": ["explain", first],
        "explain of a rejected query": ["explain", _REJECTED],
        _ADMIT: ["admit", _REJECTED, "--dry-run"],
        "plan 100 queries": ["plan", "hundred", "--store", store, "--output", "none.json"],
    }
    rows: Rows = []
    for number in range(repeats + 1):  # the first runs compile and fill caches
        for name, arguments in cases.items():
            (folder / "none.json").unlink(missing_ok=True)
            times = run_command(*arguments, folder=folder, code=int(name == _ADMIT))
            if number:
                rows.append({"part": "commands", "case": name, "wall_s": times.wall_s, "cpu_s": times.cpu_s})
    of_case = {name: [row for row in rows if row["case"] == name] for name in cases}
    cpu_s = {name: median(row["cpu_s"] for row in found) for name, found in of_case.items()}
    wall_s = {name: median(row["wall_s"] for row in found) for name, found in of_case.items()}
    table = [{"command": name, "processor seconds": cpu_s[name], "seconds": wall_s[name]} for name in cases]
    console.print(records_table(table, "whole processes, medians"))
    note = f"processor seconds; --help takes {cpu_s['help']:.2f} s"
    figures = [
        Figure("plan of 14 queries relative to --help", cpu_s["plan 14 queries"] / cpu_s["help"], 4.0, "lower", "times",
               note),
        Figure("plan of 14 queries", cpu_s["plan 14 queries"], None, "lower", "s", "processor seconds"),
        Figure("explain relative to --help", cpu_s["explain"] / cpu_s["help"], 2.0, "lower", "times", note),
        Figure("explain", cpu_s["explain"], None, "lower", "s", "processor seconds"),
        *(Figure(name, cpu_s[name], None, "lower", "s", f"processor seconds; rejected, {wall_s[name]:.1f} s elapsed")
          for name in ("explain of a rejected query", _ADMIT)),
        Figure("plan of 100 queries", wall_s["plan 100 queries"], 8.0, "lower", "s",
               f"elapsed; {cpu_s['plan 100 queries']:.1f} processor seconds"),
    ]  # fmt: skip
    return figures, rows


def _hundred_queries(folder: Path) -> c.Specification:
    """Return the example seven times as large, with a hundred queries of other rates and latency limits."""
    small, rng = c.load_specification([folder]), np.random.default_rng(1)
    drawn = [query for _ in range(_COPIES) for query in small.queries] + list(small.queries[:2])
    queries = []
    for number, query in enumerate(drawn):
        slos = query.slos
        if slos.latency is not None:
            limit_s = slos.latency.limit_s * float(rng.uniform(0.8, 1.5))
            slos = slos.model_copy(update={"latency": slos.latency.model_copy(update={"limit_s": limit_s})})
        rate_per_s = query.rate_per_s * float(rng.uniform(0.6, 1.4))
        update = {"name": f"{query.name}-{number}", "rate_per_s": rate_per_s, "slos": slos}
        queries.append(query.model_copy(update=update))
    infrastructure = small.required_infrastructure
    pools = tuple(pool.model_copy(update={"nodes": _COPIES * pool.nodes}) for pool in infrastructure.pools)
    links = tuple(
        link.model_copy(update={"bandwidth_bytes_per_s": _COPIES * link.bandwidth_bytes_per_s})
        for link in infrastructure.links
    )
    larger = infrastructure.model_copy(update={"pools": pools, "links": links})
    return replace(small, queries=tuple(queries), infrastructure=larger)
