"""What was scored elsewhere is found where it is like a pipeline, and never what is the pipeline's own."""

from __future__ import annotations

import numpy as np
import pytest
from sample_application import Application, sample_pipeline

from circinus.profiling import Dataset, FailedConfiguration, Machine, current_machine, load_dataset, profile_pipeline
from circinus.profiling.measurement.runner import AllocationMeasurement, Measurement, OperatorRuns, ReplicaStats
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import StoredReplica, read_dataset
from circinus.profiling.store.store_writer import StoreWriter
from circinus.profiling.store.transfer_sources import SourceScores, load_source_scores
from circinus.specification import Configuration, DatasetSpec, MetricSpec, OperatorSpec, Pipeline, configurations

pytestmark = pytest.mark.usefixtures("inline_replicas")

OTHERS = """
def others(count=10):
    return [Item(f"o{i:02d}", {"key": f"o{i:02d}", "x": i / 50}, i / 50) for i in range(count)]

def far(answer, truth):
    return close(answer, truth)
"""
ELSEWHERE = DatasetSpec(uses="sample_data:others", held_out=0.0)


@pytest.fixture
def sample(application: Application) -> Application:
    """With another data set and another metric, written before anything is measured."""
    application.edit("sample_data", "def close", f"{OTHERS}\ndef close")
    return application


def addresses_of(sample: Application, pipeline: Pipeline, machine: Machine | None = None) -> MeasurementKeys:
    return MeasurementKeys(pipeline, pipeline_code(pipeline, [sample.folder]), machine=machine or current_machine())


def score_of(configuration: Configuration, key: str) -> float:
    return len(str(configuration)) / 100 + int(key[1:]) / 1000


def measure(
    sample: Application,
    pipeline: Pipeline,
    items: int = 100,
    *,
    seed: int = 0,
    only: int = 100,
    machine: Machine | None = None,
) -> None:
    """Write what measuring the first configurations on the first items would, without running any."""
    dataset = load_dataset(pipeline, [sample.folder], seed=seed)
    with ProfileStore(sample.store, create=True) as store:
        writer = StoreWriter(store, addresses_of(sample, pipeline, machine), dataset)
        for configuration in list(configurations(pipeline))[:only]:
            indexes = dataset.order[:items]
            writer.measured(
                configuration,
                [dataset.addresses[index] for index in indexes],
                _measurement(pipeline, configuration, dataset, indexes),
                counted=True,
            )


def _measurement(
    pipeline: Pipeline, configuration: Configuration, dataset: Dataset, indexes: tuple[int, ...]
) -> Measurement:
    keys = [dataset.items[index].key for index in indexes]
    runs = {
        operator.name: OperatorRuns(
            tuple(len(operator.name) + int(key[1:]) / 10 for key in keys), tuple(int(key[1:]) + 7 for key in keys)
        )
        for operator in pipeline.operators
    }
    scores = tuple(score_of(configuration, key) for key in keys)
    facts = {operator.name: ReplicaStats((1.5,), (2.0,), 1_000_000) for operator in pipeline.operators}
    return Measurement(runs, facts, 0.0, {}, scores)


def known_to(sample: Application, pipeline: Pipeline, seed: int = 0) -> tuple[SourceScores, ...]:
    """What is known elsewhere when measuring of `pipeline` begins."""
    dataset = load_dataset(pipeline, [sample.folder], seed=seed)
    addresses = addresses_of(sample, pipeline)
    with ProfileStore(sample.store, create=True) as store:
        StoreWriter(store, addresses, dataset)
        stored = read_dataset(store, addresses.dataset(), seed)
        assert stored is not None
        return load_source_scores(store, addresses, stored)


def names(found: tuple[SourceScores, ...]) -> list[str]:
    return [source.name for source in found]


def test_a_real_measurement_on_other_items_is_a_source(sample: Application) -> None:
    sample.score_alike()
    profile_pipeline(sample.specification, "sample", sample.store)
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert found.name == "the same pipeline on 24 other items"
    assert set(found.configurations) == set(sample.configurations)
    for row in found.scores:
        np.testing.assert_allclose(np.sort(row), np.sort(1.0 - np.arange(24) / 100))
    runs = found.runs
    assert len(runs.prefixes) == 2 + 4 + 2 + 4
    assert runs.service_s.shape == runs.output_bytes.shape == (12, 24)
    assert (runs.service_s > 0).all()
    assert (runs.output_bytes > 0).all()
    assert (runs.input_bytes > 0).all()
    loaded = {(name, of[name]) for name, of in runs.prefixes}
    assert set(runs.replicas) == loaded
    assert all(replica.peak_memory_bytes > 0 < replica.load_s for replica in runs.replicas.values())


def test_scores_and_runs_stand_where_they_were_measured(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    measure(sample, sample.pipeline, items=16, only=1)
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert found.scores.shape == (4, 16)
    assert sorted((~np.isnan(found.scores)).sum(axis=1).tolist()) == [8, 8, 8, 16]
    first = sample.configurations[0]
    assert (~np.isnan(found.scores[found.configurations.index(first)])).all()
    known = {(name, of): row for row, (name, of) in enumerate(found.runs.prefixes)}
    rows = [row for (name, of), row in known.items() if all(of[each] == first[each] for each in of)]
    assert len(rows) == 4
    others = [row for row in known.values() if row not in rows]
    assert np.isfinite(found.runs.service_s[rows]).all()
    assert (np.isfinite(found.runs.service_s[others]).sum(axis=1) == 8).all()
    assert (found.runs.output_bytes[rows[0]] == found.runs.output_bytes[rows[1]]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_its_own_is_no_source(sample: Application, seed: int) -> None:
    measure(sample, sample.pipeline)
    assert known_to(sample, sample.pipeline, seed) == ()
    # Nor under another name, which addresses know nothing of.
    assert known_to(sample, sample_pipeline("alike"), seed) == ()


def test_two_orders_of_the_same_items_are_one_source(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    measure(sample, sample.pipeline, items=8, seed=1)
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert 8 < found.scores.shape[1] <= 16


def test_items_that_both_data_sets_have_are_its_own(sample: Application) -> None:
    measure(sample, sample.pipeline)
    longer = sample_pipeline(dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 30}, held_out=0.0))
    assert known_to(sample, longer) == ()
    shorter = sample_pipeline(dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 20}, held_out=0.0))
    assert names(known_to(sample, shorter)) == ["the same pipeline on 4 other items"]
    before = known_to(sample, shorter)[0].scores
    measure(sample, shorter)  # nothing of a source comes from measuring the pipeline itself
    np.testing.assert_array_equal(known_to(sample, shorter)[0].scores, before)
    measure(sample, longer)
    assert names(known_to(sample, shorter)) == ["the same pipeline on 10 other items"]  # these hold the four
    measure(sample, sample_pipeline(dataset=ELSEWHERE))
    assert names(known_to(sample, shorter)) == [
        "the same pipeline on 10 other items",
        "the same pipeline on 10 other items (2)",
    ]


def test_another_version_of_an_operator_is_a_source_on_the_same_items(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    sample.edit("sample_first", "* gain", "* (gain + 0)")
    (found,) = known_to(sample, sample.pipeline)
    assert found.name == "pipeline sample (operator prepare changed)"
    assert set(found.configurations) == set(sample.configurations)
    assert len(found.runs.prefixes) == 12
    for row, configuration in zip(found.scores, found.configurations, strict=True):
        expected = {score_of(configuration, f"i{i:02d}") for i in range(24)}
        assert set(row.tolist()) <= expected


def test_operators_that_stayed_the_same_tell_no_more_while_the_pipeline_is_measured(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    sample.edit("sample_second", "else 0.3", "else 0.2")
    before = known_to(sample, sample.pipeline)
    assert names(before) == [
        "pipeline sample (operator left changed, operator right changed, operator joined changed)"  # of one module
    ]
    measure(sample, sample.pipeline, items=24)  # `prepare` has its old address
    (again,) = known_to(sample, sample.pipeline)
    assert again.runs.prefixes == before[0].runs.prefixes
    np.testing.assert_array_equal(again.runs.service_s, before[0].runs.service_s)
    np.testing.assert_array_equal(again.runs.output_bytes, before[0].runs.output_bytes)
    np.testing.assert_array_equal(again.scores, before[0].scores)


def test_a_pipeline_that_shares_operators_is_a_source_of_what_it_shares(sample: Application) -> None:
    measure(sample, sample.pipeline)
    first, left, _, joined = sample_pipeline().operators
    mine = OperatorSpec(name="right", uses="sample_first:prepare", after=("prepare",), knobs=first.knobs)
    (found,) = known_to(sample, sample_pipeline("other", operators=(first, left, mine, joined)))
    assert found.name == "pipeline sample"
    assert set(found.configurations[0]) == {"prepare", "left", "joined"}
    assert {name for name, _ in found.runs.prefixes} == {"prepare", "left"}  # `joined` has another ancestor
    rewired = left.model_copy(update={"after": ()})
    (found,) = known_to(sample, sample_pipeline("rewired", operators=(first, rewired, mine, joined)))
    assert {name for name, _ in found.runs.prefixes} == {"prepare"}
    renamed = first.model_copy(update={"name": "begin"})
    assert known_to(sample, sample_pipeline("nothing", operators=(renamed,))) == ()


def test_another_metric_is_no_source(sample: Application) -> None:
    measure(sample, sample.pipeline)
    for metric in (
        MetricSpec(name="far", uses="sample_data:far"),
        MetricSpec(name="close", uses="sample_data:close", direction="minimize"),
        MetricSpec(name="close", uses="sample_data:close", range=(0.0, 2.0)),
    ):
        assert known_to(sample, sample_pipeline(metric=metric, dataset=ELSEWHERE)) == ()
    renamed = MetricSpec(name="renamed", uses="sample_data:close")
    assert len(known_to(sample, sample_pipeline(metric=renamed, dataset=ELSEWHERE))) == 1
    sample.edit("sample_data", "abs(answer[1] - truth)", "abs(truth - answer[1])")
    assert names(known_to(sample, sample.pipeline)) == ["pipeline sample (metric changed)"]


def test_what_failed_is_left_out(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    failed, *others = sample.configurations
    with ProfileStore(sample.store) as store:
        dataset = load_dataset(sample.pipeline, [sample.folder])
        writer = StoreWriter(store, addresses_of(sample, sample.pipeline), dataset)
        writer.failed(FailedConfiguration(failed, "i09", "it broke"))
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert set(found.configurations) == set(others)
    assert found.scores.shape == (3, 8)
    with ProfileStore(sample.store) as store:
        writer = StoreWriter(store, addresses_of(sample, sample.pipeline), dataset)
        for configuration in others:
            writer.failed(FailedConfiguration(configuration, None, "it broke"))
    assert known_to(sample, sample_pipeline(dataset=ELSEWHERE)) == ()


def test_times_are_of_one_machine_its_own_before_others(sample: Application) -> None:
    there = Machine("another CPU", 3)
    measure(sample, sample.pipeline, items=8, machine=there)
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert len(found.runs.prefixes) == 12
    measure(sample, sample.pipeline, items=8, only=1)
    (found,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    assert len(found.configurations) == 4
    assert len(found.runs.prefixes) == 4


def test_gains_of_allocations_come_along(sample: Application) -> None:
    measure(sample, sample.pipeline, items=8)
    knobs = sample.configurations[0]["left"]
    with ProfileStore(sample.store) as store:
        dataset = load_dataset(sample.pipeline, [sample.folder])
        found = AllocationMeasurement({(1.0, 2): 1.4}, ReplicaStats((1.5,), (2.0,), 2_000_000), 0.0)
        StoreWriter(store, addresses_of(sample, sample.pipeline), dataset).allocations("left", knobs, found)
    (source,) = known_to(sample, sample_pipeline(dataset=ELSEWHERE))
    # One start when it was measured and one now.
    assert source.runs.replicas["left", knobs] == StoredReplica(
        1.5, 2_000_000.0, startup_s=2.0, batch_ratio={(1.0, 2): 1.4}
    )


def test_the_newest_come_first_and_not_more_than_a_few(sample: Application) -> None:
    pipeline = sample.pipeline
    for number in range(PROFILING.max_sources + 2):
        pipeline = sample_pipeline(f"sample{number}", dataset=ELSEWHERE)
        # Each has an operator of its own, so that none has the code of another.
        extra = replace_name(pipeline.operators[0], f"extra{number}")
        measure(sample, pipeline.model_copy(update={"operators": (*pipeline.operators, extra)}), items=2, only=2)
    found = known_to(sample, sample.pipeline)
    assert names(found) == [f"pipeline sample{number}" for number in range(PROFILING.max_sources + 1, 1, -1)]


def replace_name(operator: OperatorSpec, name: str) -> OperatorSpec:
    return operator.model_copy(update={"name": name})
