"""Recordings for a replay: on items that planning never saw, and readable without the user's code."""

from __future__ import annotations

import sys

import pytest
from sample_application import Application, first_keys, sample_pipeline

from circinus.errors import ProfileError
from circinus.operators.pickling import pickled_bytes
from circinus.profiling import (
    FailedConfiguration,
    Recordings,
    disturbed_recordings,
    load_dataset,
    load_profile,
    load_recordings,
    profile_pipeline,
    record_for_replay,
)
from circinus.profiling.observer import ProfileProgress
from circinus.specification import Configuration, DatasetSpec, prefix_configuration
from raised import raises_code

pytestmark = pytest.mark.usefixtures("inline_replicas")


class Listener:
    def __init__(self) -> None:
        self.told: list[ProfileProgress] = []
        self.failures: list[FailedConfiguration] = []

    def progressed(self, progress: ProfileProgress) -> None:
        self.told.append(progress)

    def failed(self, failure: FailedConfiguration) -> None:
        self.failures.append(failure)


@pytest.fixture
def large(application: Application) -> Application:
    application.pipeline = sample_pipeline(dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 60}))
    return application


def _record(application: Application, *wanted: Configuration, count: int = 5, **arguments: object) -> Recordings:
    return record_for_replay(
        application.specification,
        "sample",
        application.store,
        configurations=wanted,
        items_count=count,
        **arguments,  # type: ignore[arg-type]
    )


def _prefixes(application: Application, configuration: Configuration) -> dict[str, Configuration]:
    return {
        o.name: prefix_configuration(application.pipeline, configuration, o.name)
        for o in application.pipeline.operators
    }


def _held_out(application: Application, count: int) -> list[str]:
    dataset = load_dataset(application.pipeline, [application.folder])
    return [dataset.items[index].key for index in dataset.traffic_items(count)]


def test_it_records_the_end_of_the_order(application: Application) -> None:
    low, high = application.configuration(1, "low"), application.configuration(1, "high")
    listener = Listener()
    found = _record(application, low, high, observer=listener)
    assert list(found.items) == _held_out(application, 5)
    assert [(p.done, p.total) for p in listener.told] == [(5, 10), (10, 10)]
    for configuration, added in ((low, 0.3), (high, 0.0)):
        prefixes = _prefixes(application, configuration)
        for key in found.items:
            assert found.output(prefixes["joined"], key) == (key, pytest.approx(int(key[1:]) / 100 + added))
            assert found.run(prefixes["right"], key).total_bytes == pickled_bytes(key)
            assert all(found.run(p, key).total_s > 0 for p in prefixes.values())
    assert set(found.outputs) == {_prefixes(application, c)["joined"] for c in (low, high)}
    sizes = {item.key: pickled_bytes(item.value) for item in application.items()}
    assert found.input_bytes == sizes
    assert found.batch_ratios["left", low["left"]] == {(1.0, 1): 1.0}


def test_a_second_time_records_nothing_new(application: Application) -> None:
    configuration = application.configuration(1, "low")
    first = _record(application, configuration)
    application.clear_calls()
    assert _record(application, configuration) == first
    assert set(application.calls()) == {"dataset -"}
    _record(application, configuration, count=6)
    assert len(application.calls_of("joined")) == 1


def test_disturbed_ones_are_named_and_repeated_once_the_machine_is_quiet(
    large: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = large.configuration(1, "low")

    def disturbed() -> frozenset[str]:
        return disturbed_recordings(large.store, large.pipeline, [configuration])

    monkeypatch.setattr("inline_replica.InlineReplica.waited_share", 0.6)
    first = _record(large, configuration)
    assert disturbed() == {operator.name for operator in large.pipeline.operators}
    monkeypatch.setattr("inline_replica.InlineReplica.waited_share", 0.1)
    large.clear_calls()
    assert _record(large, configuration, repeats_disturbed=True) == first  # the machine is still busy
    monkeypatch.setattr("circinus.profiling.profiler.busy_share", lambda: 0.0)
    assert _record(large, configuration) == first
    assert set(large.calls()) == {"dataset -"}
    second = _record(large, configuration, repeats_disturbed=True)
    assert not disturbed()
    assert second.outputs == first.outputs
    for prefix, runs in second.runs.items():
        assert all(run.service_s != first.runs[prefix][key].service_s for key, run in runs.items())
    large.clear_calls()
    assert _record(large, configuration, repeats_disturbed=True) == second
    assert set(large.calls()) == {"dataset -"}


def test_a_profile_takes_no_notice_of_them(large: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as busy:
        busy.setattr("inline_replica.InlineReplica.waited_share", 0.6)
        profile_pipeline(large.specification, "sample", large.store)
    before = load_profile(large.specification, "sample", large.store)
    assert all(measured.disturbed for measured in before.configurations)
    _record(large, *large.configurations, count=10)
    assert not disturbed_recordings(large.store, large.pipeline, large.configurations)
    after = load_profile(large.specification, "sample", large.store)
    for old, new in zip(before.configurations, after.configurations, strict=True):
        assert old.items.tolist() == new.items.tolist()
        assert old.accuracy == new.accuracy
        assert set(_held_out(large, 10)).isdisjoint(f"i{i:02d}" for i in new.items)
    assert (after.profiled_s, after.saved_s) == (before.profiled_s, before.saved_s)


def test_held_out_items_alone_are_no_profile(large: Application) -> None:
    _record(large, large.configuration(1, "low"))
    with raises_code(ProfileError, "profile.not_measured"):
        load_profile(large.specification, "sample", large.store)


def test_items_that_were_profiled_are_recorded_too_but_come_last(large: Application) -> None:
    profile = profile_pipeline(large.specification, "sample", large.store)
    measured = profile.configurations[0]
    found = _record(large, measured.configuration, count=4)
    assert list(found.items[:4]) == _held_out(large, 4)
    assert len(found.items) == 4 + len(measured.items)


def test_it_is_read_without_the_users_code(application: Application) -> None:
    configuration = application.configuration(20, "low")
    recorded = _record(application, configuration)
    for path in application.folder.glob("*.py"):
        path.unlink()
    application.forget()
    prefixes = _prefixes(application, configuration)
    found = load_recordings(application.store, "sample", prefixes.values())
    assert found == recorded
    assert not {"sample_first", "sample_second"} & set(sys.modules)


def test_an_item_on_which_one_fails_is_left_out_and_told(application: Application) -> None:
    bad = _held_out(application, 5)[2]
    checked = f"for value in values:\n            assert value['key'] != {bad!r}"
    application.edit("sample_second", "for value in values:", checked)
    listener = Listener()
    low, high = application.configuration(1, "low"), application.configuration(1, "high")
    found = _record(application, low, high, observer=listener)
    assert list(found.items) == [key for key in _held_out(application, 5) if key != bad]
    assert [(failure.configuration, failure.item_key) for failure in listener.failures] == [(low, bad)]


def test_nothing_to_replay_is_an_error(application: Application) -> None:
    application.edit("sample_second", "return (key, x)", "return undefined")
    with raises_code(ProfileError, "recording.no_common_item"):
        _record(application, application.configuration(1, "low"))


def test_one_that_fails_on_every_item_leaves_nothing_to_replay_though_the_others_are_known(
    application: Application,
) -> None:
    marker = application.folder / "broken"
    broken = f"for value in values:\n            assert self.quality == 'high' or not os.path.exists({str(marker)!r})"
    application.edit("sample_second", "for value in values:", broken)
    low, high = application.configuration(1, "low"), application.configuration(1, "high")
    _record(application, high)
    marker.touch()
    listener = Listener()
    with raises_code(ProfileError, "recording.no_common_item"):
        _record(application, low, high, observer=listener)
    assert [(f.configuration, f.item_key) for f in listener.failures] == [(low, k) for k in _held_out(application, 5)]


def test_what_profiling_found_failing_stays_so(application: Application) -> None:
    bad = first_keys(application, 1)[0]
    checked = f"for value in values:\n            assert self.quality == 'high' or value['key'] != {bad!r}"
    application.edit("sample_second", "for value in values:", checked)
    before = profile_pipeline(application.specification, "sample", application.store)
    low = application.configuration(1, "low")
    assert low in {failure.configuration for failure in before.failed}
    assert len(_record(application, low).items) == 5
    assert load_profile(application.specification, "sample", application.store).failed == before.failed


def test_a_configuration_of_another_pipeline_is_refused(application: Application) -> None:
    wanted = application.configuration(1, "low")
    operators = application.pipeline.operators
    application.pipeline = sample_pipeline(operators=(operators[0].model_copy(update={"knobs": ()}), *operators[1:]))
    with raises_code(ProfileError, "recording.unknown_configuration") as caught:
        _record(application, wanted)
    assert "gain=1" in caught.value.message


def test_what_was_not_recorded_is_named(application: Application) -> None:
    low, high = application.configuration(1, "low"), application.configuration(1, "high")
    found = _record(application, low, count=2)
    first = _prefixes(application, low)["joined"]
    with raises_code(ProfileError, "recording.missing") as caught:
        found.run(first, "i99")
    assert "i99" in caught.value.message
    with raises_code(ProfileError, "recording.missing"):
        found.output(_prefixes(application, low)["left"], found.items[0])
    with raises_code(ProfileError, "recording.missing") as caught:
        load_recordings(application.store, "sample", _prefixes(application, high).values())
    assert "quality=high" in caught.value.message
    with raises_code(ProfileError, "store.missing"):
        load_recordings(application.folder / "none.sqlite", "sample", [first])


def test_after_an_edit_the_new_code_is_replayed_and_after_its_undoing_the_old(application: Application) -> None:
    configuration = application.configuration(1, "high")
    joined = _prefixes(application, configuration)["joined"]

    def answer(found: Recordings) -> float:
        return float(found.output(joined, found.items[0])[1])

    first = answer(_record(application, configuration))
    application.edit("sample_second", "return (key, x)", "return (key, x + 1)")
    assert answer(_record(application, configuration)) == pytest.approx(first + 1)
    application.edit("sample_second", "return (key, x + 1)", "return (key, x)")
    assert answer(_record(application, configuration)) == first
    assert answer(load_recordings(application.store, "sample", [joined])) == first


def test_allocations_that_were_not_measured_gain_nothing(application: Application) -> None:
    operators = tuple(
        o.model_copy(update={"batch_sizes": (1, 4), "cpus": (1.0, 2.0)}) if o.name == "left" else o
        for o in application.pipeline.operators
    )
    application.pipeline = sample_pipeline(operators=operators)
    configuration = application.configuration(1, "low")
    found = _record(application, configuration, count=2)
    ratios = found.batch_ratios["left", configuration["left"]]
    assert ratios == {(1.0, 1): 1.0, (1.0, 4): 4.0, (2.0, 1): 1.0, (2.0, 4): 4.0}
    profile = profile_pipeline(application.specification, "sample", application.store)
    measured = next(p for p in profile.configurations if p.configuration == configuration).operators["left"]
    again = load_recordings(application.store, "sample", _prefixes(application, configuration).values())
    assert again.batch_ratios["left", configuration["left"]] == measured.batch_ratio
