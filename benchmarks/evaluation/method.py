"""Sections of the evaluation's page on workloads, infrastructure and files, and the page of the other planners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.baselines.planners import BASELINES, PUBLISHED
from benchmarks.baselines.planners.query_plans import TARGETS
from benchmarks.evaluation import workloads
from benchmarks.evaluation.workloads import TIGHTNESS
from benchmarks.harness.markdown import number, table
from benchmarks.workloads.published.queries import WEIGHTS
from benchmarks.workloads.published.sites import PLACES, infrastructure
from circinus.specification import Link, Pool

FILES = {
    "speech-voices/configs.csv": "75af7212561f",
    "speech-voices/wer_per_item.parquet": "33fe0f67e916",
    "speech-libri/configs.csv": "609d630ee515",
    "video-nuscenes/configs.csv": "c5c6a904cea6",
    "video-nuscenes/map50_per_batch.csv": "0f2f143e14e7",
    "load/azure-conversation.parquet": "46fa8375c921",
    "load/azure-code.parquet": "ba7e37e6426b",
    "load/uplinks.parquet": "b4f37646586b",
    "llm-silicon/deployments.parquet": "f2f13176367a",
}
"""File of the published traces -> first digits of its SHA-256."""
_ROWS = {
    "speech-voices/configs.csv": "a configuration: seconds and bytes of each operator, mean word error rates",
    "speech-voices/wer_per_item.parquet": "a recording: its conditions, and its word error rate by configuration",
    "speech-libri/configs.csv": "a configuration",
    "video-nuscenes/configs.csv": "a configuration: seconds and bytes of both operators, mAP50",
    "video-nuscenes/map50_per_batch.csv": "a batch of 64 images: its mAP50 by model",
    "load/azure-conversation.parquet": "a request: its time",
    "load/azure-code.parquet": "a request: its time",
    "load/uplinks.parquet": "a change of an uplink: its time and Mbit/s",
    "llm-silicon/deployments.parquet": "a deployment: its parameters, TTFT and TPOT",
}

_WORKLOADS = """## Workloads

{described}
Queries have a weight of {weights}, drawn alike. A latency limit is a multiple of the tightest that any plan guarantees:
{limits}.

Four places have these pools and links; `sites` and `traffic` have twenty. Speeds, memory and bandwidths are those of
the published traces, **prices are assumptions**: costs in other tiers than the cloud depend on them.

"""
_REPRODUCE = """## Reproduce

`make test` sets up `.venv`. `.venv/bin/python -m benchmarks evaluation` then takes {minutes:.0f} minutes on {cpus}
processors with {memory:.0f} GiB of memory, and writes the result file, these pages and the lines of the README. An
interrupted run goes on after the last part that it finished, at the same commit without changes. `--quick` has one
contest and takes about three minutes; `--only goodput` runs one part.

`meeting` and `documents` are in this repository; without the published traces, goodput is that of these two, and parts
that need traces are skipped. The traces are published values as tables, each row as below, in the folder that the
environment variable `CIRCINUS_TRACES` names (by default `../shared/traces`). Their repositories keep them in other
formats.

"""
_PLANNERS = """# Other planners in the evaluation

The planners beside Circinus in the [evaluation](evaluation.md), after what was published about them, with what was
simplified in each. {published} are published planners; the others are the planner of the Circinus paper, Optuna, and
choices as people make them by hand. Their code is ours, in `benchmarks/baselines/planners`.

Where a method ignores an objective, plans that it can itself see to miss it are left out, and nothing is placed on a
full node. Both help it. Replicas are utilized up to {high:.0%}, and {low:.0%} by Optuna + greedy and paper-style
where waits at {high:.0%} are too long; InferLine-style sizes them in a simulation. Circinus plans with the same two
targets, and then raises them to at most {most:.0%} where all objectives still hold, which is up to {gain:.0%} more
capacity at saturation. Vulcan-style, JellyBean-style, InferLine-style and choices by hand admit queries in order of
arrival, the others by weight.

"""


def workloads_section() -> str:
    """Return the section on pipelines, queries and infrastructure."""
    limits = "; ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in TIGHTNESS.items())
    *weights, heaviest = (f"{weight:g}" for weight in WEIGHTS)
    described = _text(workloads.__doc__)
    head = _WORKLOADS.format(described=described, weights=f"{', '.join(weights)} or {heaviest}", limits=limits)
    return head + table(
        ("tier", "pools", "nodes each", "CPUs a node", "speed", "memory a node", "$/h a node", "uplink"),
        _tiers(),
    )


def _tiers() -> Iterator[tuple[str, ...]]:
    places = infrastructure(PLACES)
    uplinks = {link.source: link for link in places.links}
    by_tier: dict[str, list[Pool]] = {}
    for pool in places.pools:
        by_tier.setdefault(pool.tier, []).append(pool)
    for tier, pools in by_tier.items():
        pool, uplink = pools[0], uplinks.get(pools[0].site)
        yield (
            tier,
            str(len(pools)),
            str(pool.nodes),
            number(pool.cpus),
            number(pool.hardware.speed),
            f"{number(pool.memory_bytes / 2**20)} MiB",
            number(pool.price_usd_per_h),
            "-" if uplink is None else _uplink_text(uplink),
        )


def _uplink_text(link: Link) -> str:
    return f"{number(link.bandwidth_bytes_per_s / 1e6)} MB/s, {number(1000 * link.round_trip_s)} ms round trip"


def reproduce_section(document: Mapping[str, Any]) -> str:
    """Return the section on what a run takes.

    Args:
        document: the result file.
    """
    machine = document["machine"]
    head = _REPRODUCE.format(
        minutes=document["wall_s"] / 60, cpus=machine.get("cpus", 0), memory=machine.get("memory_gib", 0.0)
    )
    rows = ((f"`{file}`", _ROWS[file], f"`{digest}`") for file, digest in FILES.items())
    return head + table(("file", "a row is", "SHA-256 begins"), rows)


def planners_page() -> str:
    """Return the page on the other planners."""
    sections = [(planner.name, _text(planner.description)) for planner in BASELINES]
    shared: dict[str, list[str]] = {}
    for name, text in sections:
        shared.setdefault(text, []).append(name)
    (high, low), most = TARGETS, infrastructure(PLACES).max_utilization
    count = f"{len(PUBLISHED)} of the {len(BASELINES)}"
    head = _PLANNERS.format(published=count, high=high, low=low, most=most, gain=most / high - 1)
    return head + "\n".join(f"## {', '.join(names)}\n\n{text}" for text, names in shared.items())


def _text(docstring: str | None) -> str:
    """Return a docstring as lines, the last one with its end."""
    return f"{(docstring or '').strip()}\n"
