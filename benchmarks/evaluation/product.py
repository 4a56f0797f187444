"""The product in a contest: `circinus profile` on the recorded seconds, then `circinus plan`.

Decisions of profiling take the processor time that they take, as they do beside real measurements, so that they are
limited to their share of the time. That time counts as planning, with that of `circinus plan`.
"""

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
from circinus.specification import Specification


@dataclass(frozen=True)
class Profiled:
    """Profiles of all pipelines, and what they took."""

    profiles: Mapping[str, PipelineProfile]
    seconds: float = 0.0
    """Seconds of measurements."""
    deciding_s: float = 0.0
    """Wall time of decisions what to measure."""

    @property
    def touched(self) -> int:
        """Number of measured configurations."""
        return sum(len(profile.configurations) for profile in self.profiles.values())


class _Clock(SimulatedClock):
    """Recorded seconds of measurements, and processor time between them."""

    def __init__(self) -> None:
        super().__init__()
        self._begin_s = time.process_time()

    def __call__(self) -> float:
        return self.measured_s + time.process_time() - self._begin_s

    @property
    def measured_s(self) -> float:
        """Recorded seconds."""
        return super().__call__()


_DESCRIPTION = __doc__  # in a class, `__doc__` is its own


@dataclass(frozen=True)
class Product:
    """Circinus with its default settings, or with parts of it left out."""

    name: str = "Circinus"
    tiers: tuple[str, ...] | None = None
    description: str = _DESCRIPTION
    settings: MatchSettings = field(default_factory=MatchSettings)

    def plan(self, contest: Contest, seed: int) -> Planned:
        """Profile the pipelines one after another, then plan all queries."""
        return self.planned(contest.specification, self.profiled(contest, seed))

    def planned(self, specification: Specification, profiled: Profiled) -> Planned:
        """Plan all queries."""
        answered_s, begin_s = list[float](), time.perf_counter()
        matching, _ = plan_all_queries(
            specification,
            profiled.profiles,
            settings=self.settings,
            explain_rejections=(),
            observer=lambda *_: answered_s.append(time.perf_counter() - begin_s),
        )
        planning_s = time.perf_counter() - begin_s
        return Planned(
            matching,
            profiled.seconds,
            profiled.deciding_s + min([*answered_s, planning_s]),
            profiled.deciding_s + planning_s,
            profiled.touched,
        )

    def profiled(self, contest: Contest, seed: int) -> Profiled:
        """Profile the queried pipelines one after another, with one store."""
        profiles, measured_s, begin_s = {}, 0.0, time.perf_counter()
        queried = {query.pipeline for query in contest.specification.queries}
        with tempfile.TemporaryDirectory(prefix="circinus-contest-") as folder:
            for name, trace in contest.traces.items():
                if name not in queried:
                    continue
                clock = _Clock()
                profiles[name] = profile_pipeline(
                    contest.specification,
                    name,
                    Path(folder) / "store.sqlite",
                    seed=seed,
                    source=TraceBackend(trace, clock),
                    explorer=make_sampler(contest.specification, name),
                )
                measured_s += clock.measured_s
        return Profiled(profiles, measured_s, time.perf_counter() - begin_s)
