"""Planning with a running plan: replanning all queries, and admitting one more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli_runner import answer, answered, in_one_line, run_circinus

QUERY = """apiVersion: circinus/v1
kind: Query
metadata: {{name: {name}}}
spec:
  {{pipeline: mend, source: {source}, rate: {rate}/s, split: false, slos: [latency p95 <= {latency}, accuracy >= 0.7]}}
"""


def add(application: Path, name: str, *, source: str = "till", rate: float = 1, latency: str = "500ms") -> None:
    text = QUERY.format(name=name, source=source, rate=rate, latency=latency)
    (application / f"{name}.yaml").write_text(text, encoding="utf-8")


def plans(document: Any) -> dict[str, Any]:
    """Return the plan of each query, in files and as printed: files leave out that it has no further parts."""
    return {a["query"]: {"others": []} | a["chosen"]["plan"] for a in document["matching"]["assignments"]}


def plan_file(application: Path) -> Any:
    return json.loads((application / "plan.json").read_text(encoding="utf-8"))


def test_nothing_changes_where_nothing_changed(application: Path) -> None:
    before = plan_file(application)
    compared = run_circinus("plan", "--diff", "-v", "--json", cwd=application)
    data = answered(compared, "plan")
    assert data["from"] == "plan.json"
    assert data["changes"] == {
        "unchanged": ["archive", "typing-aid"], "changed": [], "stopped": [], "new": [], "removed": [], "replicas": {},
    }  # fmt: skip
    assert plans(data["plan_set"]) == plans(before)
    assert " INFO circinus.api" in compared.stderr
    run = run_circinus("plan", cwd=application)
    assert "changes: 0 of 2 queries of the previous plan get another, 0 new, 0 removed" in " ".join(run.stdout.split())
    assert plans(plan_file(application)) == plans(before)


def test_what_came_and_went_is_said(application: Path) -> None:
    add(application, "another")
    queries = application / "queries.yaml"
    queries.write_text(queries.read_text(encoding="utf-8").split("---")[0], encoding="utf-8")
    before = plan_file(application)
    compared = answer("plan", "--diff", "--churn-price", "$1/h", cwd=application, kind="plan", code=4)
    assert plan_file(application) == before
    data = answer("plan", "--churn-price", "$1/h", cwd=application, kind="plan")
    assert data["changes"] == compared["changes"]
    assert data["changes"]["new"] == ["another"]
    assert data["changes"]["removed"] == ["archive"]
    assert data["changes"]["unchanged"] == ["typing-aid"]


def test_from_another_file_and_afresh(application: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    shutil.copy(application / "plan.json", kept)
    error = answer("explain", str(kept), cwd=application, kind="error", code=2)
    assert (error["code"], error["location"]) == ("plan.missing_specification", str(kept))
    data = answer("plan", "--from", str(kept), "-o", str(tmp_path / "new.json"), cwd=application, kind="plan")
    assert data["from"] == str(kept)
    assert data["changes"]["changed"] == []
    data = answer("plan", "--from-scratch", cwd=application, kind="plan")
    assert data["from"] is None
    assert data["changes"] is None
    run = run_circinus("plan", "--from-scratch", "--from", str(kept), cwd=application)
    assert run.returncode == 2
    assert (
        answer("plan", "--diff", "-o", "none.json", cwd=application, kind="error", code=1)["code"]
        == "plan.no_incumbent"
    )
    assert "--from-scratch and --from are mutually exclusive" in " ".join(run.stderr.split())
    run = run_circinus("plan", "--diff", "--from-scratch", "--json", cwd=application)
    data = json.loads(run.stdout)["data"]
    assert data["from"] == "plan.json"
    is_changed = any(names for change, names in data["changes"].items() if change != "unchanged")
    assert run.returncode == 4 * is_changed


def test_a_bound_on_changes_and_its_price(application: Path) -> None:
    data = answer("plan", "--max-changes", "0", "--churn-price", "$0.01/h", cwd=application, kind="plan")
    assert data["changes"]["unchanged"] == ["archive", "typing-aid"]
    for arguments, message in (
        (("--churn-price", "soon"), "soon"),
        (("--churn-price", "-1"), "found '-1'"),
        (("--max-changes", "-1"), "max-changes"),
    ):
        run = run_circinus("plan", *arguments, cwd=application)
        assert run.returncode != 0
        assert message in in_one_line(run.stderr)
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: text.replace('"schema_version": 4', '"schema_version": 2'), "schema version must be 4, got 2"),
        (lambda text: '{"kind": "Pipeline"}', "got Pipeline"),
    ],
)
def test_a_previous_plan_that_cannot_be_read(application: Path, damage: Any, message: str) -> None:
    path = application / "plan.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    run = run_circinus("plan", "--from", "plan.json", "-o", "new.json", cwd=application)
    assert run.returncode == 1
    assert "plan.json" in run.stderr
    assert message in in_one_line(run.stderr)
    assert not (application / "new.json").exists()
    data = answer("plan", cwd=application, kind="plan")
    assert any(message in warning and "plan.json" in warning for warning in data["warnings"])
    assert data["changes"] is None
    assert len(plans(plan_file(application))) == 2


def test_a_previous_plan_that_is_not_there(application: Path) -> None:
    run = run_circinus("plan", "--from", "nowhere.json", cwd=application)
    assert run.returncode == 2
    assert "nowhere.json: no such file" in in_one_line(run.stderr)


def test_one_more_query_is_let_in_and_the_plan_is_whole_again(application: Path) -> None:
    before = plan_file(application)
    add(application, "another")
    dry = answer("admit", "another", "--dry-run", cwd=application, kind="admit")
    assert dry["admitted"]
    assert dry["written"] is None
    assert plan_file(application) == before
    error = answer("explain", "another", cwd=application, kind="error", code=1)
    assert (error["code"], error["location"]) == ("query.not_planned", "plan.json")
    run = run_circinus("admit", "another", cwd=application)
    assert run.returncode == 0, run.stderr
    assert "written to plan.json" in run.stdout
    after = plan_file(application)
    assert {name: plan for name, plan in plans(after).items() if name != "another"} == plans(before)
    assert plans(after)["another"] == dry["assignment"]["chosen"]["plan"]
    found = answer("explain", cwd=application, kind="explain")
    assert set(found["queries"]) == {"typing-aid", "archive", "another"}
    assert answer("admit", "another", cwd=application, kind="admit")["admitted"]
    assert plan_file(application) == after
    data = answer("plan", "--churn-price", "$1/h", cwd=application, kind="plan")
    assert data["changes"]["unchanged"] == ["another", "archive", "typing-aid"]


def test_queries_are_let_in_one_after_the_other(application: Path) -> None:
    add(application, "one")
    add(application, "two", source="backroom")
    assert answer("admit", "one", cwd=application, kind="admit")["admitted"]
    run = run_circinus("explain", "--json", cwd=application)
    assert set(json.loads(run.stdout)["data"]["queries"]) == {"typing-aid", "archive", "one"}
    assert "circinus admit two" in in_one_line(run.stderr)
    assert "circinus admit one" not in run.stderr
    assert answer("admit", "two", cwd=application, kind="admit")["admitted"]
    assert run_circinus("explain", cwd=application).returncode == 0


def test_a_refused_query_is_told_what_binds_and_what_would_let_it_in(application: Path) -> None:
    before = plan_file(application)
    add(application, "hasty", latency="50us")
    assert answer("admit", "hasty", "--dry-run", cwd=application, kind="admit", code=1)["written"] is None
    assert plan_file(application) == before
    data = answer("admit", "hasty", cwd=application, kind="admit", code=1)
    assert not data["admitted"]
    # The times are measured: an operator slow enough to need more replicas makes a pool binding, too.
    assert "latency" in data["rejection"]["binding"]
    assert "latency" in data["rejection"]["relaxation"]["change"]
    add(application, "greedy", rate=10_000_000)
    data = answer("admit", "greedy", cwd=application, kind="admit", code=1)
    assert data["rejection"]["binding"]
    after = plan_file(application)
    assert plans(after) == plans(before)
    assert after["matching"]["deployments"] == before["matching"]["deployments"]
    assert after["matching"]["total_weight"] == before["matching"]["total_weight"] + 2
    explained = answer("explain", cwd=application, kind="explain")["queries"]
    assert set(explained) == {"typing-aid", "archive", "hasty", "greedy"}
    assert explained["hasty"]["relaxation"]["change"]
    add(application, "hasty", latency="60us")
    assert set(answer("explain", cwd=application, kind="explain")["queries"]) == {"typing-aid", "archive", "greedy"}


def test_a_query_that_was_rejected_may_ask_again_under_other_objectives(application: Path) -> None:
    add(application, "hasty", latency="50us")
    answer("plan", cwd=application, kind="plan")
    add(application, "hasty", latency="500ms")
    assert answer("admit", "hasty", cwd=application, kind="admit")["admitted"]
    after = plan_file(application)
    assert after["matching"]["rejections"] == []
    assert after["matching"]["total_weight"] == 3.0
    assert run_circinus("explain", cwd=application).returncode == 0


def test_what_cannot_be_asked(application: Path) -> None:
    run = run_circinus("admit", "nobody", cwd=application)
    assert run.returncode == 2
    assert "no query nobody" in " ".join(run.stderr.split())
    run = run_circinus("admit", "archive", "--plan", "nowhere.json", cwd=application)
    assert run.returncode == 2
    assert "nowhere.json" in run.stderr
    queries = application / "queries.yaml"
    queries.write_text(queries.read_text(encoding="utf-8").replace("rate: 5/s", "rate: 6/s"), encoding="utf-8")
    add(application, "another")
    for name in ("another", "typing-aid"):
        run = run_circinus("admit", name, cwd=application)
        assert run.returncode == 3
        assert "query typing-aid changed" in " ".join(run.stderr.split())
        assert "Traceback" not in run.stderr


def test_limits_on_changes_want_a_plan_that_can_be_changed(application: Path) -> None:
    run = run_circinus("plan", "--from-scratch", "--max-changes", "0", cwd=application)
    assert run.returncode == 2
    assert "have no effect with --from-scratch" in " ".join(run.stderr.replace("│", " ").split())
    plan_file = application / "plan.json"
    plan_file.write_text("nothing of use", encoding="utf-8")
    run = run_circinus("plan", "--max-changes", "0", cwd=application)
    assert run.returncode == 1
    assert "--churn-price and --max-changes need the running plan" in " ".join(run.stderr.split())
    assert plan_file.read_text(encoding="utf-8") == "nothing of use"


@pytest.mark.parametrize("verb", [("plan",), ("plan", "--diff"), ("size", "--quick")])
def test_a_rejection_fails_only_where_that_is_requested(application: Path, verb: tuple[str, ...]) -> None:
    add(application, "urgent", latency="1us")
    run = run_circinus(*verb, "--json", cwd=application)
    assert run.returncode == 0
    assert "urgent" in json.dumps(json.loads(run.stdout)["data"])
    assert run_circinus(*verb, "--fail-on-rejection", cwd=application).returncode == 1
    (application / "urgent.yaml").unlink()
    assert run_circinus(*verb, "--fail-on-rejection", cwd=application).returncode == 0
