"""Cheapest LLM deployment with TTFT <= a and TPOT <= b, among deployments that were measured and published elsewhere.

A measurement of a deployment shows its TTFT, its TPOT and, by its batch and GPUs, its GPU-seconds a token. The product
(`profile_pipeline` with its sampler, then `plan_queries`) measures until it is certain: nothing unmeasured is likely to
be noticeably cheaper, by its default of 5 %. The others are at the number of measurements that the product took:

- *random*: in random order. Only certain with all measurements, as nothing else excludes a cheaper one.
- *Optuna TPE*: with constraints, see `tpe_order`. It never gets certain, either.
- *model, unmeasured*: an estimate of both times, each 30 % off (log-normal, seeded); its choice is not measured.
- *model, until one holds*: measures in the order of the model's choices until both limits hold.
- *model, equal*: measures in this order, but as often as the product. Unlike all others above it begins with an
  estimate of each deployment, so it shows what a model that is made for these systems is worth.

The limits (a, b) are drawn for each cell by its name and the seed: for each level, from tight to loose, a quantile of
the cell's TTFT and one of its TPOT, each at most `SCATTER` from the level. A pair must hold for some but not all
deployments; otherwise it is drawn again, each time from a range that is a tenth of the first one wider.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.baselines.deployment_search import Choice, Task, measured_in, model_order, tpe_order
from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.markdown import table as markdown_table
from benchmarks.harness.results import Figure
from benchmarks.workloads.published.deployment_pipeline import QUERY, configurations, specification, trace
from benchmarks.workloads.published.deployments import Cell, read_cells
from benchmarks.workloads.published.speech import traces_folder
from circinus.arrays import FloatArray
from circinus.planning import plan_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import SimulatedClock, TraceBackend, profile_pipeline

PART = "llm-deployments"
OURS, RANDOM, TPE = "Circinus", "random", "Optuna TPE"
UNMEASURED, UNTIL_HELD, MODEL = "model, unmeasured", "model, until one holds", "model, equal"
LEVELS = {"tight": 0.2, "medium": 0.5, "loose": 0.8}
SCATTER = 0.15
CLOSE = 1.05
"""Cost over the optimum's within which the product may stop."""


def llm_deployments(seeds: Iterable[int], cells: int, console: Console) -> PartResult:
    """Let all methods look for the cheapest deployment of each cell.

    Args:
        seeds: seeds of the limits, the random orders and the model's errors.
        cells: number of cells, evenly spaced by name; all if there are fewer.
        console: for the table.

    Raises:
        TracesAbsentError: the published deployments are not on this machine.
    """
    published = read_cells(traces_folder())
    picked = sorted(set(np.linspace(0, len(published) - 1, min(cells, len(published))).round().astype(int).tolist()))
    jobs = [(published[index], seed) for seed in seeds for index in picked]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = [row for own in pool.map(rows_of, *zip(*jobs, strict=True)) for row in own]
    console.print(table(rows))
    return list(figures(rows)), rows


def rows_of(cell: Cell, seed: int) -> Rows:
    """Return the results of all methods for the limits of a cell."""
    rows: Rows = []
    for level in LEVELS:
        rng = np.random.default_rng([zlib.crc32(cell.name.encode()), seed, list(LEVELS).index(level)])
        task = drawn(cell, LEVELS[level], rng)
        ours = product_choice(task, seed)
        by_chance, by_model = rng.permutation(len(cell.values)), model_order(task, rng)
        until = int(task.feasible[by_model].argmax()) + 1
        others = {
            RANDOM: measured_in(task, by_chance, ours.measured),
            TPE: measured_in(task, tpe_order(task, ours.measured, seed), ours.measured),
            UNMEASURED: Choice(int(by_model[0]), 0, certain=False),
            UNTIL_HELD: measured_in(task, by_model, until),
            MODEL: measured_in(task, by_model, ours.measured),
        }
        best = task.cheapest(range(len(cell.values)))
        rows += [
            {
                "part": PART,
                "cell": cell.name,
                "level": level,
                "ttft_s": task.ttft_s,
                "tpot_s": task.tpot_s,
                "n": len(cell.values),
                "held_by": int(task.feasible.sum()),
                "method": method,
                "seed": seed,
                "measured": choice.measured,
                "certain": choice.certain,
                "right": choice.deployment == best,
                "feasible": choice.deployment is not None and bool(task.feasible[choice.deployment]),
                "cost_over_optimum": _cost_over(task, choice.deployment, best),
            }
            for method, choice in {OURS: ours, **others}.items()
        ]
    return rows


def _cost_over(task: Task, deployment: int | None, best: int | None) -> float | None:
    if deployment is None or best is None or not task.feasible[deployment]:
        return None
    return float(task.cell.gpu_seconds[deployment] / task.cell.gpu_seconds[best])


def drawn(cell: Cell, level: float, rng: np.random.Generator) -> Task:
    """Draw limits that some but not all deployments of a cell keep."""
    scatter = SCATTER
    while True:
        at = np.clip(level + rng.uniform(-scatter, scatter, 2), 0.0, 1.0)
        task = Task(cell, float(np.quantile(cell.ttft_s, at[0])), float(np.quantile(cell.tpot_s, at[1])))
        if 0 < task.feasible.sum() < len(cell.values):
            return task
        scatter += SCATTER / 10


def product_choice(task: Task, seed: int) -> Choice:
    """Return the product's choice: `circinus profile`, then the cheapest plan of `circinus plan`."""
    specified = specification(task.cell, task.ttft_s, task.tpot_s)
    (pipeline,) = specified.pipelines.values()
    with tempfile.TemporaryDirectory(prefix="circinus-deployments-") as folder:
        profile = profile_pipeline(
            specified,
            pipeline.name,
            Path(folder) / "store.sqlite",
            seed=seed,
            source=TraceBackend(trace(task.cell, pipeline), SimulatedClock()),
            explorer=make_sampler(specified, pipeline.name),
        )
    plans = plan_queries(specified, {pipeline.name: profile})[QUERY].candidates
    cheapest = min(plans, key=lambda plan: plan.estimate.cost_usd_per_h.lower, default=None)
    chosen = None if cheapest is None else configurations(task.cell).index(cheapest.plan.configuration)
    certain = profile.certificate is not None and profile.certificate.conclusive
    return Choice(chosen, len(profile.configurations), certain)


def figures(rows: Rows) -> Iterator[Figure]:
    """Yield the aims."""
    by_method = _by_method(rows)
    ours = by_method[OURS]

    def of_others(what: str) -> str:
        return "; ".join(f"{m} {_share(own, what):.0%}" for m, own in by_method.items() if m != OURS)

    note = f"{len({row['cell'] for row in rows})} cells, {len(ours)} pairs of limits"
    shares = [row["measured"] / row["n"] for row in ours]
    uncertain = sum(not row["certain"] for row in ours)
    yield Figure("LLM deployments: measured until certain, median", float(np.median(shares)), 0.5, "lower", "share",
                 f"{note}; {min(shares):.2f} to {max(shares):.2f}; {uncertain} never certain")  # fmt: skip
    right = _share(ours, "right")
    yield Figure("LLM deployments: cheapest chosen", right, None, "higher", "share", f"{note}; {of_others('right')}")
    best = max(_share(own, "right") for method, own in by_method.items() if method not in (OURS, MODEL))
    yield Figure("LLM deployments: cheapest chosen, minus the best other's without a model at equal measurements",
                 right - best, 0.0, "higher", "share", of_others("right"))  # fmt: skip
    yield Figure("LLM deployments: choice keeps both limits", _share(ours, "feasible"), 1.0, "higher", "share",
                 of_others("feasible"))  # fmt: skip
    close = float(np.mean(_costs(ours) <= CLOSE))
    yield Figure(f"LLM deployments: cost within {CLOSE - 1:.0%} of the optimum's", close, 0.95, "higher", "share", note)
    for label, quantile in (("median", 0.5), ("p90", 0.9)):
        costs = {m: _quantile(_costs(own), quantile) for m, own in by_method.items()}
        others = "; ".join(f"{m} {cost:.2f}" for m, cost in costs.items() if m != OURS)
        yield Figure(f"LLM deployments: cost over optimum, {label}", costs[OURS], CLOSE, "lower", "times", others)


_HEAD = ("method", "measured", "certain", "cheapest", "holds", "cost, median", "cost, p90")
_SECTION = """## Measured LLM deployments

The cheapest deployment within limits of the time to the first token (TTFT) and of the time per further token (TPOT),
among those that others measured and published: {cells} cells (a model, a system and lengths of prompt and answer) with
20 and more deployments, {pairs} pairs of limits. A method is *certain* once it has excluded every cheaper deployment;
its choice *holds* if it keeps both limits. "Model" is an estimate of both times that is 30 % off: its choice is not
measured, or choices are in its order until one holds, or as often as by Circinus. Medians of the measured share; costs
are over the optimum's, their median and 90th percentile; all else are shares of the pairs.

"""


def table(rows: Rows) -> Table:
    """Return a table of the methods."""
    shown = Table(*_HEAD, title="LLM deployments")
    for line in _lines(rows):
        shown.add_row(*line)
    return shown


def section(rows: Rows) -> str:
    """Return the section of the page about these rows, in Markdown."""
    rows = [row for row in rows if row.get("part") == PART]
    if not rows:
        return ""
    pairs = {(row["cell"], row["level"]) for row in rows}
    return _SECTION.format(cells=len({row["cell"] for row in rows}), pairs=len(pairs)) + markdown_table(
        _HEAD, _lines(rows)
    )


def _lines(rows: Rows) -> Iterator[tuple[str, ...]]:
    for method, own in _by_method(rows).items():
        measured, costs = float(np.median([row["measured"] / row["n"] for row in own])), _costs(own)
        shares = (f"{_share(own, what):.0%}" for what in ("certain", "right", "feasible"))
        yield method, f"{measured:.0%}", *shares, f"{_quantile(costs, 0.5):.2f}", f"{_quantile(costs, 0.9):.2f}"


def _by_method(rows: Rows) -> dict[str, Rows]:
    return {
        method: [row for row in rows if row["method"] == method] for method in dict.fromkeys(r["method"] for r in rows)
    }


def _share(rows: Rows, what: str) -> float:
    return float(np.mean([row[what] for row in rows]))


def _costs(rows: Rows) -> FloatArray:
    """Return costs over the optimum's, infinite where the choice does not hold."""
    return np.array([np.inf if (cost := row["cost_over_optimum"]) is None else cost for row in rows])


def _quantile(values: FloatArray, share: float) -> float:
    return float(np.quantile(values, share, method="higher"))
