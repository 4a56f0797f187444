"""Measuring lists and branches: the runs of each item, and whatever keeps them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_application import DATA, Application, sample_pipeline

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.operators.pickling import pickled_bytes, unpickle_value
from circinus.profiling import LocalBackend, Machine, PipelineProfile, load_profile, profile_pipeline, record_for_replay
from circinus.profiling.hardware.class_times import write_class_machine
from circinus.profiling.item_runs import ItemRuns, mean_element_s
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.operator_session import OperatorSession
from circinus.profiling.measurement.runner import Measurement, MeasurementError, OperatorRuns
from circinus.profiling.store.imported_times import ImportedTime, save_imported_times
from circinus.profiling.store.measurement_keys import LOCAL
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_dataset, read_services
from circinus.profiling.store.store_writer import write_services
from circinus.profiling.store.stored_measurements import StoredMeasurements
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.profiling.trace.trace_file import export_trace, load_trace, save_trace
from circinus.profiling.trace.trace_runner import TraceBackend
from circinus.specification import Configuration, DatasetSpec, Knob, OperatorSpec, Pipeline, prefix_configuration
from raised import raises_code

INLINE = pytest.mark.usefixtures("inline_replicas")

CODE = """
import os
from circinus.operators import Branch, operator

def note(operator, key):
    with open(os.environ["SAMPLE_LOG"], "a") as log:
        log.write(f"{operator} {key}\\n")

@operator
def detect(value, *, most: int):
    note("detect", value["key"])
    return [value["key"] + "abcd"[index] for index in range(min(most, value["count"]))]

@operator
class Cheap:
    def process(self, crops):
        for crop in crops:
            note("cheap", crop)
        return [Branch("sure", crop.upper()) if crop[-1] in "ac" else Branch("unsure", crop) for crop in crops]

@operator
def dear(crop):
    note("dear", crop)
    return crop.upper() * 2

@operator
def track(texts, value):
    note("track", value["key"])
    return (value["key"], texts)

@operator
def source(value):
    return value
"""
ITEMS = DATA.replace('{"key": f"i{i:02d}", "x": i / 100}', '{"key": f"i{i:02d}", "count": i % 4}').replace(
    "max(0.0, 1.0 - abs(answer[1] - truth))", "len(answer[1]) / 4"
)
OPERATORS = ("source", "detect", "cheap", "dear", "track")


def fan_out(**detect: Any) -> Pipeline:
    """detect many -> cheap -> dear if unsure -> track, which gathers what either reads, and the item."""
    read = {"any": ({"cheap": "sure"}, "dear")}
    return sample_pipeline(
        operators=(
            OperatorSpec(name="source", uses="sample_second:source"),
            OperatorSpec.model_validate(
                {
                    "name": "detect",
                    "uses": "sample_second:detect",
                    "after": "source",
                    "emits": "many",
                    "knobs": (Knob(name="most", choices=(1, 4)),),
                    **detect,
                }
            ),
            OperatorSpec(name="cheap", uses="sample_second:Cheap", after=("detect",), branches=("sure", "unsure")),
            OperatorSpec(name="dear", uses="sample_second:dear", after=({"cheap": "unsure"},), batch_sizes=(1, 2)),
            OperatorSpec(name="track", uses="sample_second:track", after=(read, "source"), gather=True),
        ),
        dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 32}, held_out=0.25),
    )


@pytest.fixture
def fanning(application: Application) -> Application:
    application.write("sample_second", CODE)
    application.write("sample_data", ITEMS)
    application.pipeline = fan_out()
    return application


@pytest.fixture
def runner(fanning: Application) -> Iterator[LocalRunner]:
    with fanning.runner() as runner:
        yield runner


def _configuration(application: Application, most: int) -> Configuration:
    return next(c for c in application.configurations if c["detect"].as_dict() == {"most": most})


def _elements(item: Item, most: int = 4) -> str:
    return "abcd"[: min(most, item.value["count"])]


def _expected(item: Item, most: int) -> dict[str, tuple[list[tuple[int, ...]], list[tuple[int, ...]], list[list[int]]]]:
    """Return the paths, branches and output sizes of each operator's runs for an item."""
    elements = _elements(item, most)
    unsure = [index for index, element in enumerate(elements) if element in "bd"]
    crops = [item.key + element for element in elements]
    texts = [crop.upper() * (2 if index in unsure else 1) for index, crop in enumerate(crops)]
    return {
        "source": ([()], [(-1,)], [[pickled_bytes(item.value)]]),
        "detect": ([()], [(-1,) * len(crops)], [list(map(pickled_bytes, crops))]),
        "cheap": (
            [(index,) for index in range(len(crops))],
            [(int(index in unsure),) for index in range(len(crops))],
            [[pickled_bytes(crop if index in unsure else crop.upper())] for index, crop in enumerate(crops)],
        ),
        "dear": (
            [(index,) for index in unsure],
            [(-1,) for _ in unsure],
            [[pickled_bytes(texts[index])] for index in unsure],
        ),
        "track": ([()], [(-1,)], [[pickled_bytes((item.key, texts))]]),
    }


def _runs_by_item(measurement: Measurement, operator: str) -> list[ItemRuns]:
    runs = measurement.runs[operator]
    return [
        runs.items[index] if runs.items else ItemRuns.single(runs.service_s[index], runs.output_bytes[index])
        for index in range(len(runs.service_s))
    ]


def _check(measurement: Measurement, items: list[Item], most: int) -> None:
    for number, item in enumerate(items):
        expected = _expected(item, most)
        for name in OPERATORS:
            runs = _runs_by_item(measurement, name)[number]
            paths, branches, sizes = expected[name]
            assert (list(runs.paths), list(runs.branches)) == (paths, branches)
            assert [list(its_sizes) for its_sizes in runs.output_bytes] == sizes
            assert all(service_s > 0 for service_s in runs.service_s)
            assert measurement.runs[name].service_s[number] == pytest.approx(sum(runs.service_s))
            assert measurement.runs[name].output_bytes[number] == sum(map(sum, sizes))
        texts = [
            f"{item.key}{element}".upper() * (1 + (element in "bd")) for element in _elements(item, most)
        ]  # fmt: skip
        assert unpickle_value(measurement.outputs["track"][number]) == (item.key, texts)
        assert measurement.scores[number] == len(texts) / 4


@pytest.mark.slow
def test_each_element_runs_where_its_branch_leads(fanning: Application, runner: LocalRunner) -> None:
    """In processes; the second time nothing runs."""
    items, configuration = list(fanning.items(8)), _configuration(fanning, 4)
    first = runner.measure(configuration, items)
    _check(first, items, 4)
    assert first.compute_s == pytest.approx(sum(sum(runs.service_s) for runs in first.runs.values()))
    assert (first.runs["source"].items, first.runs["track"].items) == (None, None)
    fanning.clear_calls()
    second = runner.measure(configuration, items)
    assert fanning.calls() == {}
    assert (second.runs, second.outputs, second.scores) == (first.runs, first.outputs, first.scores)
    assert second.compute_s == 0.0
    assert second.saved_s == pytest.approx(first.compute_s)


@pytest.mark.slow
def test_an_operator_that_no_item_reaches_is_loaded(fanning: Application, runner: LocalRunner) -> None:
    items, configuration = list(fanning.items(2)), _configuration(fanning, 1)
    measurement = runner.measure(configuration, items)
    _check(measurement, items, 1)
    assert fanning.calls_of("dear") == {}
    assert measurement.runs["dear"].service_s == (0.0, 0.0)
    stats = measurement.replicas["dear"]
    assert len(stats.load_s) == 1
    assert stats.load_s[0] > 0
    assert stats.peak_memory_bytes > 5_000_000
    allocations = runner.measure_allocations(configuration, "dear", [(1.0, 2)], items)
    assert allocations.ratios == {}
    assert allocations.compute_s == 0.0
    assert allocations.replica.peak_memory_bytes == stats.peak_memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"at_most": 2}, {"branches": ("found",)}])
def test_an_item_that_emits_what_it_must_not_fails(fanning: Application, change: dict[str, Any]) -> None:
    fanning.pipeline = fan_out(**change)
    items = list(fanning.items(8))
    with fanning.runner() as runner, raises_code(MeasurementError, "operator.failed") as caught:
        runner.measure(_configuration(fanning, 4), [items[0], items[3]])
    assert caught.value.failure.item_key == "i03"
    assert fanning.calls_of("cheap") == {}


@INLINE
def test_elements_fill_batches(fanning: Application, runner: LocalRunner) -> None:
    items, configuration = list(fanning.items(8)), _configuration(fanning, 4)
    found = runner.measure_allocations(configuration, "dear", [(1.0, 2)], items)
    # 4 of 8 items have a second element: two batches, after each alone.
    assert sum(fanning.calls_of("dear").values()) == 4 + 4 + 1
    assert found.ratios[1.0, 2] == pytest.approx(2.0, rel=1e-3)


@INLINE
def test_batches_are_measured_with_a_configuration_that_reaches_the_operator(fanning: Application) -> None:
    """One element an item is always sure."""
    assert fanning.configurations[0] == _configuration(fanning, 1)
    profile = profile_pipeline(fanning.specification, "sample", fanning.store, exhaustive=True)
    for measured in profile.configurations:
        assert measured.operators["dear"].measured_allocations == {(1.0, 1), (1.0, 2)}


@INLINE
def test_an_operator_that_no_item_reaches_keeps_batches_without_gain(fanning: Application) -> None:
    fanning.pipeline = fan_out(knobs=(Knob(name="most", choices=(1,)),))
    for calls in (True, False):
        fanning.clear_calls()
        profile = profile_pipeline(fanning.specification, "sample", fanning.store, exhaustive=True)
        assert profile.configurations[0].operators["dear"].batch_ratio == {(1.0, 1): 1.0, (1.0, 2): 2.0}
        assert bool(fanning.calls_of("detect")) == calls


@INLINE
@pytest.mark.parametrize("is_gathered", [True, False])
def test_whatever_the_cache_dropped_is_made_again_and_gives_the_same(fanning: Application, is_gathered: bool) -> None:
    """Also where the sink is inside the fan-out, so that its answer needs to know of elements without an output."""
    if not is_gathered:
        fanning.pipeline = sample_pipeline(operators=fanning.pipeline.operators[:4], dataset=fanning.pipeline.dataset)
        fanning.edit("sample_data", "answer[1]", "answer")
    names = [operator.name for operator in fanning.pipeline.operators]
    items, configuration = list(fanning.items(4)), _configuration(fanning, 4)
    for dropped in itertools.chain.from_iterable(itertools.combinations(names, count) for count in range(6)):
        with OperatorSession([fanning.folder]) as session, fanning.runner(session) as runner:
            first = runner.measure(configuration, items)
            for name, item in itertools.product(dropped, items):
                key = runner._prefix(name, configuration), item.key
                session.cache._index.remove(key)
                del session.cache._outputs[key]
            fanning.clear_calls()
            found = runner.measure(configuration, items)
        assert (found.outputs, found.scores) == (first.outputs, first.scores)
        assert {line.split()[0] for line in fanning.calls()} <= set(dropped)
        for name in names:
            one, other = _runs_by_item(found, name), _runs_by_item(first, name)
            assert [(r.paths, r.branches, r.output_bytes) for r in one] == [
                (r.paths, r.branches, r.output_bytes) for r in other
            ]
        if not is_gathered:
            outputs = [unpickle_value(output) for output in found.outputs["dear"]]
            assert outputs == [[], [], ["I02BI02B"], ["I03BI03B"]]


@INLINE
def test_a_cache_of_any_size_gives_the_same(fanning: Application) -> None:
    items, outputs = list(fanning.items(8)), set()
    for cache_bytes in (0, 50, 200, 1000):
        with OperatorSession([fanning.folder], cache_bytes=cache_bytes) as session, fanning.runner(session) as runner:
            for most in (4, 1, 4):
                measurement = runner.measure(_configuration(fanning, most), items)
                _check(measurement, items, most)
                if most == 4:
                    outputs.add(measurement.outputs["track"])
    assert len(outputs) == 1


@pytest.fixture
def measured(
    fanning: Application, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[Configuration, str], dict[str, ItemRuns]]:
    """Profile all items, and return what was measured: (configuration, operator) -> item -> runs."""
    measured: dict[tuple[Configuration, str], dict[str, ItemRuns]] = {}
    measure: Callable[..., Measurement] = LocalRunner.measure

    def noted(runner: LocalRunner, configuration: Configuration, items: list[Item]) -> Measurement:
        measurement = measure(runner, configuration, items)
        for name in OPERATORS:
            runs = dict(zip((item.key for item in items), _runs_by_item(measurement, name), strict=True))
            measured.setdefault((configuration, name), {}).update(runs)
        return measurement

    monkeypatch.setattr(LocalRunner, "measure", noted)
    profile_pipeline(fanning.specification, "sample", fanning.store, exhaustive=True)
    return measured


def _check_profile(profile: PipelineProfile, measured: Any) -> None:
    assert len(profile.configurations) == 2
    for found in profile.configurations:
        assert len(found.items) == 24
        for name, operator in found.operators.items():
            runs = [measured[found.configuration, name][f"i{index:02d}"] for index in found.items]
            if operator.runs is not None:
                assert operator.runs == tuple(runs)
            assert operator.run_counts.tolist() == [len(its_runs.paths) for its_runs in runs]
            assert operator.service_s.tolist() == pytest.approx([its_runs.total_s for its_runs in runs])
        assert found.operators["track"].runs is None
        assert all(found.operators[name].runs is not None for name in ("detect", "cheap", "dear"))


@INLINE
def test_a_loaded_profile_has_the_runs_that_were_measured(fanning: Application, measured: Any) -> None:
    _check_profile(load_profile(fanning.specification, "sample", fanning.store), measured)
    fanning.clear_calls()
    _check_profile(profile_pipeline(fanning.specification, "sample", fanning.store, exhaustive=True), measured)
    assert set(fanning.calls()) <= {"dataset -"}


@INLINE
def test_speeds_elsewhere_are_those_of_runs(fanning: Application, measured: Any) -> None:
    """Not of items, of which half have no run of the dear operator, and others several of the cheap one."""
    keys = fanning.addresses().for_hardware_class(LOCAL, LocalBackend([fanning.folder]).machine)
    there, configuration = keys.for_hardware_class("slow", Machine("Slow CPU", 1)), _configuration(fanning, 4)
    imported = ImportedTime(
        *("sample", "cheap", configuration["cheap"], "imported", 1.0, 1, 0.004),
        *(keys.code.operators["sample_second:Cheap"], "", "", "", "2026-01-01T00:00:00Z"),
    )
    save_imported_times(fanning.store, [imported])
    with ProfileStore(fanning.store, create=True) as store:
        dataset = read_dataset(store, keys.dataset(), 0)
        assert dataset is not None
        item_ids = dataset.item_ids[dataset.profiling_items(fanning.pipeline)]
        services = {name: keys.service(name, configuration) for name in OPERATORS}
        runs = read_services(store, services.values(), item_ids)
        with store.transaction():
            write_class_machine(store, "slow", Machine("Slow CPU", 1))
            for name, service in services.items():
                subject, content = there.service(name, configuration), runs[service]
                slower = OperatorRuns(tuple((4 * content.service_s).tolist()), tuple(content.output_bytes.tolist()))
                write_services(store, store.ids([subject])[subject], item_ids.tolist(), slower)
    profile = load_profile(fanning.specification, "sample", fanning.store)
    speeds = next(c for c in profile.configurations if c.configuration == configuration).operators
    for name in ("detect", "cheap", "dear", "track"):
        speed = speeds[name].speeds.measured["slow"].speed
        assert [speed.lower, speed.value, speed.upper] == pytest.approx([1 / 4] * 3)
    assert speeds["cheap"].speeds.measured["imported"].speed.value == pytest.approx(1 / 4, rel=1e-3)


@pytest.fixture
def trace(fanning: Application, measured: Any) -> MeasurementTrace:
    return export_trace(fanning.specification, "sample", fanning.store)


@INLINE
def test_a_trace_keeps_the_runs(fanning: Application, trace: MeasurementTrace, measured: Any, tmp_path: Path) -> None:
    assert sum(map(len, trace.item_runs.values())) > 0
    save_trace(trace, tmp_path / "fan_outs.trace")
    loaded = load_trace(tmp_path / "fan_outs.trace")
    assert loaded.item_runs == trace.item_runs
    assert loaded.digest == trace.digest
    columns = [operator.name for operator in fanning.pipeline.topological_order()]
    for configuration, rows in zip(loaded.configurations, loaded.rows.tolist(), strict=True):
        for name, row in zip(columns, rows, strict=True):
            items = np.flatnonzero(np.isfinite(loaded.service_s[row]))
            runs = loaded.runs(row, items)
            for index, item in enumerate(items.tolist()):
                own = (
                    runs.items[index]
                    if runs.items
                    else ItemRuns.single(runs.service_s[index], runs.output_bytes[index])
                )
                assert own == measured[configuration, name][loaded.item_keys[item]]


@INLINE
def test_a_profile_from_a_trace_is_that_of_the_operators(
    fanning: Application, trace: MeasurementTrace, measured: Any, tmp_path: Path
) -> None:
    fanning.clear_calls()
    backend, store = TraceBackend(trace), tmp_path / "other.sqlite"
    _check_profile(profile_pipeline(fanning.specification, "sample", store, source=backend, exhaustive=True), measured)
    assert fanning.calls() == {}


@INLINE
def test_the_runs_count_in_the_digest_of_a_trace(trace: MeasurementTrace) -> None:
    row, by_item = next(
        (row, runs) for row, runs in trace.item_runs.items() if any(any(r.branches) for r in runs.values())
    )
    item, runs = next((item, runs) for item, runs in by_item.items() if any(runs.branches))
    changes = (
        {"paths": tuple((*path, 7) for path in runs.paths)},
        {"branches": tuple(tuple(5 for _ in branches) for branches in runs.branches)},
        {"service_s": tuple(2 * service_s for service_s in runs.service_s)},
        {"output_bytes": tuple((*sizes, 1) for sizes in runs.output_bytes)},
    )
    others = [{**by_item, item: replace(runs, **change)} for change in changes]
    traces = [replace(trace, item_runs={**trace.item_runs, row: runs}) for runs in others]
    assert len({trace.digest, *(other.digest for other in traces)}) == 1 + len(changes)
    assert replace(trace, item_runs={}).digest != trace.digest


@INLINE
@pytest.mark.parametrize("sink", ["track", "dear"])
def test_recordings_for_a_replay_have_the_runs(fanning: Application, sink: str) -> None:
    operators = fanning.pipeline.operators[: 1 + OPERATORS.index(sink)]
    fanning.pipeline = sample_pipeline(operators=operators, dataset=DatasetSpec(uses="sample_data:items", held_out=0.5))
    if sink == "dear":
        fanning.edit("sample_data", "answer[1]", "answer")
    configuration, items = _configuration(fanning, 4), {item.key: item for item in fanning.items()}
    recordings = record_for_replay(
        fanning.specification, "sample", fanning.store, configurations=[configuration], items_count=5
    )
    assert len(recordings.items) == 5
    for operator in fanning.pipeline.operators:
        prefix = prefix_configuration(fanning.pipeline, configuration, operator.name)
        for key in recordings.items:
            paths, branches, sizes = _expected(items[key], 4)[operator.name]
            runs = recordings.run(prefix, key)
            assert (list(runs.paths), list(runs.branches)) == (paths, branches)
            assert [list(its_sizes) for its_sizes in runs.output_bytes] == sizes
    prefix = prefix_configuration(fanning.pipeline, configuration, sink)
    for key in recordings.items:
        elements = _elements(items[key])
        texts = [f"{key}{element}".upper() * (1 + (element in "bd")) for element in elements]
        unsure = [text for text, element in zip(texts, elements, strict=True) if element in "bd"]
        assert recordings.output(prefix, key) == ((key, texts) if sink == "track" else unsure)


@INLINE
def test_the_resource_usage_of_a_configuration_that_was_not_measured_is_unknown(fanning: Application) -> None:
    first, second = fanning.configurations
    profile_pipeline(fanning.specification, "sample", fanning.store, exhaustive=True)
    keys = fanning.addresses().for_hardware_class(LOCAL, LocalBackend([fanning.folder]).machine)
    with ProfileStore(fanning.store) as store:
        dataset = read_dataset(store, keys.dataset(), 0)
        assert dataset is not None
        usage = StoredMeasurements(store, keys, dataset, [first]).resource_usage([first, second], {})
    assert usage.items[0] > 0
    assert usage.items[1] == 0
    assert np.isnan(usage.cpu_s[1]).all()


def test_runs_that_do_not_follow_from_what_was_emitted_are_an_error() -> None:
    nodes = [operator.flow for operator in fan_out().topological_order()]
    single = ItemRuns.single(0.1, 1.0)
    runs = {
        "source": single,
        "detect": ItemRuns(((),), (0.1,), ((1.0, 1.0),), ((-1, -1),)),
        "cheap": ItemRuns(((0,), (1,)), (0.1, 0.1), ((1.0,), (1.0,)), ((0,), (1,))),
        "dear": ItemRuns(((1,),), (0.5,), ((1.0,),), ((-1,),)),
        "track": single,
    }
    assert mean_element_s(nodes, runs) == pytest.approx(
        {"source": 0.1, "detect": 0.1, "cheap": 0.1, "dear": 0.25, "track": 0.1}
    )
    other = {**runs, "detect": ItemRuns(((),), (0.1,), ((),), ((),))}
    with raises_code(ProfileError, "profile.inconsistent_runs"):
        mean_element_s(nodes, other)
