from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circinus.errors import PlanningError, StalePlanError
from circinus.matching import (
    add_rejected,
    covered_part,
    load_plan_set,
    make_plan_set,
    plan_all_queries,
    require_fresh,
    save_plan_set,
)
from circinus.matching.inline_specification import InlineSpecification
from circinus.matching.plan_set import SCHEMA_VERSION, PlanFile
from circinus.operators import resolve_operator
from circinus.specification import CostSlo, LatencySlo, Query, RecordedArrivals, Slos, Specification
from circinus.specification.limits import MAX_DOCUMENT_BYTES
from circinus.testing.random_instances import random_infrastructure, random_pipeline, random_profile, random_query
from golden import check_message
from planning_instances import UNFITTED, everywhere, slower
from raised import raises_code

OPERATORS = """
from circinus.operators import operator

@operator
def repeat(text, *, size=1):
    return text * size
"""


@pytest.fixture(scope="session")
def specification(tmp_path_factory: pytest.TempPathFactory) -> Specification:
    folder = tmp_path_factory.mktemp("application")
    (folder / "plan_file_operators.py").write_text(OPERATORS, encoding="utf-8")
    rng = np.random.default_rng(5)
    pipeline = random_pipeline(rng, operators=2, knobs=[2, 1], cpus=(1.0, 2.0))
    operators = tuple(o.model_copy(update={"uses": "plan_file_operators:repeat"}) for o in pipeline.operators)
    queries = [random_query(rng, pipeline, name=f"query{i}", tightness=2.0) for i in range(3)]
    impossible = Slos(latency=LatencySlo(limit_s=1e-5), cost=CostSlo(limit_usd_per_h=0.1))
    queries.append(queries[0].model_copy(update={"name": "impossible", "slos": impossible}))
    return Specification(
        {pipeline.name: pipeline.model_copy(update={"operators": operators})},
        random_infrastructure(rng),
        tuple(queries),
        module_paths=(folder,),
        files=(folder / "all.yaml",),
    )


@pytest.fixture(scope="session")
def plan_set(specification: Specification) -> PlanFile:
    (pipeline,) = specification.pipelines.values()
    profile = random_profile(np.random.default_rng(6), pipeline)
    uses = pipeline.operators[0].uses
    version = resolve_operator(uses, specification.module_paths).version
    profiles = {pipeline.name: replace(profile, code_versions={uses: version})}
    matching, _ = plan_all_queries(specification, profiles, settings=UNFITTED)
    assert matching.assignments
    assert matching.rejections
    folder = specification.files[0].parent
    return make_plan_set(
        specification,
        profiles,
        matching,
        plan_file=folder / "plans" / "plan.json",
        profile_store=folder / ".circinus" / "profiles.sqlite",
        seed=7,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        planning_s=0.1 + 0.2,
    )


def test_reads_back_exactly_what_was_written(plan_set: PlanFile, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    save_plan_set(plan_set, file)
    assert load_plan_set(file) == plan_set.moved_to(tmp_path)
    text = file.read_text(encoding="utf-8")
    assert '"others"' not in text
    assert '"parts": [' not in text
    file.write_text(text.replace('"allocations": [', '"others": [],\n"allocations": ['), encoding="utf-8")
    assert load_plan_set(file) == plan_set.moved_to(tmp_path)


def test_a_plan_in_another_folder_names_the_files_it_was_made_from(
    plan_set: PlanFile, specification: Specification, tmp_path: Path
) -> None:
    copies = [tmp_path / "plan.json", tmp_path / "deep" / "er" / "copy.json"]
    save_plan_set(plan_set, copies[0])
    save_plan_set(load_plan_set(copies[0]), copies[1])
    folder = specification.files[0].parent
    for copy in copies:
        assert "folder" not in json.loads(copy.read_text(encoding="utf-8"))
        found = load_plan_set(copy)
        assert (copy.parent / found.files[0]).resolve() == (folder / "all.yaml").resolve()
        assert (copy.parent / found.profile_store).resolve() == (folder / ".circinus" / "profiles.sqlite").resolve()
    assert load_plan_set(copies[1]).moved_to(plan_set.folder) == plan_set


def test_all_plans_and_rungs_have_their_latest_starts_and_files_without_them_are_read(
    plan_set: PlanFile, specification: Specification, tmp_path: Path
) -> None:
    limits_s = {q.name: None if q.slos.latency is None else q.slos.latency.limit_s for q in specification.queries}
    for assignment in plan_set.matching.assignments:
        assert assignment.ladder is not None
        for candidate in (assignment.chosen, *(rung.candidate for rung in assignment.ladder.rungs)):
            limit_s = limits_s[candidate.query]
            for stage in candidate.estimate.stages:
                assert (stage.latest_start_s is None) == (limit_s is None)
                assert limit_s is None or 0 <= (stage.latest_start_s or 0.0) < limit_s
    path = tmp_path / "plan.json"
    save_plan_set(plan_set, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    for assigned in document["matching"]["assignments"]:
        for stage in assigned["chosen"]["estimate"]["stages"]:
            del stage["latest_start_s"]
    path.write_text(json.dumps(document), encoding="utf-8")
    read = [stage for a in load_plan_set(path).matching.assignments for stage in a.chosen.estimate.stages]
    assert {stage.latest_start_s for stage in read} == {None}


def test_plans_from_before_start_ups_were_told_are_read(plan_set: PlanFile, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan_set(plan_set, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    for sized in document["matching"]["deployments"]:
        assert sized.pop("startup_s") > 0
    path.write_text(json.dumps(document), encoding="utf-8")
    found = load_plan_set(path)
    assert [replace(sized, startup_s=None) for sized in plan_set.matching.deployments] == [*found.matching.deployments]


_LATER = {
    "fill_ratios",
    "batch_wait_s",
    "after",
    "cube_s3",
    "jitter_s",
    "modulation",
    "doubts",
    "simulated",
    "corrections",
}


def _earlier(value: Any) -> Any:
    """Without what plans did not tell of once."""
    if isinstance(value, dict):
        return {name: _earlier(part) for name, part in value.items() if name not in _LATER}
    return [_earlier(part) for part in value] if isinstance(value, list) else value


def test_plans_from_before_batches_and_bursts_were_told_are_read(plan_set: PlanFile, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    save_plan_set(plan_set, file)
    written = json.loads(file.read_text(encoding="utf-8"))
    earlier = _earlier(written)
    assert earlier.pop("slos").keys() >= {a.query for a in plan_set.matching.assignments}
    file.write_text(json.dumps(earlier), encoding="utf-8")
    read = load_plan_set(file)
    assert read.slos == {}
    assert [a.chosen.plan for a in read.matching.assignments] == [a.chosen.plan for a in plan_set.matching.assignments]
    assert not any(a.chosen.estimate.caveats for a in read.matching.assignments)


def test_every_chosen_plan_is_a_rung_of_its_ladder(plan_set: PlanFile, tmp_path: Path) -> None:
    save_plan_set(plan_set, tmp_path / "plan.json")
    for assignment in load_plan_set(tmp_path / "plan.json").matching.assignments:
        ladder = assignment.ladder
        assert ladder is not None
        assert ladder.rungs[ladder.chosen].candidate.plan == assignment.chosen.plan
        assert all(rung.candidate.estimate.slo_probability is not None for rung in ladder.rungs)
    assert any(len(a.ladder.rungs) > 1 for a in plan_set.matching.assignments if a.ladder is not None)


def test_names_files_relative_to_the_plan(plan_set: PlanFile) -> None:
    assert plan_set.files == ("../all.yaml",)
    assert plan_set.profile_store == "../.circinus/profiles.sqlite"
    assert plan_set.hardware_class == "local"


def test_a_plan_that_cannot_be_written_leaves_the_old_one(
    plan_set: PlanFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    save_plan_set(plan_set, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("circinus.specification.atomic_file.os.fsync", full)
    with raises_code(PlanningError, "plan.unwritable") as caught:
        save_plan_set(replace(plan_set, planning_s=9.0), path)
    assert "No space left on device" in caught.value.message
    assert caught.value.location == str(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_number_that_is_none_is_not_written(plan_set: PlanFile, tmp_path: Path) -> None:
    with raises_code(PlanningError, "plan.not_finite"):
        save_plan_set(replace(plan_set, planning_s=math.nan), tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


def _without_rungs(document: Any) -> str:
    ladder = next(filter(None, (assignment["ladder"] for assignment in document["matching"]["assignments"])))
    ladder["rungs"] = []
    return json.dumps(document)


@pytest.mark.parametrize(
    ("damage", "code", "values"),
    [
        (lambda text: text[: len(text) // 2], "plan.invalid_json", ()),
        (lambda text: "[" * 100_000, "plan.invalid_json", ()),
        (lambda text: "[]", "plan.wrong_kind", ("None", "PlanSet")),
        (lambda text: json.dumps({**json.loads(text), "kind": "Pipeline"}), "plan.wrong_kind", ("Pipeline",)),
        (
            lambda text: json.dumps({**json.loads(text), "schema_version": 99}),
            "plan.wrong_version",
            ("99", str(SCHEMA_VERSION)),
        ),
        (lambda text: json.dumps({**json.loads(text), "planning_s": "soon"}), "plan.damaged", ("planning_s",)),
        (
            lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "matching"}),
            "plan.damaged",
            ("matching",),
        ),
        (lambda text: _without_rungs(json.loads(text)), "plan.damaged", ("ladder",)),
    ],
)
def test_what_is_no_plan_file_is_refused(
    plan_set: PlanFile, tmp_path: Path, damage, code: str, values: tuple[str, ...]
) -> None:
    path = tmp_path / "plan.json"
    save_plan_set(plan_set, path)
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with raises_code(PlanningError, code) as caught:
        load_plan_set(path)
    assert caught.value.location == str(path)
    assert all(value in caught.value.message for value in values)


def test_what_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with raises_code(PlanningError, "file.missing") as caught:
        load_plan_set(tmp_path / "plan.json")
    check_message("matching/missing_plan_file", str(caught.value).replace(f"{tmp_path}/", ""))
    with raises_code(PlanningError, "plan.unreadable"):
        load_plan_set(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):  # devices may never end, and pipes may block
        with raises_code(PlanningError, "plan.unreadable") as caught:
            load_plan_set(path)
        assert caught.value.hint
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    with raises_code(PlanningError, "plan.unreadable"):
        load_plan_set(tmp_path / "large.json")
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with raises_code(PlanningError, "plan.invalid_json"):
        load_plan_set(tmp_path / "plan.json")


def test_a_plan_is_fresh_as_long_as_nothing_changed(plan_set: PlanFile, specification: Specification) -> None:
    require_fresh(plan_set, specification)
    reordered = replace(specification, queries=tuple(reversed(specification.queries)))
    require_fresh(plan_set, reordered)


@pytest.mark.parametrize(
    "path",
    [
        ("deployments", 0, "deployment", "pool"),
        ("deployments", 0, "deployment", "operator"),
        ("assignments", 0, "query"),
        ("assignments", 0, "chosen", "query"),
        ("assignments", 0, "chosen", "plan", "pipeline"),
        ("assignments", 0, "chosen", "plan", "placement", 0, 0),
        ("assignments", 0, "chosen", "plan", "placement", 0, 1),
        ("assignments", 0, "chosen", "plan", "allocations", 0, 0),
        ("assignments", 0, "chosen", "plan", "configuration", "operators", 0, 0),
        ("assignments", 0, "chosen", "estimate", "stages", 0, "pool"),
        ("assignments", 0, "chosen", "deployments", 0, "deployment", "pipeline"),
        ("assignments", 0, "ladder", "rungs", 0, "candidate", "plan", "placement", 0, 1),
        ("assignments", 0, "alternatives", 0, "plan", "placement", 0, 1),
        ("prices", 0, "resource"),
    ],
)
def test_a_plan_with_names_of_another_specification_is_refused(
    path: tuple[str | int, ...], plan_set: PlanFile, specification: Specification, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    save_plan_set(plan_set, file)
    document = json.loads(file.read_text(encoding="utf-8"))
    part = document["matching"]
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = "foreign"
    file.write_text(json.dumps(document), encoding="utf-8")
    with raises_code(PlanningError, "plan.damaged") as caught:
        require_fresh(load_plan_set(file), specification, location="plan.json")
    assert caught.value.location == "plan.json"


def _with_queries(specification: Specification, *queries: Query) -> Specification:
    return replace(specification, queries=queries)


def test_a_stale_plan_is_told_which_document_changed(plan_set: PlanFile, specification: Specification) -> None:
    first, *others = specification.queries
    faster = first.model_copy(update={"rate_per_s": first.rate_per_s * 2})
    with raises_code(StalePlanError, "plan.stale") as caught:
        require_fresh(plan_set, _with_queries(specification, faster, *others))
    check_message("matching/stale_plan", str(caught.value))
    assert f"query {first.name} changed" in caught.value.message
    assert others[0].name not in caught.value.message
    with raises_code(StalePlanError, "plan.stale") as caught:
        require_fresh(plan_set, _with_queries(specification, *others), location="plan.json")
    assert caught.value.location == "plan.json"
    assert f"query {first.name} is gone" in caught.value.message
    more = first.model_copy(update={"name": "more"})
    require_fresh(plan_set, _with_queries(specification, first, more, *others))
    assert specification.infrastructure is not None
    pool = specification.infrastructure.pools[0]
    pools = (pool.model_copy(update={"nodes": pool.nodes + 1}), *specification.infrastructure.pools[1:])
    larger = specification.infrastructure.model_copy(update={"pools": pools})
    with raises_code(StalePlanError, "plan.stale") as caught:
        require_fresh(plan_set, replace(specification, infrastructure=larger))
    assert f"infrastructure {larger.name} changed" in caught.value.message


def test_a_rejection_holds_until_its_query_is_edited(plan_set: PlanFile, specification: Specification) -> None:
    found = replace(plan_set.matching, weight_with_more_changes=plan_set.matching.total_weight)
    plan_set = replace(plan_set, matching=found)
    assert covered_part(plan_set, specification) == (plan_set, specification)
    impossible = next(query for query in specification.queries if query.name == "impossible")
    (rejection,) = (rejection for rejection in plan_set.matching.rejections if rejection.query == "impossible")
    others = [query for query in specification.queries if query.name != "impossible"]
    edited = impossible.model_copy(update={"rate_per_s": impossible.rate_per_s * 2})
    for changed in (_with_queries(specification, *others), _with_queries(specification, *others, edited)):
        require_fresh(plan_set, changed)
        part, covered = covered_part(plan_set, changed)
        assert [query.name for query in covered.queries] == [query.name for query in others]
        assert rejection not in part.matching.rejections
        assert part.matching.assignments == plan_set.matching.assignments
        assert part.matching.weight_with_more_changes is None
        assert part.matching.total_weight == pytest.approx(plan_set.matching.total_weight - impossible.weight)
        again = add_rejected(part.matching, rejection, specification)
        assert rejection in again.rejections
        assert again.total_weight == pytest.approx(plan_set.matching.total_weight)
        assert again.weight_bound >= plan_set.matching.weight_bound
        assert add_rejected(again, rejection, specification) == again


def test_a_plan_is_stale_when_an_operators_code_is_another(plan_set: PlanFile, specification: Specification) -> None:
    (uses,) = plan_set.code_versions
    older = replace(plan_set, code_versions={uses: "older"})
    with raises_code(StalePlanError, "plan.stale") as caught:
        require_fresh(older, specification)
    assert f"the code of {uses} changed" in caught.value.message
    part, covered = covered_part(older, specification)
    assert part.matching.rejections == ()
    assert {query.name for query in covered.queries} == {entry.query for entry in plan_set.matching.assignments}
    assert covered_part(older, specification, compares_code=False) == (older, specification)


def test_a_plan_is_stale_without_its_profiles(plan_set: PlanFile, specification: Specification, tmp_path: Path) -> None:
    store = tmp_path / "profiles.sqlite"
    with raises_code(StalePlanError, "plan.stale") as caught:
        require_fresh(plan_set, specification, profile_store=store)
    assert str(store) in caught.value.message
    store.touch()
    require_fresh(plan_set, specification, profile_store=store)


def test_a_plan_keeps_the_corrections_that_it_was_made_with(
    specification: Specification, plan_set: PlanFile, tmp_path: Path
) -> None:
    (pipeline,) = specification.pipelines.values()
    assert specification.infrastructure is not None
    corrections = everywhere(pipeline, specification.infrastructure, 1.25)
    save_plan_set(replace(plan_set, corrections=corrections), tmp_path / "plan.json")
    found = load_plan_set(tmp_path / "plan.json")
    assert found.corrections == corrections
    require_fresh(found, specification)
    document = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    del document["corrections"]  # as it was written before there were any
    (tmp_path / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    assert load_plan_set(tmp_path / "plan.json") == plan_set.moved_to(tmp_path)


def test_all_queries_as_sized_are_estimated_with_corrections(specification: Specification, plan_set: PlanFile) -> None:
    """As if all had been measured to take twice as long: frontiers, promises and what is said under the merged load."""
    (pipeline,) = specification.pipelines.values()
    assert specification.infrastructure is not None
    profile = random_profile(np.random.default_rng(6), pipeline)
    corrections = everywhere(pipeline, specification.infrastructure, 2.0)
    found, expected = (
        plan_all_queries(specification, {pipeline.name: one}, settings=UNFITTED, explain_rejections=())[0]
        for one in (corrections.applied_to(profile, pipeline), slower(profile, 2.0))
    )
    assert [a.chosen.plan for a in found.assignments] == [a.chosen.plan for a in expected.assignments]
    assert [d.nodes for d in found.deployments] == [d.nodes for d in expected.deployments]
    for one, other in zip(found.assignments, expected.assignments, strict=True):
        latency_s, expected_s = one.chosen.estimate.latency_s, other.chosen.estimate.latency_s
        assert latency_s.value == pytest.approx(expected_s.value)
        assert latency_s.upper == pytest.approx(expected_s.upper)
    assert found.cost_usd_per_h == pytest.approx(expected.cost_usd_per_h)
    latencies_s = [[a.chosen.estimate.latency_s.value for a in m.assignments] for m in (found, plan_set.matching)]
    assert latencies_s[0] > latencies_s[1]


def test_recordings_of_a_specification_made_in_python_are_found_from_any_folder(
    specification: Specification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another recording of this name lies in the folder of the reader."""
    for name, times in (("writer", "1\n2\n"), ("reader", "1\n3\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "calls.csv").write_text(f"time_s\n{times}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "writer")
    recorded = specification.queries[0].model_copy(update={"arrivals": RecordedArrivals(file="calls.csv")})
    made = Specification.of(tuple(specification.pipelines.values()), specification.infrastructure, [recorded])
    monkeypatch.chdir(tmp_path / "reader")
    inline = InlineSpecification.of(made, tmp_path / "plans")
    assert inline is not None
    moved = inline.moved(tmp_path / "plans", tmp_path / "reader" / "copies")
    for read in (inline.load(tmp_path / "plans" / "plan.json"), moved.load(Path("copies/plan.json"))):
        assert (read, read.module_paths) == (made, ())
        assert InlineSpecification.of(read, tmp_path / "plans") == inline
