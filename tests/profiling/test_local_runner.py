"""Measuring with real processes: each prefix once, exact accounts, failures that stay where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sample_application import PASSES, Application, sample_pipeline

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.operators.pickling import pickled_bytes, unpickle_value
from circinus.profiling.measurement import operator_process
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.operator_session import OperatorSession
from circinus.profiling.measurement.runner import Measurement, MeasurementError
from circinus.profiling.settings import PROFILING
from circinus.specification import MetricSpec
from raised import raises_code

INLINE = pytest.mark.usefixtures("inline_replicas")

OPERATORS = ("prepare", "left", "right", "joined")


@pytest.fixture(autouse=True)
def _one_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no first run count as slow, so that the number of calls does not depend on the machine."""
    monkeypatch.setattr(operator_process, "PROFILING", replace(PROFILING, slow_start_ratio=math.inf))


@pytest.fixture
def runner(application: Application) -> Iterator[LocalRunner]:
    with application.runner() as found:
        yield found


def _seconds(found: Measurement) -> float:
    return sum(sum(runs.service_s) for runs in found.runs.values())


@pytest.mark.slow
def test_a_measurement_has_everything(application: Application, runner: LocalRunner) -> None:
    items = application.items()[:3]
    found = runner.measure(application.configuration(1, "low"), items)
    assert [unpickle_value(output) for output in found.outputs["joined"]] == [
        (i.key, i.value["x"] + 0.3) for i in items
    ]
    assert found.scores == pytest.approx([0.7] * 3)
    assert set(found.runs) == set(OPERATORS) == set(found.replicas)
    for runs in found.runs.values():
        assert len(runs.service_s) == 3
        assert min(runs.service_s) > 0
    assert found.runs["right"].output_bytes == tuple(pickled_bytes(item.key) for item in items)
    for facts in found.replicas.values():
        ((load_s,), (startup_s,)) = facts.load_s, facts.startup_s
        assert 0 < load_s < startup_s
        assert facts.peak_memory_bytes > 5_000_000
    assert found.compute_s == pytest.approx(_seconds(found))
    assert found.saved_s == 0.0


@INLINE
def test_each_prefix_runs_once_an_item_and_the_account_is_exact(application: Application, runner: LocalRunner) -> None:
    items = application.items()[:4]
    saved_s = 0.0
    for configuration in application.configurations:
        found = runner.measure(configuration, items)
        assert found.compute_s + found.saved_s == pytest.approx(_seconds(found))
        saved_s += found.saved_s
    calls = application.calls()
    for item in items:
        for prepared in ("prepare1", "prepare20"):
            assert calls[f"{prepared} {item.key}"] == 1 + (item is items[0])  # the first warms up
        # Twice, for both gains; `left` and `right` for each, `joined` for each of the four.
        assert sum(calls[f"left-{quality} {item.key}"] for quality in ("low", "high")) == 4 + 2 * (item is items[0])
        assert calls[f"right {item.key}"] == 2 + (item is items[0])
        assert calls[f"joined {item.key}"] == 4 + (item is items[0])
    # Outputs asked for: by each configuration and item those of the sink, then upwards what is missing.
    assert runner.cache.hits == 4 * (2 * 0 + 2 * 2)
    assert runner.cache.misses == 4 * (2 * 4 + 2 * 2)
    assert saved_s > 0


@INLINE
def test_a_second_time_costs_nothing(application: Application, runner: LocalRunner) -> None:
    items, configuration = application.items()[:3], application.configuration(1, "high")
    first = runner.measure(configuration, items)
    application.clear_calls()
    second = runner.measure(configuration, items)
    assert application.calls() == {}
    assert (second.runs, second.outputs, second.scores) == (first.runs, first.outputs, first.scores)
    assert second.compute_s == 0.0
    assert second.saved_s == pytest.approx(_seconds(first))


@INLINE
def test_without_room_nothing_is_saved(application: Application) -> None:
    items = application.items()[:3]
    with OperatorSession([application.folder], cache_bytes=0) as session, application.runner(session) as runner:
        for configuration in application.configurations[:2]:
            found = runner.measure(configuration, items)
            assert found.saved_s == 0.0
        assert runner.cache.hits == 0
        assert len(runner.cache) == 0
    assert sum(application.calls_of("prepare1").values()) == 3 * 2 + 1


@INLINE
def test_runners_of_a_session_load_and_run_what_they_share_once(application: Application) -> None:
    items, configuration = application.items()[:2], application.configuration(1, "low")
    with OperatorSession([application.folder]) as session:
        for name, cpus in (("sample", (0.5, 1.0)), ("other", (1.0,))):
            operators = (
                o.model_copy(update={"cpus": cpus}) if o.name == "right" else o for o in sample_pipeline().operators
            )
            application.pipeline = sample_pipeline(name, operators=tuple(operators))
            with application.runner(session) as runner:
                first = runner.measure(configuration, items)
                assert first.elapsed is not None
                assert (first.elapsed.loading_s > 0) == (name == "sample")
                assert first.compute_s > 0  # on other CPUs, times are others
                runner.measure_allocations(configuration, "right", [(1.0, 2)], items)
                assert {operator: len(stats.load_s) for operator, stats in first.replicas.items()} == {
                    "prepare": name == "sample", "left": name == "sample", "joined": name == "sample", "right": 1
                }  # fmt: skip
        assert len(session.replicas) == 4
    assert sum(application.calls_of("left-low").values()) == 2 + 1


@pytest.mark.parametrize("inputs", [3, 6, 9])
@INLINE
def test_only_what_did_not_run_counts_as_saved(application: Application, inputs: int) -> None:
    """With room for so many inputs, not enough for all outputs: some are evicted and computed again."""
    items = application.items()[:4]
    cache_bytes = inputs * pickled_bytes(items[0].value)
    with OperatorSession([application.folder], cache_bytes=cache_bytes) as session:
        runner = application.runner(session)
        for configuration in application.configurations:
            application.clear_calls()
            found = runner.measure(configuration, items)
            names = {f"prepare{configuration['prepare'].as_dict()['gain']}": "prepare"}
            names[f"left-{configuration['left'].as_dict()['quality']}"] = "left"
            ran = {(names.get(name, name), item) for name, item in map(str.split, application.calls())}
            saved_s = sum(
                service_s
                for name, runs in found.runs.items()
                for item, service_s in zip(items, runs.service_s, strict=True)
                if (name, item.key) not in ran
            )
            assert found.saved_s == pytest.approx(saved_s)
            assert found.compute_s == pytest.approx(_seconds(found) - saved_s)
        assert runner.cache.evictions > 0


@pytest.mark.slow
def test_an_operator_error_names_operator_configuration_and_item(application: Application, runner: LocalRunner) -> None:
    items = [Item("good", {"key": "good", "x": 0.0}, 0.0), Item("bad", {"key": "bad"}, 0.0)]
    configuration = application.configuration(1, "high")
    with raises_code(MeasurementError, "operator.failed") as caught:
        runner.measure(configuration, items)
    assert caught.value.location == f"pipeline sample, configuration {configuration}, item bad"
    assert "operator prepare (sample_first:prepare): KeyError: 'x' (sample_first.py:" in caught.value.message
    assert caught.value.failure.item_key == "bad"
    assert caught.value.failure.configuration == configuration


@INLINE
def test_a_prefix_that_failed_is_not_tried_again(application: Application, runner: LocalRunner) -> None:
    bad = [Item("bad", {"key": "bad"}, 0.0)]
    for quality in ("low", "high"):
        with pytest.raises(MeasurementError, match="operator prepare"):
            runner.measure(application.configuration(1, quality), bad)
    assert application.calls_of("prepare1") == {"bad": 1}
    with pytest.raises(MeasurementError, match="operator prepare"):
        runner.measure(application.configuration(20, "low"), bad)
    assert application.calls_of("prepare20") == {"bad": 1}


@pytest.mark.slow
def test_a_crash_leaves_the_others_alone(application: Application) -> None:
    application.edit("sample_second", 'if self.quality == "high"', 'if self.quality == "high" or os._exit(3)')
    items = application.items()[:2]
    with application.runner() as runner:
        with pytest.raises(MeasurementError, match="code 3"):
            runner.measure(application.configuration(1, "low"), items)
        assert runner.measure(application.configuration(1, "high"), items).scores == (1.0, 1.0)
        with raises_code(MeasurementError, "operator.failed"):
            runner.measure(application.configuration(20, "low"), items)


@pytest.mark.slow
def test_a_lost_fork_server_is_no_failure_of_what_it_ran(application: Application) -> None:
    first, second = application.items()[:2]
    with application.runner() as runner:
        runner.measure(application.configuration(1, "low"), [first])
        server = runner._session._processes._server
        assert server is not None
        server.process.kill()
        assert runner.measure(application.configuration(1, "low"), [first, second]).scores == (0.7, 0.7)


@INLINE
def test_what_cannot_be_loaded_is_tried_once(application: Application) -> None:
    application.edit("sample_second", "self.quality = quality", "self.quality = {'high': 'high'}[quality]")
    with application.runner() as runner:
        for gain in (1, 20):
            with raises_code(MeasurementError, "operator.not_loadable") as caught:
                runner.measure(application.configuration(gain, "low"), application.items()[:2])
            assert "KeyError: 'low'" in caught.value.message
            assert caught.value.failure.item_key is None
    assert application.calls_of("load-left-low") == {"1.0": 1}


@INLINE
def test_a_failing_metric_is_told_like_an_operator(application: Application) -> None:
    application.edit("sample_data", "return max(", "return truth[0] or max(")
    with application.runner() as runner, raises_code(MeasurementError, "metric.failed") as caught:
        runner.measure(application.configuration(1, "high"), application.items()[:1])
    assert caught.value.location.endswith("item i00")
    assert "TypeError" in caught.value.message


@INLINE
def test_a_score_outside_the_declared_range_is_an_error_of_the_profile(application: Application) -> None:
    scores = {"i01": "1.5", "i02": "-0.1", "i03": "float('nan')", "i04": "None", "i05": "'good'"}
    found = ", ".join(f"{key!r}: {score}" for key, score in scores.items())
    application.edit("sample_data", "return max(", f"return {{{found}}}[answer[0]] if answer[0] != 'i00' else max(")
    configuration, (good, *others) = application.configuration(1, "high"), application.items()[:6]
    with application.runner() as runner:
        for item in others:
            with raises_code(ProfileError, "metric.score_out_of_range") as caught:
                runner.measure(configuration, [good, item])
            assert caught.value.location == "metric close (sample_data:close) of pipeline sample"
            for part in (f"item {item.key}", str(configuration), "[0, 1]"):
                assert part in caught.value.message


@INLINE
def test_rounding_does_not_leave_the_range(application: Application) -> None:
    application.edit("sample_data", "return max(0.0, 1.0", "return max(0.0, 1.0 + 1e-12")
    with application.runner() as runner:
        assert runner.measure(application.configuration(1, "high"), application.items()[:1]).scores == (1.0,)


@INLINE
def test_several_sinks_are_scored_together(application: Application) -> None:
    application.write("sample_data", application_two_sinks())
    application.pipeline = sample_pipeline(operators=application.pipeline.operators[:3])
    with application.runner() as runner:
        found = runner.measure(application.configuration(1, "high"), application.items()[:2])
    assert set(found.outputs) == {"left", "right"}
    assert found.scores == (1.0, 1.0)


def application_two_sinks() -> str:
    return """
from circinus.operators import Item

def items(count=2):
    return [Item(f"i{i}", {"key": f"i{i}", "x": float(i)}, (float(i), f"i{i}")) for i in range(count)]

def close(answer, truth):
    return float((answer["left"], answer["right"]) == truth)
"""


def _batched(application: Application, **changes: Any) -> None:
    operators = tuple(o.model_copy(update=changes) if o.name == "left" else o for o in sample_pipeline().operators)
    application.pipeline = sample_pipeline(operators=operators)


@pytest.mark.slow
def test_allocations_run_full_batches_and_the_single_items_besides(application: Application) -> None:
    _batched(application, cpus=(1.0, 2.0), batch_sizes=(1, 4))
    configuration, items = application.configuration(1, "high"), application.items()[:3]
    with application.runner() as runner:
        runner.measure(configuration, items)
        application.clear_calls()
        found = runner.measure_allocations(configuration, "left", [(1.0, 4), (2.0, 1)], items)
    assert set(found.ratios) == {(1.0, 4), (2.0, 1)}
    assert min(found.ratios.values()) > 0
    calls = application.calls_of("left-high")
    # Alone once each; one batch of four (the first item twice); on two CPUs once each, the first warmed up.
    assert calls == {"i00": 1 + 2 + 2, "i01": 1 + 1 + 1, "i02": 1 + 1 + 1}
    assert application.calls_of("prepare1") == {}
    assert found.replica.load_s == found.replica.startup_s == ()  # the one on the fewest CPUs was loaded before
    assert found.compute_s > 0


@pytest.mark.slow
def test_a_batch_of_equal_work_takes_as_often_as_long(application: Application) -> None:
    """An operator that gains nothing from batches."""
    application.edit("sample_second", "for value in values:", "for value in values:\n            passes(0.02)")
    application.edit("sample_second", "import os", f"import os\n{PASSES}")
    _batched(application, batch_sizes=(1, 4))
    with application.runner() as runner:
        found = runner.measure_allocations(
            application.configuration(1, "high"), "left", [(1.0, 4)], application.items()[:4]
        )
    assert found.ratios[1.0, 4] == pytest.approx(4.0)


@pytest.mark.slow
def test_an_operator_that_needs_more_cpus_than_the_machine_has_is_measured_with_all_it_has(
    application: Application,
) -> None:
    _batched(application, cpus=(4096.0,))
    with application.runner() as runner:
        assert 1.0 <= runner.cpus < 4096.0
        runner.measure(application.configuration(1, "high"), application.items()[:1])
        assert application.calls_of("load-left-high") == {str(runner.cpus): 1}


@INLINE
def test_a_metric_with_another_range(application: Application) -> None:
    application.edit("sample_data", "return max(0.0, 1.0 - abs", "return -100 * (0.0 + abs")
    application.pipeline = sample_pipeline(
        metric=MetricSpec(name="close", uses="sample_data:close", direction="maximize", range=(-100.0, 0.0))
    )
    with application.runner() as runner:
        found = runner.measure(application.configuration(1, "low"), application.items()[:2])
    assert found.scores == pytest.approx([-30.0, -30.0])
