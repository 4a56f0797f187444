"""Reading a profile: without the data set, without a process, and only what is of the code as it is."""

from __future__ import annotations

import numpy as np
import pytest
from sample_application import Application, accuracy_query

from circinus.errors import OperatorError, ProfileError
from circinus.profiling import PipelineProfile, load_profile, profile_pipeline
from circinus.profiling.batch_time_ratios import batch_ratios, measured_allocations
from raised import raises_code

pytestmark = pytest.mark.usefixtures("inline_replicas")


@pytest.fixture
def measured(application: Application) -> PipelineProfile:
    application.score_alike()
    return profile_pipeline(application.specification, "sample", application.store)


def _load(application: Application, seed: int = 0) -> PipelineProfile:
    return load_profile(application.specification, "sample", application.store, seed=seed, with_verdicts=True)


def test_it_is_what_was_measured(application: Application, measured: PipelineProfile) -> None:
    found = _load(application)
    assert (found.dataset_fingerprint, found.dataset_items) == (measured.dataset_fingerprint, 24)
    for name in ("pipeline", "unmeasured", "verdicts", "profiled_s", "saved_s"):
        assert getattr(found, name) == getattr(measured, name)
    for one, other in zip(found.configurations, measured.configurations, strict=True):
        assert one.accuracy == other.accuracy
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_array_equal(one.scores, other.scores)
        for name, operator in one.operators.items():
            np.testing.assert_array_equal(operator.service_s, other.operators[name].service_s)
            assert operator.prefix == other.operators[name].prefix


def test_neither_the_data_set_is_made_nor_an_operator_called(
    application: Application, measured: PipelineProfile
) -> None:
    application.clear_calls()
    application.forget()
    _load(application)
    assert application.calls() == {}


def test_nothing_is_judged_where_nobody_asks_for_it(application: Application, measured: PipelineProfile) -> None:
    assert set(measured.verdicts) == set(application.configurations)
    assert load_profile(application.specification, "sample", application.store).verdicts == {}


def test_thresholds_are_those_of_the_queries_now(application: Application) -> None:
    # On all 24 items every mean is exact, so take a profile with fewer.
    application.score_alike()
    now_s = iter(range(10_000))
    profile_pipeline(
        application.specification, "sample", application.store, budget_s=25.0, clock=lambda: float(next(now_s))
    )
    before = _load(application)
    # Without a threshold too: latency is to be estimated from more items.
    assert set(before.undecided) == {p.configuration for p in before.configurations if len(p.items) < 24}
    assert before.undecided
    partial = next(p for p in before.configurations if len(p.items) < 24)
    true_mean = 1.0 - np.arange(24).mean() / 100
    application.queries = (accuracy_query((true_mean + partial.accuracy.upper) / 2),)  # who knows all items misses it
    assert partial.configuration in _load(application).undecided
    application.queries = (accuracy_query(0.5).model_copy(update={"risk": 0.2}),)
    wider = _load(application)
    assert wider.risk == 0.2
    same = next(p for p in wider.configurations if p.configuration == partial.configuration)
    assert same.accuracy.lower >= partial.accuracy.lower


def test_nothing_of_it_is_believed_after_an_edit_of_everything(
    application: Application, measured: PipelineProfile
) -> None:
    application.edit("sample_first", "* gain", "* (gain + 0)")
    with raises_code(ProfileError, "profile.not_measured") as caught:
        _load(application)
    assert caught.value.location == str(application.store)
    application.edit("sample_first", "* (gain + 0)", "* gain")
    assert len(_load(application).configurations) == 4
    application.edit("sample_data", "i / 100}", "i / 100.0}")
    with raises_code(ProfileError, "profile.not_measured") as caught:
        _load(application)
    assert caught.value.hint == "Run `circinus profile`."


def test_another_order_is_another_profile(application: Application, measured: PipelineProfile) -> None:
    with pytest.raises(ProfileError, match="seed 1"):
        _load(application, seed=1)
    again = profile_pipeline(application.specification, "sample", application.store, seed=1)
    assert again.profiled_s == measured.profiled_s  # the same items in another order: nothing had to run
    assert again.configurations[0].items.tolist() != measured.configurations[0].items.tolist()
    assert _load(application).configurations[0].items.tolist() == measured.configurations[0].items.tolist()


def test_failures_are_remembered(application: Application) -> None:
    application.edit("sample_second", "return (key, x)", "return key / x")
    profile_pipeline(application.specification, "sample", application.store)
    found = _load(application)
    assert found.configurations == ()
    assert len(found.failed) == 4
    assert "operator joined" in found.failed[0].reason


def test_what_is_missing_is_told(application: Application) -> None:
    with raises_code(ProfileError, "store.missing"):
        _load(application)
    profile_pipeline(application.specification, "sample", application.store, budget_s=0.0)
    (application.folder / "sample_second.py").unlink()
    application.forget()
    with pytest.raises(OperatorError, match="sample_second"):
        _load(application)


def test_allocations_without_a_measurement_gain_nothing() -> None:
    allowed = [(1.0, 1), (1.0, 4), (2.0, 1), (2.0, 4)]
    measured = {(2.0, 1): 0.6, (1.0, 4): 2.5, (8.0, 8): 0.1}
    assert batch_ratios(allowed, measured) == {(1.0, 1): 1.0, (1.0, 4): 2.5, (2.0, 1): 0.6, (2.0, 4): 4.0}
    assert measured_allocations(allowed, measured) == {(1.0, 1), (1.0, 4), (2.0, 1)}
    assert batch_ratios([(0.5, 2)], {}) == {(0.5, 2): 2.0}
