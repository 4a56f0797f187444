"""Results as text, their columns without rows, and faulty arguments of the methods that make them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import circinus as c
from circinus.api.quantities import Duration, seconds
from circinus.api.result import Result, _RowTable
from circinus.estimation import Corrections
from circinus.matching import PlanDiff, PlanFile
from circinus.serving import EngineStatus, Mode
from circinus.specification.code_references import reference_to
from cli_runner import as_a_new_process
from planning_instances import everywhere
from prepared import prepared_starter
from raised import raises_code
from split_plans import split_plans


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[c.Workspace]:
    """The starter application, profiled and planned; its folder is the working folder."""
    folder = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    with as_a_new_process((), folder):
        yield c.Workspace(".")


@pytest.fixture
def hopeless(workspace: c.Workspace) -> c.Workspace:
    """The starter application with an SLO that no plan can meet."""
    return _with_slo(workspace, "latency p95 <= 1us")


def _with_slo(workspace: c.Workspace, slo: str) -> c.Workspace:
    slos = c.Slos.parse(slo)
    queries = [query.model_copy(update={"slos": slos}) for query in workspace.specification.queries]
    specification = workspace.specification
    assert specification.infrastructure is not None
    changed = c.Specification.of(specification.pipelines.values(), specification.infrastructure, queries)
    return c.Workspace(changed, store=workspace.store)


def test_a_result_is_short_as_a_representation_and_a_table_as_text(
    workspace: c.Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = workspace.load_plan()
    assert repr(plan) == "<Plan: 2 rows>"
    for result in (plan, workspace.validate(), workspace.profile_report(), workspace.frontier("archive")):
        assert len(repr(result)) < 80
        text, cells = str(result), [str(value) for row in result.rows() for value in row.values()]
        assert len(text) < 500 + 1.5 * sum(map(len, cells))
        assert all(line == line.rstrip() and len(line) <= 80 for line in text.splitlines())
        result.print()
        assert capsys.readouterr().out.split() == str(result).split()
    assert all(query in str(plan) for query in plan)
    assert "latency" in str(workspace.explain(plan))


def test_the_frontier_marks_the_choice_of_a_plan(workspace: c.Workspace) -> None:
    plan = workspace.load_plan()
    frontier = workspace.frontier("archive", plan)
    assert sum(row["chosen"] for row in frontier.rows()) == 1
    assert frontier.to_dict()["as_sized"]["latency_s"] == plan["archive"].chosen.estimate.latency_s.value
    keys = [tuple(row[name] for name in ("configuration", "placement", "allocation")) for row in frontier.rows()]
    assert len(set(keys)) == len(keys)
    assert {row["chosen"] for row in workspace.frontier("archive").rows()} == {None}


def test_a_frontier_has_the_corrections_of_its_plan(workspace: c.Workspace) -> None:
    plan, specification = workspace.load_plan(), workspace.specification
    (pipeline,) = specification.pipelines.values()
    assert specification.infrastructure is not None
    profile = workspace.profile_report()[pipeline.name]
    corrections = Corrections(
        tuple(
            replace(entry, version=profile.code_versions[entry.uses], profiled_on=profile.machine)
            for entry in everywhere(pipeline, specification.infrastructure, 1000.0).entries
        )
    )
    corrected = replace(plan, file=replace(plan.file, corrections=corrections))
    fastest_s = min(row["latency_s"] for row in workspace.frontier("archive", plan).rows())
    # A factor that no other allocation makes up for, whatever this machine measured; it may leave no plan at all.
    assert all(row["latency_s"] > 2 * fastest_s for row in workspace.frontier("archive", corrected).rows())


def test_the_parts_of_a_split_plan_are_rows_and_stay_in_its_file(tmp_path: Path) -> None:
    controlled, _, plans = split_plans(5)
    file = PlanFile({}, (), {}, 0, "profiles.sqlite", "local", controlled.matching, "2026-11-28T11:01:26+00:00", 0.5)
    changes = PlanDiff.between(replace(controlled.matching, assignments=()), controlled.matching)
    plan = c.Plan(file, changes=changes)
    assert c.Plan.load(plan.save(tmp_path / "plan.json")).matching == controlled.matching
    document, rows = plan.to_dict(), {row["query"]: row for row in plan.rows()}
    assert plans
    assert {name: [row["share"] for row in document["divided"][name]] for name in plans} == {
        name: [part.share for part in split.parts] for name, split in plans.items()
    }
    assert {name: document["changes"]["divided"][name] for name in plans} == {name: [[], [0.6, 0.4]] for name in plans}
    for name in plans:
        parts = document["divided"][name]
        found = [part.estimate for part in plan[name].parts]
        assert [row["accuracy"] for row in parts] == [estimate.accuracy.value for estimate in found]
        assert [row["latency_s"] for row in parts] == [estimate.latency_s.value for estimate in found]
        assert rows[name]["placement"].startswith("60% ") or parts[0]["placement"] == parts[1]["placement"]
    whole = tuple(replace(a, chosen=a.chosen.parts[0]) for a in controlled.matching.assignments)
    unsplit = c.Plan(replace(file, matching=replace(controlled.matching, assignments=whole)), changes=changes)
    assert "divided" not in unsplit.to_dict()


def test_a_frontier_without_plans_has_columns_and_a_reason(hopeless: c.Workspace) -> None:
    frontier = hopeless.frontier("archive")
    assert frontier.rows() == []
    assert "latency_s" in frontier.to_frame().columns
    assert "latency" in str(frontier)


def test_a_rejected_query_is_missing_with_its_reason(hopeless: c.Workspace) -> None:
    plan = hopeless.plan()
    with pytest.raises(KeyError, match="archive was rejected: "):
        plan["archive"]
    assert plan.get("archive") is None
    assert len(repr(plan.rejected)) < 1_000
    assert {row["binding"] for row in hopeless.explain(plan).rows()} == {"latency"}


def test_an_explanation_has_the_pipelines_that_were_measured_since(hopeless: c.Workspace) -> None:
    plan = hopeless.plan()
    assert hopeless.explain(plan).measured_since == ()
    (name,) = plan.file.coverage
    fewer = replace(plan.file.coverage[name], scores=plan.file.coverage[name].scores - 1)
    older = replace(plan, file=replace(plan.file, coverage={name: fewer}))
    assert hopeless.explain(older).measured_since == (name,)


def test_rejected_queries_without_a_search_for_changes_are_named(
    hopeless: c.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = hopeless.plan()
    first, *others = plan.rejected
    monkeypatch.setattr("circinus.api.planning_service._MAX_ADVISED", 1)
    assert hopeless.explain(plan).unsearched == tuple(others)
    assert hopeless.explain(plan, [first]).unsearched == ()
    entries = hopeless.explain(plan).to_dict()["queries"]
    assert [name for name in plan.rejected if entries[name]["unsearched"]] == others


def test_reasons_of_rejections_name_the_metric(workspace: c.Workspace) -> None:
    metric = workspace.specification.metric_names["archive"]
    too_accurate = _with_slo(workspace, "accuracy >= 1")
    plan = too_accurate.plan()
    (row,) = too_accurate.explain(plan, ["archive"]).rows()
    named = f"{metric} "
    assert row["relaxation"].startswith(f"{metric} >= 1 -> ")
    assert [named in found["reason"] for found in plan.rows()] == [True, True]
    with pytest.raises(KeyError, match=named):
        plan["archive"]
    frontier = too_accurate.frontier("archive")
    assert named in " ".join(str(frontier).split())
    assert frontier.metric == metric


@pytest.mark.parametrize("duration", ["30 seconds", "2m", "", "-5s", -5, math.nan, math.inf, 10**400, True])
def test_what_is_no_duration_has_a_code(duration: Duration) -> None:
    with raises_code(c.CircinusError, "usage.invalid_value") as caught:
        seconds(duration)
    assert caught.value.hint


def test_a_duration_of_zero_needs_no_unit() -> None:
    assert seconds("0") == seconds(0) == seconds("0s") == 0.0


def test_a_column_may_begin_with_many_empty_cells() -> None:
    class Sparse(Result):
        def rows(self) -> list[dict[str, Any]]:
            return [{"latency_s": None} for _ in range(150)] + [{"latency_s": 0.5}]

        def _document(self) -> Any:
            return {}

    assert list(Sparse().to_frame()["latency_s"])[-1] == 0.5


def test_a_wrong_value_has_the_name_of_its_argument(workspace: c.Workspace) -> None:
    plan: Any = workspace.load_plan()
    attached = workspace.attach(plan)
    wrong: list[tuple[str, Callable[..., object], Any]] = [
        ("load_factor", partial(workspace.simulate, plan), -1),
        ("load_factor", attached.load_test, "2x"),
        ("duration", partial(workspace.simulate, plan), 0),
        ("duration", attached.load_test, "10 apples"),
        ("seed", partial(workspace.simulate, plan), -1),
        ("seed", partial(workspace.simulate, plan), 2**63),
        ("items", attached.load_test, 0),
        ("items", attached.load_test, True),
        ("items", partial(workspace.deploy, plan, mode="replay"), 0.5),
        ("mode", partial(workspace.deploy, plan), "reply"),
        ("mode", partial(workspace.control, plan), "reply"),
        ("timeout", partial(attached.request, "archive"), math.nan),
        ("timeout", partial(attached.submit, "archive", ""), 0),
        ("budget", workspace.plan, "2m"),
        ("interval", c.ControlOptions, 0),
        ("audit_rate", c.ControlOptions, 2),
        ("engine", c.Workspace, "Ray"),
        ("engine", c.Workspace, ["ray"]),
        ("kind", lambda **kind: list(workspace.engine.events(**kind)), "stepp"),
        ("metrics", c.ControlOptions, 9000),
        ("metrics", c.ControlOptions, ("localhost", 65_536)),
        ("http", c.Workspace, (1, None)),
        ("max_changes", workspace.plan, -1),
        ("max_plans", workspace.plan, 0),
        ("plan", workspace.simulate, "plan.json"),
        ("specification", c.Workspace, [*workspace.specification.pipelines.values()]),
        ("pipelines", c.Specification.of, *workspace.specification.pipelines.values()),
        ("infrastructure", c.Specification.of, [workspace.specification.infrastructure]),
        ("queries", c.Specification.of, {"archive": workspace.specification.queries[0]}),
        ("sources", workspace.plan, {"mend": "mend.trace"}),
    ]
    for name, call, value in wrong:
        with raises_code(c.CircinusError, "usage.invalid_value") as caught:
            call(**{name: value})
        assert caught.value.location == name


def test_sources_are_not_measured_on_ray(workspace: c.Workspace) -> None:
    on_ray = c.Workspace(workspace.specification, store=workspace.store, engine="ray")
    with raises_code(c.ProfileError, "profile.sources_on_ray"):
        on_ray.profile(sources={"mend": object()})  # type: ignore[dict-item]


def test_a_built_in_function_is_no_operator() -> None:
    with raises_code(c.OperatorError, "operator.built_in"):
        reference_to(len)


def test_a_row_without_a_text_has_no_line_for_it() -> None:
    console = Console(width=20)
    with console.capture() as capture:
        console.print(_RowTable([{"query": "a", "slos": "latency p95 <= 300ms"}, {"query": "b", "slos": ""}]))
    assert capture.get().splitlines()[1:] == ["a", "  latency p95 <=", "  300ms", "b"]


def test_the_status_is_short_as_text() -> None:
    assert str(EngineStatus(Mode.REPLAY, (), ("a", "b"))) == "2 queries served in mode replay"


@pytest.mark.parametrize("model", [c.Query, c.Pool, c.Link, c.Pipeline, c.Knob])
def test_a_signature_has_field_names_and_plain_types(model: type) -> None:
    signature = inspect.signature(model)
    assert list(signature.parameters) == list(model.model_fields)  # type: ignore[attr-defined]
    assert "Annotated" not in str(signature)
