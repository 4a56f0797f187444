"""The trace runner: recorded results, exact accounts, and time that passes as recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.runner import MeasurementError, NotRecordedError
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.profiling.trace.trace_runner import SimulatedClock, TraceRunner
from raised import raises_code
from random_traces import addresses_of, random_trace, trace_pipeline

PIPELINE = trace_pipeline()
OPERATORS = [operator.name for operator in PIPELINE.topological_order()]


def _runner(trace: MeasurementTrace, **arguments: int) -> tuple[TraceRunner, SimulatedClock]:
    clock = SimulatedClock()
    return TraceRunner(trace, addresses_of(trace, PIPELINE), clock, **arguments), clock


def _items(trace: MeasurementTrace, indexes: Sequence[int]) -> list[Item]:
    return [Item(trace.item_keys[i], None, None) for i in indexes]


def test_it_brings_what_was_recorded() -> None:
    trace = random_trace(PIPELINE, 6, seed=0)
    runner, _ = _runner(trace)
    found = runner.measure(trace.configurations[3], _items(trace, [4, 1]))
    assert found.scores == tuple(trace.scores[3, [4, 1]])
    for column, name in enumerate(OPERATORS):
        row = trace.rows[3, column]
        assert found.runs[name].service_s == tuple(trace.service_s[row, [4, 1]])
        assert found.runs[name].output_bytes == tuple(trace.output_bytes[row, [4, 1]])
        replica = trace.replicas[name, trace.configurations[3][name]]
        assert found.replicas[name].load_s == (replica.load_s,)
        assert found.replicas[name].startup_s == (replica.startup_s,)
        assert found.replicas[name].peak_memory_bytes == replica.peak_memory_bytes
    assert found.outputs == dict.fromkeys(PIPELINE.sinks(), (b"", b""))


class _Account:
    """What a prefix cache saves, told in the plainest way: every prefix, item and credit in one list."""

    def __init__(self, trace: MeasurementTrace, limit_bytes: int) -> None:
        self._trace, self._limit_bytes = trace, limit_bytes
        self._kept: dict[tuple[int, int], tuple[float, int]] = {}  # (row, item) -> credit, when
        self._age, self._when = 0.0, 0
        self._loaded: set[tuple[str, object]] = set()
        self.passed_s = 0.0

    def measure(self, configuration: int, items: Sequence[int]) -> tuple[float, float]:
        """Seconds that run and that are saved."""
        trace = self._trace
        row = {name: int(trace.rows[configuration, column]) for column, name in enumerate(OPERATORS)}
        runs: list[tuple[str, int]] = []
        for item in items:
            wanted = set(PIPELINE.sinks())
            for name in reversed(OPERATORS):
                if name in wanted:
                    if (row[name], item) in self._kept:
                        self._credit(row[name], item)
                    else:
                        runs.append((name, item))
                        wanted |= set(PIPELINE.operator(name).after)
        ran_s = 0.0
        for name in OPERATORS:
            for item in items:
                if (name, item) in runs:
                    key = name, trace.configurations[configuration][name]
                    if key not in self._loaded:
                        self._loaded.add(key)
                        self.passed_s += trace.replicas[key].effective_startup_s
                    ran_s += trace.service_s[row[name], item]
                    self._keep(row[name], item)
        self.passed_s += ran_s
        return ran_s, sum(trace.service_s[row[name], item] for name in OPERATORS for item in items) - ran_s

    def _credit(self, row: int, item: int) -> None:
        worth = self._trace.service_s[row, item] / max(1, self._trace.output_bytes[row, item])
        self._when += 1
        self._kept[row, item] = self._age + worth, self._when

    def _keep(self, row: int, item: int) -> None:
        if self._trace.output_bytes[row, item] > self._limit_bytes:
            return
        self._credit(row, item)
        while sum(self._trace.output_bytes[key] for key in self._kept) > self._limit_bytes:
            least = min(self._kept, key=lambda key: self._kept[key])
            self._age = self._kept.pop(least)[0]


@given(
    seed=st.integers(0, 10_000),
    cache_bytes=st.sampled_from([0, 40, 120, 400, 10_000]),
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)), max_size=12
    ),
)
@settings(max_examples=examples(300))
def test_the_account_of_seconds_is_exact(seed: int, cache_bytes: int, steps: list[tuple[int, list[int]]]) -> None:
    trace = random_trace(PIPELINE, 6, seed=seed)
    runner, clock = _runner(trace, cache_bytes=cache_bytes)
    account = _Account(trace, cache_bytes)
    for configuration, items in steps:
        found = runner.measure(trace.configurations[configuration], _items(trace, items))
        ran_s, its_saved_s = account.measure(configuration, items)
        assert found.compute_s == pytest.approx(ran_s)
        assert found.saved_s == pytest.approx(its_saved_s, abs=1e-9)
        assert clock() == pytest.approx(account.passed_s)


def test_with_room_for_all_each_prefix_costs_once_an_item() -> None:
    trace = random_trace(PIPELINE, 5, seed=1)
    runner, clock = _runner(trace)
    for configuration in trace.configurations:
        runner.measure(configuration, _items(trace, range(5)))
    starts_s = sum(replica.effective_startup_s for replica in trace.replicas.values())
    assert clock() == pytest.approx(trace.service_s.sum() + starts_s)
    before_s = clock()
    again = runner.measure(trace.configurations[0], _items(trace, range(5)))
    assert (again.compute_s, clock()) == (0.0, before_s)
    assert again.replicas["first"].load_s == again.replicas["first"].startup_s == ()


def test_where_no_start_up_was_recorded_apart_it_is_the_load() -> None:
    trace = random_trace(PIPELINE, 2, seed=3)
    older = {key: dataclasses.replace(replica, startup_s=None) for key, replica in trace.replicas.items()}
    runner, clock = _runner(dataclasses.replace(trace, replicas=older))
    found = runner.measure(trace.configurations[0], _items(trace, [0]))
    starts = [found.replicas[name] for name in OPERATORS]
    assert all(facts.startup_s == facts.load_s for facts in starts)
    assert clock() == pytest.approx(found.compute_s + sum(sum(facts.load_s) for facts in starts))


def test_allocations_take_what_their_batches_took() -> None:
    trace = random_trace(PIPELINE, 3, seed=2)
    configuration = trace.configurations[0]
    key = "second", configuration["second"]
    replica = dataclasses.replace(trace.replicas[key], batch_ratio={(1.0, 2): 1.5, (2.0, 1): 0.75})
    trace = dataclasses.replace(trace, replicas={**trace.replicas, key: replica})
    runner, clock = _runner(trace)
    runner.measure(configuration, _items(trace, range(3)))
    before_s = clock()
    found = runner.measure_allocations(configuration, "second", [(1.0, 2), (2.0, 1), (2.0, 2)], _items(trace, range(3)))
    assert found.ratios == {(1.0, 2): 1.5, (2.0, 1): 0.75}  # nobody recorded the third
    one, two, three = trace.service_s[trace.rows[0, OPERATORS.index("second")], :3]
    alone_s, pairs_s = one + two + three, 1.5 * ((one + two) / 2 + (three + one) / 2)
    assert found.compute_s == pytest.approx(alone_s + pairs_s + 0.75 * alone_s)
    assert clock() - before_s == pytest.approx(
        found.compute_s + replica.effective_startup_s
    )  # a second replica, of 2 CPUs
    assert runner.measure_allocations(configuration, "second", [(2.0, 2)], _items(trace, [0])).compute_s == 0.0
    assert runner.cpus == 2.0


def test_what_was_not_recorded_is_told_from_what_failed() -> None:
    trace = random_trace(PIPELINE, 4, seed=3)
    scores = trace.scores.copy()
    scores[1, 2] = np.nan
    failed = FailedConfiguration(trace.configurations[2], trace.item_keys[1], "operator second: no")
    trace = dataclasses.replace(trace, scores=scores, failures=(failed,))
    runner, clock = _runner(trace)
    with raises_code(NotRecordedError, "trace.not_recorded") as unrecorded:
        runner.measure(trace.configurations[1], _items(trace, [0, 2, 3]))
    assert unrecorded.value.location.endswith("item i2")
    assert [item.key for item in unrecorded.value.recorded] == ["i0", "i3"]
    with raises_code(MeasurementError, "trace.recorded_failure"):
        runner.measure(trace.configurations[2], _items(trace, [0, 1]))
    fewer = random_trace(PIPELINE, 4, seed=3, configurations=trace.configurations[:1])
    runner, clock = _runner(fewer)
    with pytest.raises(NotRecordedError) as unknown:
        runner.measure(trace.configurations[1], _items(trace, [0]))
    assert unknown.value.recorded == ()
    assert clock() == 0.0


def test_a_score_outside_the_range_is_an_error() -> None:
    trace = random_trace(PIPELINE, 2, seed=4)
    trace = dataclasses.replace(trace, scores=trace.scores + 5)
    runner, _ = _runner(trace)
    with raises_code(ProfileError, "metric.score_out_of_range") as caught:
        runner.measure(trace.configurations[0], _items(trace, [1]))
    assert "item i1" in caught.value.message


def test_a_simulated_clock_never_goes_back() -> None:
    clock = SimulatedClock(3.0)
    clock.advance(0.5)
    assert clock() == 3.5
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="at least 0"):
            clock.advance(wrong)


def test_a_trace_fits_its_pipeline_or_says_why_not() -> None:
    trace = dataclasses.replace(random_trace(PIPELINE, 2, seed=5), machine=Machine("a CPU", 4))
    trace.check(PIPELINE)
    operators = tuple(operator.model_copy(update={"cpus": (4.0,)}) for operator in PIPELINE.operators)
    metric = PIPELINE.metric
    for changed, code, value in (
        ({"metric": metric.model_copy(update={"name": "other"})}, "trace.other_metric", "other to maximize"),
        (
            {"metric": metric.model_copy(update={"direction": "minimize"})},
            "trace.other_metric",
            "closeness to minimize",
        ),
        ({"operators": operators}, "trace.other_operator", "4 CPUs"),
    ):
        other = dataclasses.replace(trace, pipeline=PIPELINE.model_copy(update=changed))
        with raises_code(ProfileError, code) as caught:
            other.check(PIPELINE)
        assert value in caught.value.message
    for changed, value in (
        ({"scores": trace.scores[:, :1]}, "scores"),
        ({"rows": trace.rows + 100}, "rows"),
        ({"service_s": -trace.service_s}, "service_s"),
        ({"item_keys": ("i0", "i0")}, "twice"),
        ({"replicas": {}}, "first"),
        ({"strata": ()}, "0 strata of 2 items"),
    ):
        with raises_code(ProfileError, "trace.inconsistent") as caught:
            dataclasses.replace(trace, **changed)
        assert value in caught.value.message
