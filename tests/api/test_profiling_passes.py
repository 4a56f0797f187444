"""One budget of several pipelines: what each gets of it, on the clocks of traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import circinus as c
from circinus.operators import Item
from circinus.profiling import MeasurementTrace, PipelineProfile, SimulatedClock, TraceBackend
from circinus.profiling.measurement.runner import Measurement, MeasurementError, Runner
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Configuration
from cli_runner import as_a_new_process
from prepared import prepared_starter
from random_traces import random_trace, trace_pipeline


class FailingBackend(TraceBackend):
    """Trace whose first configuration fails, with the timeouts and the failures so far."""

    def __init__(self, trace: MeasurementTrace, clock: SimulatedClock) -> None:
        super().__init__(trace, clock)
        self._failing = trace.configurations[0]
        self.timeouts_s: list[float] = []
        self.failures = 0

    @contextmanager
    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> Iterator[Runner]:
        self.timeouts_s.append(timeout_s)
        with super().runner(keys, timeout_s=timeout_s) as runner:
            measure = runner.measure

            def measure_or_fail(configuration: Configuration, items: Sequence[Item]) -> Measurement:
                if configuration != self._failing:
                    return measure(configuration, items)
                self.failures += 1
                raise MeasurementError("failed", "slow", configuration, items[0].key, code="operator.failed")

            runner.measure = measure_or_fail  # type: ignore[method-assign]
            yield runner


class Trial:
    """Pipelines with so many items, which `profile` measures on simulated clocks; an item takes 16 s."""

    def __init__(self, folder: Path, **items: int) -> None:
        pipelines = {name: trace_pipeline().model_copy(update={"name": name}) for name in items}
        self._clocks = {name: SimulatedClock() for name in items}
        self.sources = {
            name: TraceBackend(random_trace(pipelines[name], count, seed=seed), self._clocks[name])
            for seed, (name, count) in enumerate(items.items())
        }
        self.workspace = c.Workspace(c.Specification.of(pipelines.values()), store=folder / "store")
        self.reported: list[str] = []

    def profile(self, budget_s: float) -> c.ProfileReport:
        return self.workspace.profile(
            budget=budget_s, sources=self.sources, on_profile=lambda report: self.reported.extend(report.profiles)
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


def test_passes_try_failures_once_and_have_the_timeout_of_the_whole_budget(tmp_path: Path) -> None:
    trial = Trial(tmp_path, slow=200, quick=2)
    source = FailingBackend(trial.sources["slow"].trace, SimulatedClock())
    trial.sources["slow"] = source
    report = trial.profile(580.0)
    assert source.timeouts_s == [580.0, 580.0]  # two passes
    assert source.failures == 1
    assert len(report["slow"].failed) == 1


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


def test_pipelines_that_share_operators_are_reported_with_all_measurements(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The second pipeline has an accuracy SLO, and so measures further items of the configurations of both."""
    application = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    reported: dict[str, dict[Configuration, int]] = {}

    def record(report: c.ProfileReport) -> None:
        reported.update({name: _items(profile) for name, profile in report.items()})

    with as_a_new_process((), application):
        specification = c.Workspace(".").specification
        pipeline, query = specification.pipelines["mend"], specification.queries[0]
        small = pipeline.model_copy(
            update={"dataset": pipeline.dataset.model_copy(update={"arguments": {"items": 40}})}
        )
        lax = query.slos.model_copy(update={"accuracy": None})
        strict = query.slos.replaced("accuracy", query.slos.accuracy.with_limit(0.9))
        both = replace(
            specification,
            pipelines={name: small.model_copy(update={"name": name}) for name in ("lax", "strict")},
            queries=tuple(
                query.model_copy(update={"name": name, "pipeline": name, "slos": slos})
                for name, slos in (("lax", lax), ("strict", strict))
            ),
        )
        workspace = c.Workspace(both, store=tmp_path / "store")
        report = workspace.profile(on_profile=record)
        stored = {name: _items(profile) for name, profile in workspace.profile_report().items()}
    assert reported == stored
    assert {name: _items(profile) for name, profile in report.items()} == stored
    assert stored["lax"] == stored["strict"]


def _items(profile: PipelineProfile) -> dict[Configuration, int]:
    return {measured.configuration: len(measured.items) for measured in profile.configurations}
