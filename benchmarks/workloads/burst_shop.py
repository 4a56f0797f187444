"""Workload of a small shop whose only server is almost full, for bursts and killed controllers.

The reader has a large and a small model. The small one suffices for two queries, but the replica of the large one that
the third query needs has capacity for all. Five times the planned rates exceed the capacity of two such replicas.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.api.plan_context import LoadedPlan, load_plan
from circinus.api.traffic_items import select_traffic_items
from circinus.control.ladders.standby import StandbyReplicas, plan_standby
from circinus.control.managed_plans import ManagedPlans
from circinus.operators import Item
from circinus.profiling import record_for_replay
from circinus.serving import DesiredState, Mode
from circinus.serving.desired_state import build_desired_state
from circinus.specification import configurations

STEP, APPLIED, BEGAN = "step", "applied", "began"
"""Kinds of events in the output of `circinus serve --json`."""
PIPELINE = "reading"
PEAK = 5.0
"""Rate of a burst relative to the planned rates."""
_ITEMS = 16
_PIPELINE = """
apiVersion: circinus/v1
kind: Pipeline
metadata:
  name: reading
spec:
  operators:
    - name: crop
      uses: fixed_time_reader:crop
      cpus: 0.1
    - name: read
      uses: fixed_time_reader:Read
      after: crop
      knobs:
        model: [small, large]
  metric:
    name: pages read rightly
    uses: fixed_time_reader:equal
  dataset:
    uses: fixed_time_reader:pages
"""
INFRASTRUCTURE = """
apiVersion: circinus/v1
kind: Infrastructure
metadata:
  name: shop
spec:
  sites: [till, backroom]
  pools:
    - name: server
      site: backroom
      tier: edge
      nodes: {nodes}
      cpus: 2
      memory: 8GiB
      hardware: {{class: mini-pc, relative_speed: 1}}
      price: $0.08/h
  links:
    - {{from: till, to: backroom, bandwidth: 100Mbit/s, round_trip: 2ms}}
"""
"""Template of a shop with `nodes` nodes."""
_QUERY = """
apiVersion: circinus/v1
kind: Query
metadata:
  name: {name}
spec:
  pipeline: reading
  source: {source}
  rate: {rate}/s
  slos: [latency p95 <= {latency}, accuracy >= {accuracy}]
---
"""
_QUERIES = (
    {"name": "receipts", "source": "till", "rate": 2, "latency": "600ms", "accuracy": 0.9},
    {"name": "search", "source": "till", "rate": 4.5, "latency": "500ms", "accuracy": 0.8},
    {"name": "stock", "source": "backroom", "rate": 3.5, "latency": "800ms", "accuracy": 0.8},
)


@dataclass(frozen=True, eq=False)
class Scene:
    """A plan file, with recordings of all configurations."""

    folder: Path
    opened: LoadedPlan
    ready: StandbyReplicas
    items: Sequence[Item]

    @property
    def plan_file(self) -> Path:
        """Plan file for `circinus serve`."""
        return self.folder / "plan.json"

    @property
    def rates_per_s(self) -> Mapping[str, float]:
        """Planned rate of each query."""
        return {query.name: query.rate_per_s for query in self.opened.specification.queries}

    @property
    def limits_s(self) -> Mapping[str, float]:
        """Latency limit of each query."""
        slos = {query.name: query.slos.latency for query in self.opened.specification.queries}
        return {name: slo.limit_s for name, slo in slos.items() if slo is not None}

    def controlled(self, dwell_s: float) -> ManagedPlans:
        """Return the managed plans as `circinus serve --standby-factor` creates them from the plan file."""
        opened = self.opened
        return ManagedPlans(
            matching=opened.plan_set.matching,
            specification=opened.specification,
            deployments=self.ready.deployments,
            mode=Mode.REPLAY,
            recordings=opened.store.resolve(),
            code_versions=opened.plan_set.code_versions,
            dwell_s=dwell_s,
            peak=PEAK,
        )

    def planned(self, extra: StandbyReplicas | None = None) -> DesiredState:
        """Return the desired state of `circinus apply`, or that of the same plans with other replicas."""
        opened = self.opened
        return build_desired_state(
            opened.plan_set.matching,
            opened.specification,
            Mode.REPLAY,
            opened.store.resolve(),
            opened.plan_set.code_versions,
            deployments=None if extra is None else extra.deployments,
        )


def prepared(folder: Path) -> Scene:
    """Profile, plan and record in an empty folder, in less than a minute.

    Raises:
        RuntimeError: a step failed, or the plans do not suit the benchmark.
    """
    shutil.copy(Path(__file__).with_name("fixed_time_reader.py"), folder)
    queries = "".join(_QUERY.format(**query) for query in _QUERIES)
    shop = INFRASTRUCTURE.format(nodes=2)
    for name, text in (("pipeline", _PIPELINE), ("infrastructure", shop), ("queries", queries)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    _circinus(folder, "profile", "--budget", "60s")
    _circinus(folder, "plan")
    opened = load_plan(folder / "plan.json", needs_store=True)
    specification, matching, seed = opened.specification, opened.plan_set.matching, opened.plan_set.seed
    assert specification.infrastructure is not None, "a plan has an infrastructure"
    ready = plan_standby(matching, specification.infrastructure, PEAK)
    if not ready.extra or ready.queries_without_room:
        raise RuntimeError(f"no plan has a fallback configuration: {ready}")
    all_configurations = list(configurations(specification.pipelines[PIPELINE]))
    record_for_replay(
        specification, PIPELINE, opened.store, configurations=all_configurations, items_count=_ITEMS, seed=seed
    )
    items = select_traffic_items(specification, matching, opened.store, _ITEMS, Mode.REPLAY, seed)
    return Scene(folder, opened, ready, items[PIPELINE])


def _circinus(folder: Path, *arguments: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "circinus", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"circinus {' '.join(arguments)} failed: {run.stderr.strip() or run.stdout.strip()}")
