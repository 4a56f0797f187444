"""One budget of several pipelines: what each gets of it, on the clocks of traces."""

from __future__ import annotations

from pathlib import Path

import circinus as c
from circinus.profiling import SimulatedClock, TraceBackend
from random_traces import random_trace, trace_pipeline


class Trial:
    """Pipelines with so many items, which `profile` measures on simulated clocks; an item takes 16 s."""

    def __init__(self, folder: Path, **items: int) -> None:
        pipelines = {name: trace_pipeline().model_copy(update={"name": name}) for name in items}
        self._clocks = {name: SimulatedClock() for name in items}
        self._sources = {
            name: TraceBackend(random_trace(pipelines[name], count, seed=seed), self._clocks[name])
            for seed, (name, count) in enumerate(items.items())
        }
        self.workspace = c.Workspace(c.Specification.of(pipelines.values()), store=folder / "store")
        self.reported: list[str] = []

    def profile(self, budget_s: float) -> c.ProfileReport:
        return self.workspace.profile(
            budget=budget_s, sources=self._sources, on_profile=lambda report: self.reported.extend(report.profiles)
        )

    @property
    def took_s(self) -> list[float]:
        return [clock() for clock in self._clocks.values()]


def test_pipelines_go_on_with_what_later_ones_leave(tmp_path: Path) -> None:
    trial = Trial(tmp_path, slow=200, other=200, quick=2)
    report = trial.profile(600.0)
    slow_s, other_s, quick_s = trial.took_s
    assert quick_s < 100.0
    assert slow_s > 220.0
    assert other_s > 220.0
    assert 500.0 < slow_s + other_s + quick_s < 660.0
    assert list(report) == ["slow", "other", "quick"]
    assert sorted(trial.reported) == ["other", "quick", "slow"]
    spent = report["slow"].spent
    assert spent is not None
    assert slow_s == spent.operators_s + spent.loading_s + spent.other_s


def test_later_pipelines_get_what_earlier_ones_leave(tmp_path: Path) -> None:
    trial = Trial(tmp_path, quick=2, slow=200)
    trial.profile(400.0)
    quick_s, slow_s = trial.took_s
    assert slow_s > 0.9 * (400.0 - quick_s)
    assert trial.reported == ["quick", "slow"]


def test_no_pipeline_starves_where_the_first_takes_the_whole_budget(tmp_path: Path) -> None:
    """A start takes seconds, and the budget is shorter than one."""
    trial = Trial(tmp_path, first=20, second=20, third=20)
    report = trial.profile(1.0)
    assert trial.took_s[0] > 1.0
    assert all(sum(len(measured.items) for measured in profile.configurations) == 1 for profile in report.values())
