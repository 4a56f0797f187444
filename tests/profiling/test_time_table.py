"""Tables of times on hardware classes: what they say, and what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from circinus.errors import ProfileError
from circinus.profiling import (
    TraceBackend,
    load_imported_times,
    load_profile,
    profile_pipeline,
    read_time_table,
    save_imported_times,
)
from circinus.specification import HardwareClass, Infrastructure, Pipeline, Pool, Specification
from raised import raises_code
from random_traces import random_trace, trace_pipeline

HEADER = "class,operator,k,cpus,batch_size,seconds,origin"
GPU = HardwareClass(**{"class": "gpu"}, relative_speed=3.0)
VERSIONS = {o.uses: "not recorded" for o in trace_pipeline().operators}  # as a trace has it that names no code


def _specification(pipeline: Pipeline) -> Specification:
    pools = tuple(
        Pool(name=name, site="here", tier="cloud", cpus=2, memory=2**30, hardware=hardware)
        for name, hardware in (("own", HardwareClass(**{"class": "local"})), ("other", GPU))
    )
    return Specification({pipeline.name: pipeline}, Infrastructure(name="i", sites=("here",), pools=pools), (), ())


def _import(folder: Path, text: str, pipeline: Pipeline, versions: dict[str, str] = VERSIONS) -> None:
    table = folder / "times.csv"
    table.write_text(text, encoding="utf-8")
    times = read_time_table(table, _specification(pipeline), {pipeline.name: versions}, datetime.now(UTC))
    save_imported_times(folder / "store", times)


def test_seconds_of_the_table_are_those_of_estimates(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    specification, source = _specification(pipeline), TraceBackend(random_trace(pipeline, 24, seed=0))
    profile_pipeline(specification, pipeline.name, tmp_path / "store", source=source)
    _import(
        tmp_path,
        f"{HEADER}\ngpu,second,1,1,1,0.5,http://a\ngpu,second,1,1,2,0.6,http://a\ngpu,second,1,2,2,0.4,",
        pipeline,
    )
    profile = load_profile(specification, pipeline.name, tmp_path / "store", source=source)
    by_prefix = {id(o): o for c in profile.configurations for o in [c.operators["second"]]}.values()
    faster = [o for o in by_prefix if o.prefix["second"].as_dict() == {"k": 1}]
    assert all(o.batch_ratio_on(GPU) == o.batch_ratio for o in by_prefix if o not in faster)
    mean_s = np.mean([o.service_s.mean() for o in faster])  # over everything that comes from `first`
    (speed,) = {o.speeds.expected(GPU) for o in faster}
    assert speed == faster[0].speeds.guaranteed(GPU) == pytest.approx(mean_s / 0.5)
    ratio = faster[0].batch_ratio_on(GPU)
    seconds = {allocation: mean_s / speed * of_class for allocation, of_class in ratio.items()}
    assert seconds == pytest.approx({(1.0, 1): 0.5, (1.0, 2): 0.6, (2.0, 1): 0.4, (2.0, 2): 0.4})
    assert faster[0].measured_allocations_on(GPU) == ratio.keys() - {(2.0, 1)}
    assert faster[0].speeds.measured["gpu"].batches.origin == "http://a, " + str(tmp_path / "times.csv")  # type: ignore[union-attr]


def test_a_table_replaces_what_it_has_again_and_times_of_earlier_code_are_not_used(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    specification, source = _specification(pipeline), TraceBackend(random_trace(pipeline, 24, seed=0))
    profile_pipeline(specification, pipeline.name, tmp_path / "store", source=source)
    _import(tmp_path, f"{HEADER}\ngpu,second,,,1,0.5,\ngpu,second,,,2,0.6,\ngpu,third,,,1,0.1,", pipeline)
    _import(tmp_path, f"{HEADER}\ngpu,second,2,,1,0.3,", pipeline, {**VERSIONS, "no_such_module:second": "edited"})
    times = load_imported_times(tmp_path / "store")
    assert [(t.operator, t.knobs.as_dict(), t.batch_size, t.batch_s) for t in times] == [
        ("second", {"k": 1}, 1, 0.5),
        ("second", {"k": 1}, 2, 0.6),
        ("second", {"k": 2}, 1, 0.3),
        ("third", {}, 1, 0.1),
    ]
    profile = load_profile(specification, pipeline.name, tmp_path / "store", source=source)
    speeds = {
        (n, o.prefix[n].as_dict().get("k")): o.speeds for c in profile.configurations for n, o in c.operators.items()
    }
    assert {own for own, of_own in speeds.items() if of_own.measured} == {("second", 1), ("third", None)}


@pytest.mark.parametrize(
    ("rows", "code", "place"),
    [
        ("", "times.invalid_header", "1: column class"),
        ("class,operator,batch,seconds", "times.invalid_header", "1: column 3"),
        ("class,operator,batch_size,seconds,class", "times.invalid_header", "1: column 5"),
        ("class,operator,seconds", "times.invalid_header", "1: column batch_size"),
        (HEADER, "times.empty", "2"),
        (f"{HEADER}\n\ngpu,second,1,1,1,0.5,,x", "times.invalid_row", "3"),
        (f'{HEADER}\n"gpu"x,second,1,1,1,0.5', "times.invalid_row", "2"),
        (f"{HEADER}\nlocal,second,1,1,1,0.5", "times.invalid_value", "2: column class"),
        (f"{HEADER}\ngpu,fourth,1,1,1,0.5", "times.invalid_value", "2: column operator"),
        (f"{HEADER}\ngpu,third,1,1,1,0.5", "times.invalid_value", "2: column k"),
        (f"{HEADER}\ngpu,second,3,1,1,0.5", "times.invalid_value", "2: column k"),
        (f"{HEADER}\ngpu,second,1,4,1,0.5", "times.invalid_value", "2: column cpus"),
        (f"{HEADER}\ngpu,second,1,1,1.5,0.5", "times.invalid_value", "2: column batch_size"),
        (f"{HEADER}\ngpu,second,1,1,1,0.5\ngpu,second,1,1,2,-1", "times.invalid_value", "3: column seconds"),
        (f"{HEADER}\ngpu,second,1,1,1,nan", "times.invalid_value", "2: column seconds"),
        (f"{HEADER}\ngpu,second,1,1,1,0.5\ngpu,second,,1,1,0.5", "times.duplicate", "3: column batch_size"),
    ],
)
def test_a_fault_is_named_with_its_place_and_nothing_is_stored(
    rows: str, code: str, place: str, tmp_path: Path
) -> None:
    with pytest.raises(ProfileError) as caught:
        _import(tmp_path, rows, trace_pipeline())
    assert (caught.value.code, caught.value.location) == (code, f"{tmp_path / 'times.csv'}:{place}")
    assert "found " in caught.value.message
    assert ", expected " in caught.value.message
    assert not (tmp_path / "store").exists()


def test_devices_are_not_opened(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    with raises_code(ProfileError, "times.unreadable"):
        read_time_table(Path("/dev/null"), _specification(pipeline), {pipeline.name: VERSIONS}, datetime.now(UTC))
