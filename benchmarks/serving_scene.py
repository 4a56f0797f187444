"""A small company whose only server is nearly full: what bursts and killed controllers are measured on.

The starter application with its real operators, profiled on this machine. The server's hardware is as slow as it takes
for a request to last as long as with models, so that replaying keeps this machine nearly idle. At the planned rates one
replica of the accurate model serves all queries; five times as much is more than the server's CPUs could do with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.cli.opened_plan import OpenedPlan, open_plan
from circinus.cli.recording import record_plans
from circinus.cli.traffic_items import items_to_send
from circinus.control.controlled import Controlled
from circinus.control.standby import Standby, standby
from circinus.operators import Item
from circinus.profiling import load_profile
from circinus.serving import DesiredState, Mode
from circinus.serving.deploy import desired_state
from circinus.spec.document import load_specification

STEP, APPLIED, BEGAN = "step", "applied", "began"
"""Kinds of events, as `circinus serve --json` says them."""
PEAK = 5.0
"""Times the planned rates that come in a burst."""
_ACCURATE_S = 0.05
"""What the accurate model shall take on the server, in the mean."""
_ITEMS = 16
_PIPELINE = """
apiVersion: circinus/v1
kind: Pipeline
metadata:
  name: mend
spec:
  operators:
    - name: clean
      uses: starter.operators:clean
      cpus: 0.1
      knobs:
        lower: [true, false]
    - name: correct
      uses: starter.operators:Correct
      after: clean
      knobs:
        method: [first-letter, all]
        effort: {choices: [1, 2], ordered: true}
      batch_sizes: [1, 4]
  metric:
    name: word accuracy
    uses: starter.words:word_accuracy
    direction: maximize
    range: [0, 1]
  dataset:
    uses: starter.words:sentences
    arguments: {items: 120}
"""
_INFRASTRUCTURE = """
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
      nodes: 2
      cpus: 2
      memory: 8GiB
      hardware: {{class: mini-pc, relative_speed: {speed:.4f}}}
      price: $0.08/h
  links:
    - {{from: till, to: backroom, bandwidth: 100Mbit/s, round_trip: 2ms}}
"""
_QUERY = """
apiVersion: circinus/v1
kind: Query
metadata:
  name: {name}
spec:
  pipeline: mend
  source: {source}
  rate: {rate}/s
  slos: [latency p95 <= {latency}, accuracy >= {accuracy}]
---
"""
_QUERIES = (
    {"name": "receipts", "source": "till", "rate": 3, "latency": "600ms", "accuracy": 0.9},
    {"name": "search", "source": "till", "rate": 6, "latency": "500ms", "accuracy": 0.8},
    {"name": "stock", "source": "backroom", "rate": 4, "latency": "800ms", "accuracy": 0.8},
)


@dataclass(frozen=True, eq=False)
class Scene:
    """A plan file with all that it needs, recorded."""

    folder: Path
    opened: OpenedPlan
    ready: Standby
    items: Sequence[Item]

    @property
    def plan_file(self) -> Path:
        """For `circinus serve`."""
        return self.folder / "plan.json"

    @property
    def rates_per_s(self) -> Mapping[str, float]:
        """Query -> planned rate."""
        return {query.name: query.rate_per_s for query in self.opened.specification.queries}

    @property
    def limits_s(self) -> Mapping[str, float]:
        """Query -> what its latency may be."""
        found = {query.name: query.slos.latency for query in self.opened.specification.queries}
        return {name: slo.limit_s for name, slo in found.items() if slo is not None}

    def controlled(self, dwell_s: float) -> Controlled:
        """As `circinus serve --standby` makes it of the plan file."""
        opened = self.opened
        return Controlled(
            matching=opened.plan_set.matching,
            specification=opened.specification,
            deployments=self.ready.deployments,
            mode=Mode.REPLAY,
            recordings=opened.store.resolve(),
            code_versions=opened.plan_set.code_versions,
            dwell_s=dwell_s,
            peak=PEAK,
        )

    def planned(self, extra: Standby | None = None) -> DesiredState:
        """What `circinus apply` brings about, or the same plans with other replicas."""
        opened = self.opened
        return desired_state(
            opened.plan_set.matching,
            opened.specification,
            Mode.REPLAY,
            opened.store.resolve(),
            opened.plan_set.code_versions,
            deployments=None if extra is None else extra.deployments,
        )


def prepared(folder: Path) -> Scene:
    """Profile, plan and record in an empty folder: under a minute."""
    _circinus(folder, "init")
    (folder / "pipeline.yaml").write_text(_PIPELINE, encoding="utf-8")
    (folder / "queries.yaml").write_text("".join(_QUERY.format(**query) for query in _QUERIES), encoding="utf-8")
    infrastructure = folder / "infrastructure.yaml"
    infrastructure.write_text(_INFRASTRUCTURE.format(speed=0.06), encoding="utf-8")
    _circinus(folder, "profile", "--budget", "20s")
    infrastructure.write_text(_INFRASTRUCTURE.format(speed=_accurate_s(folder) / _ACCURATE_S), encoding="utf-8")
    _circinus(folder, "plan")
    opened = open_plan(folder / "plan.json", needs_store=True)
    matching, infra = opened.plan_set.matching, opened.specification.infrastructure
    assert infra is not None
    found = Scene(folder, opened, standby(matching, infra, PEAK), ())
    record_plans(opened, found.controlled(1.0).reachable(), _ITEMS)
    items = items_to_send(opened.specification, matching, opened.store, _ITEMS, Mode.REPLAY, opened.plan_set.seed)
    return Scene(folder, opened, found.ready, items["mend"])


def _accurate_s(folder: Path) -> float:
    """Mean seconds that the accurate model takes on this machine."""
    profile = load_profile(load_specification([folder]), "mend", folder / ".circinus" / "profiles.sqlite")
    seconds = [
        float(found.operators["correct"].service_s.mean())
        for found in profile.configurations
        if found.configuration["correct"].as_dict() == {"method": "all", "effort": 2}
    ]
    return max(seconds)


def _circinus(folder: Path, *arguments: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "circinus", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"circinus {' '.join(arguments)} failed: {run.stderr.strip() or run.stdout.strip()}")
