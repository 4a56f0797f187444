"""What was measured and scored is found again, without listing the pipeline's configurations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sample_application import Application

from circinus.profiling import profile_pipeline
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import (
    read_scored,
    read_scores,
    read_services,
    read_versions,
    scored_configurations,
)

pytestmark = pytest.mark.usefixtures("inline_replicas")


def test_scored_configurations_are_those_of_the_pipeline_as_it_is_now(application: Application) -> None:
    profile_pipeline(application.specification, "sample", application.store)
    before = application.addresses()
    application.edit("sample_second", "0.3", "0.4")
    with ProfileStore(application.store) as store:
        assert set(scored_configurations(store, before)) == set(application.configurations)
        assert scored_configurations(store, application.addresses()) == ()
        (version,) = read_versions(store)
        assert set(read_scored(store, version).values()) == set(application.configurations)
        assert version.operators["left"][1] == before.code.operators[application.pipeline.operator("left").uses]


def test_a_choice_that_is_gone_takes_its_configurations_with_it(application: Application) -> None:
    profile_pipeline(application.specification, "sample", application.store)
    pipeline = application.pipeline
    first, *others = pipeline.operators
    fewer = first.knobs[0].model_copy(update={"choices": first.knobs[0].choices[:1]})
    smaller = pipeline.model_copy(update={"operators": (first.model_copy(update={"knobs": (fewer,)}), *others)})
    addresses = application.addresses()
    addresses.pipeline = smaller
    left = [c for c in application.configurations if c[first.name].as_dict()[fewer.name] == fewer.choices[0]]
    with ProfileStore(application.store) as store:
        assert set(scored_configurations(store, addresses)) == set(left)


def test_a_pipeline_of_another_name_finds_what_is_the_same(application: Application) -> None:
    profile_pipeline(application.specification, "sample", application.store)
    alike = application.pipeline.model_copy(update={"name": "alike"})
    specification = replace(application.specification, pipelines={"alike": alike})
    addresses = application.addresses()
    addresses.pipeline = alike
    with ProfileStore(application.store) as store:
        assert set(scored_configurations(store, addresses)) == set(application.configurations)
    application.clear_calls()
    profile_pipeline(specification, "alike", application.store)
    with ProfileStore(application.store) as store:
        assert {version.pipeline for version in read_versions(store)} == {"sample", "alike"}


def test_what_was_measured_under_other_names_of_operators_is_found_once_it_is_looked_at(
    application: Application,
) -> None:
    application.score_alike()  # so that both runs measure everything, whatever times they see
    profile_pipeline(application.specification, "sample", application.store)
    operators = tuple(
        o.model_copy(update={"name": f"my-{o.name}", "after": tuple(f"my-{name}" for name in o.after)})
        for o in application.pipeline.operators
    )
    renamed = application.pipeline.model_copy(update={"name": "renamed", "operators": operators})
    specification = replace(application.specification, pipelines={"renamed": renamed})
    application.clear_calls()
    found = profile_pipeline(specification, "renamed", application.store)
    assert len(found.configurations) == len(application.configurations)
    assert set(application.calls()) == {"dataset -"}


def test_arrays_are_filled_where_something_was_measured(tmp_path: Path) -> None:
    """Against a plain loop, with subjects and items in any order, and items of other data sets between them."""
    store, rng = ProfileStore(tmp_path / "store", create=True), np.random.default_rng(0)
    rows = {(int(s), int(i)): (float(rng.random()), int(rng.integers(100))) for s, i in rng.integers(1, 30, (300, 2))}
    with store.transaction():
        number = store.ids([f"hash {k}" for k in range(40)])
        store.write(
            "INSERT INTO service VALUES (?, ?, ?, ?)",
            [(number[f"hash {subject}"], item, *value) for (subject, item), value in rows.items()],
        )
        store.write(
            "INSERT INTO score VALUES (?, ?, ?)",
            [(number[f"hash {subject}"], item, value[0]) for (subject, item), value in rows.items()],
        )
    subjects, items = rng.permutation(40)[:15].tolist(), rng.permutation(40)[:17]
    services = read_services(store, [f"hash {k}" for k in subjects], items)
    scores = read_scores(store, [f"hash {k}" for k in subjects], items)
    for subject in subjects:
        for column, item in enumerate(items.tolist()):
            expected = rows.get((subject, item), (np.nan, np.nan))
            runs = services[f"hash {subject}"]
            np.testing.assert_array_equal([runs.service_s[column], runs.output_bytes[column]], expected)
            np.testing.assert_array_equal(scores[f"hash {subject}"][column], expected[0])
    assert read_scores(store, ["another"], items) == {}
    store.close()


def test_of_no_items_nothing_is_read(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "store", create=True)
    with store.transaction():
        number = store.ids(["one"])["one"]
        store.write("INSERT INTO score VALUES (?, ?, ?)", [(number, 7, 0.5)])
    assert read_scores(store, ["one"], np.array([7]))["one"].tolist() == [0.5]
    assert read_scores(store, ["one"], np.array([], dtype=np.int64))["one"].shape == (0,)
    store.close()
