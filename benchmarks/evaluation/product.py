"""The product in a contest: `circinus profile` on the recorded seconds, then `circinus plan`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.evaluation.contest import Contest, Planned
from circinus.matching import MatchSettings, plan_all_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import PipelineProfile, SimulatedClock, TraceBackend, profile_pipeline


@dataclass(frozen=True)
class Product:
    """Circinus with its default settings, or with parts of it left out."""

    name: str = "Circinus"
    tiers: tuple[str, ...] | None = None
    description: str = __doc__
    settings: MatchSettings = field(default_factory=MatchSettings)

    def plan(self, contest: Contest, seed: int) -> Planned:
        """Profile the pipelines one after another, then plan all queries."""
        profiles, seconds = self._profiled(contest, seed)
        begin_s = time.perf_counter()
        matching, _ = plan_all_queries(contest.specification, profiles, settings=self.settings, explain_rejections=())
        planning_s = time.perf_counter() - begin_s
        touched = sum(len(profile.configurations) for profile in profiles.values())
        return Planned(matching, seconds, planning_s, planning_s, touched)

    def _profiled(self, contest: Contest, seed: int) -> tuple[Mapping[str, PipelineProfile], float]:
        profiles, seconds = {}, 0.0
        with tempfile.TemporaryDirectory(prefix="circinus-contest-") as folder:
            for name, trace in contest.traces.items():
                clock = SimulatedClock()
                profiles[name] = profile_pipeline(
                    contest.specification,
                    name,
                    Path(folder) / "store.sqlite",
                    seed=seed,
                    source=TraceBackend(trace, clock),
                    explorer=make_sampler(contest.specification, name),
                )
                seconds += clock()
        return profiles, seconds
