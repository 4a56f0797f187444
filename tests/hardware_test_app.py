"""Application with operators that are slower on some nodes by a known factor, on any machine."""

from __future__ import annotations

from pathlib import Path

from circinus.specification import (
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    Knob,
    LatencySlo,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Query,
    Slos,
    Specification,
)

NAP_S = 0.02
SLOWNESS = {"ahead": 4.0, "answer": 2.0}
"""Slowdown of each operator on nodes with POOL_SLOWNESS=1."""
ITEMS = 12

OPERATORS = f"""
import os
import pathlib
import time
from circinus.operators import Item, operator

SLOWNESS = {SLOWNESS!r} if os.environ.get("POOL_SLOWNESS") else dict.fromkeys({list(SLOWNESS)!r}, 1.0)

@operator
def ahead(value, *, effort: int):
    if os.environ.get("POOL_BROKEN") == str(effort):
        raise RuntimeError("this node cannot do that")
    if "POOL_GATE" in os.environ and effort == 2:
        gate = pathlib.Path(os.environ["POOL_GATE"])
        gate.with_suffix(".reached").write_text(os.environ["POOL_NODE"])
        while not gate.exists():
            time.sleep(0.05)
    time.sleep(effort * {NAP_S} * SLOWNESS["ahead"])
    return value + effort

@operator
def answer(value):
    time.sleep({NAP_S} * SLOWNESS["answer"])
    return value

def items():
    return [Item(f"i{{i}}", i, i) for i in range({ITEMS})]

def right(output, truth):
    return 1.0 - 0.01 * (output - truth)
"""


def hardware(name: str, speed: float | None = None) -> HardwareClass:
    return HardwareClass(**{"class": name}, relative_speed=speed)


def pool(name: str, of: HardwareClass, *, tier: str = "cloud", price: float = 0.0) -> Pool:
    return Pool(name=name, site="here", tier=tier, cpus=2, memory=4 * 2**30, hardware=of, price=price)


def pool_specification(folder: Path, *pools: Pool, limit_s: float | None = None) -> Specification:
    """Write the operators `ahead` and `answer` to `folder`, and return a specification of their pipeline."""
    (folder / "pool_operators.py").write_text(OPERATORS, encoding="utf-8")
    pipeline = Pipeline(
        name="naps",
        operators=(
            OperatorSpec(name="ahead", uses="pool_operators:ahead", knobs=(Knob(name="effort", choices=(1, 2)),)),
            OperatorSpec(name="answer", uses="pool_operators:answer", after=("ahead",)),
        ),
        metric=MetricSpec(name="right", uses="pool_operators:right"),
        dataset=DatasetSpec(uses="pool_operators:items", held_out=0.0),
    )
    latency = None if limit_s is None else LatencySlo(percentile=90, limit=limit_s)
    query = Query(name="q", pipeline="naps", source="here", rate_per_s=0.5, slos=Slos(latency=latency))
    return Specification(
        pipelines={"naps": pipeline},
        infrastructure=Infrastructure(name="all", sites=("here",), pools=pools) if pools else None,
        queries=(query,),
        module_paths=(folder,),
    )
