"""Workload with an edge site and a more expensive cloud that can each serve all requests, for the loss of nodes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from circinus.api.plan_context import load_plan
from circinus.api.plan_source import PlanFileSource
from circinus.serving import Mode

QUERY, LIMIT_S = "q", 1.0
RATE_PER_S = 26.0
"""Planned rate, which needs four replicas; one node has room for them."""
_REPLICAS = 4
HEAD, EDGE, CLOUD = "till", "edge", "cloud"
"""Pools. The one of the head, where requests enter, is too small for the operator."""
_SPECIFICATION = """
apiVersion: circinus/v1
kind: Pipeline
metadata:
  name: looking
spec:
  operators:
    - name: look
      uses: sleeping_operators:look
      cpus: 0.5
  metric:
    name: pages found
    uses: sleeping_operators:equal
  dataset:
    uses: sleeping_operators:pages
---
apiVersion: circinus/v1
kind: Infrastructure
metadata:
  name: shop
spec:
  sites: [till, backroom, center]
  pools:
    - name: till
      site: till
      tier: device
      nodes: 1
      cpus: 0.25
      memory: 1GiB
      hardware: {{class: mini-pc, relative_speed: 1}}
    - name: edge
      site: backroom
      tier: edge
      nodes: {edge_nodes}
      cpus: 2
      memory: 2GiB
      hardware: {{class: mini-pc, relative_speed: 1}}
      price: $0.01/h
    - name: cloud
      site: center
      tier: cloud
      nodes: 1
      cpus: 2
      memory: 2GiB
      hardware: {{class: mini-pc, relative_speed: 1}}
      price: $1/h
  links:
    - {{from: till, to: backroom, bandwidth: 100Mbit/s, round_trip: 2ms}}
    - {{from: till, to: center, bandwidth: 100Mbit/s, round_trip: 20ms}}
---
apiVersion: circinus/v1
kind: Query
metadata:
  name: {query}
spec:
  pipeline: looking
  source: till
  rate: {rate:g}/s
  slos: [latency p95 <= {limit:g}s]
"""


def lost_scene(folder: Path, edge_nodes: int) -> PlanFileSource:
    """Profile and plan in a folder, and return the plans as `circinus serve` loads them.

    Args:
        folder: an empty folder, or that of an earlier scene, whose plans are replaced.
        edge_nodes: number of nodes of the edge pool.

    Raises:
        RuntimeError: a step failed, or the plans do not suit the benchmark.
    """
    shutil.copy(Path(__file__).with_name("sleeping_operators.py"), folder)
    specification = _SPECIFICATION.format(edge_nodes=edge_nodes, query=QUERY, rate=RATE_PER_S, limit=LIMIT_S)
    (folder / "shop.yaml").write_text(specification, encoding="utf-8")
    for verb in (["profile", "--budget", "30s"], ["plan"]):
        run = subprocess.run(
            [sys.executable, "-m", "circinus", *verb], cwd=folder, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RuntimeError(f"circinus {verb[0]} failed: {run.stderr.strip() or run.stdout.strip()}")
    plans = PlanFileSource(load_plan(folder / "plan.json"), Mode.REAL, peak=1.0, dwell_s=10.0)
    planned = {sized.deployment.pool: sized.replicas for sized in plans.managed.deployments}
    if planned != {EDGE: _REPLICAS}:
        raise RuntimeError(f"plans must have {_REPLICAS} replicas on pool {EDGE}, got {planned}")
    return plans
