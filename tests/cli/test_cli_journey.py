"""A new user's journey through all verbs, on the application that `init` writes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from budget import HANG_LIMIT_S, share_of
from circinus import Workspace, __version__
from circinus.errors import ProfileError, ServingError
from circinus.profiling import Machine, load_trace, save_trace
from circinus.serving import Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.local.capacity import MachineCapacity, require_capacity
from cli_runner import answer, as_a_new_process, in_one_line, run_circinus, run_process
from prepared import Starter


def test_init_refuses_to_overwrite(application: Path) -> None:
    before = (application / "pipeline.yaml").read_text(encoding="utf-8")
    run = run_circinus("init", cwd=application)
    assert run.returncode == 1
    assert "pipeline.yaml" in run.stderr
    assert "Traceback" not in run.stderr
    assert (application / "pipeline.yaml").read_text(encoding="utf-8") == before


def test_validate_summarises_what_was_written(application: Path) -> None:
    data = answer("validate", cwd=application, kind="validate")
    assert data["pipelines"] == {"mend": {"operators": 2, "configurations": 4}}
    assert data["queries"] == ["typing-aid", "archive"]


def test_profile_shows_what_is_known_without_measuring(application: Path) -> None:
    first = answer("profile", "--show", cwd=application, kind="profile")
    second = answer("profile", "--show", cwd=application, kind="profile")
    assert first == second
    (profile,) = first
    assert 4 <= len(profile["configurations"]) == 4 - profile["unmeasured"]
    assert profile["certificate"]["conclusive"] == profile["settled"]
    for configuration in profile["configurations"]:
        for operator in configuration["operators"].values():
            assert 0 < operator["load_s"] < operator["startup_s"]
        accuracy = configuration["accuracy"]
        assert 0 <= accuracy["lower"] <= accuracy["value"] <= accuracy["upper"] <= 1
        assert configuration["operators"]["correct"]["service_s"] > 0


@pytest.mark.slow
def test_a_trace_is_planned_on_where_there_is_neither_code_nor_data(application: Path, tmp_path: Path) -> None:
    trace = tmp_path / "words.trace"
    (known,) = answer("profile", "--show", "--record", str(trace), cwd=application, kind="profile")
    for file in application.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    run = run_circinus("plan", "--trace", "words.trace", cwd=tmp_path)
    assert run.returncode == 1
    assert "the profile store does not exist" in in_one_line(run.stderr)
    (found,) = answer("profile", "--trace", "words.trace", cwd=tmp_path, kind="profile")
    assert found["dataset_fingerprint"] == known["dataset_fingerprint"]
    assert 0 < len(found["configurations"]) <= len(known["configurations"])
    data = answer("plan", "--trace", "words.trace", cwd=tmp_path, kind="plan")
    assert [a["query"] for a in data["plan_set"]["matching"]["assignments"]] == ["typing-aid", "archive"]
    assert set(answer("explain", cwd=tmp_path, kind="explain")["queries"]) == {"typing-aid", "archive"}
    assert data["warnings"] == []
    recorded = load_trace(trace)
    save_trace(replace(recorded, machine=Machine("Another CPU", 3)), tmp_path / "far.trace")
    (far,) = answer("profile", "--trace", "far.trace", "--exhaustive", cwd=tmp_path, kind="profile")
    assert far["machine"] == {"cpu_model": "Another CPU", "cores": 3}
    assert "measured on Another CPU, 3 cores" in far["warning"]
    (warning,) = answer("plan", "--trace", "far.trace", cwd=tmp_path, kind="plan")["warnings"]
    assert warning == f"pipeline mend: {far['warning']}"
    for verb in (("profile", "--exhaustive"), ("plan",)):
        run = run_circinus(*verb, "--trace", "far.trace", cwd=tmp_path)
        assert run.returncode == 0
        assert "measured on Another CPU, 3 cores; this machine is" in " ".join(run.stdout.split())
    for arguments, message in (
        (("--trace", "words.trace", "--record", "again.trace"), "--record and --trace are mutually exclusive"),
        (("--trace", "words.trace", "--trace", "words.trace"), "a second trace of pipeline mend"),
        (("--trace", "pipeline.yaml"), "not a profile store"),
    ):
        run = run_circinus("profile", *arguments, cwd=tmp_path)
        assert run.returncode != 0
        assert message in " ".join(run.stderr.split())
        assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_machine_is_calibrated_against_what_another_measured(application: Path, tmp_path: Path) -> None:
    run = run_circinus("profile", "--calibrate", cwd=application)
    assert run.returncode == 1
    assert "no measurement of pipeline mend on another machine" in in_one_line(run.stderr)
    trace, store = str(tmp_path / "far.trace"), ("--store", str(tmp_path / "far.sqlite"))
    answer("profile", "--show", "--record", trace, cwd=application, kind="profile")
    save_trace(replace(load_trace(Path(trace)), machine=Machine("Another CPU", 3)), Path(trace))
    answer("profile", "--trace", trace, "--exhaustive", *store, cwd=application, kind="profile")
    (found,) = answer("profile", "--calibrate", "--trace", trace, *store, cwd=application, kind="calibration")
    assert found["recorded_on"] == {"cpu_model": "Another CPU", "cores": 3}
    assert 0 < found["speed"]["lower"] <= found["speed"]["value"] <= found["speed"]["upper"]
    assert set(found["operators"]) <= {"clean", "correct"}
    run = run_circinus("profile", "--calibrate", "--trace", trace, *store, cwd=application)
    assert "infrastructure entry: relative_speed: " in run.stdout


def test_plan_serves_every_query_and_keeps_its_promises(application: Path) -> None:
    data = answer("plan", cwd=application, kind="plan")
    matching = data["plan_set"]["matching"]
    assert [a["query"] for a in matching["assignments"]] == ["typing-aid", "archive"]
    assert matching["rejections"] == []
    for assignment in matching["assignments"]:
        assert assignment["chosen"]["estimate"]["latency_s"]["upper"] <= 0.5
        assert assignment["alternatives"]


def test_the_plan_runs_in_mode_real_on_a_small_machine(application: Path) -> None:
    with as_a_new_process((), application):
        workspace, plan = Workspace.open_plan(application / "plan.json")
        desired = build_desired_state(plan.matching, workspace.specification, Mode.REAL)
    small = MachineCapacity(cpus=2, memory_bytes=2.0**32, gpus=0)
    require_capacity(desired, small)
    with pytest.raises(ServingError) as caught:
        require_capacity(desired, replace(small, cpus=1))
    assert caught.value.code == "engine.machine_too_small"


def test_explain_names_plan_objectives_and_alternatives(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    run = run_circinus("explain", "plan.json", "archive", cwd=application)
    assert run.returncode == 0, run.stderr
    assert 60 < max(map(len, run.stdout.splitlines())) <= 72
    assert run_circinus("explain", "archive", cwd=application).stdout == run.stdout
    assert "archive" in run.stdout
    assert "typing-aid  mend from till" not in run.stdout
    assert "alternatives" in run.stdout
    assert "pipeline mend:" in run.stdout
    assert "of 4 configurations were measured" in in_one_line(run.stdout)
    explained = answer("explain", cwd=application, kind="explain")
    found = explained["queries"]
    assert set(found) == {"typing-aid", "archive"}
    assert all(sized["startup_s"] > 0 for sized in explained["deployments"])
    assert explained["prices"]
    (known,) = answer("profile", "--show", cwd=application, kind="profile")
    for decision in found.values():
        assert decision["search"]["measured"] == 4 - known["unmeasured"]
        assert decision["search"]["unmeasured"] == known["unmeasured"]


def test_a_budget_begins_with_the_command(application: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets_s = []

    def profile(workspace: Workspace, names: list[str], *, budget: float, **options: object) -> None:
        budgets_s.append(budget)
        raise ProfileError("measures nothing", code="test.stopped")

    monkeypatch.setattr(Workspace, "profile", profile)
    for elapsed_s in (1.0, 30.0):
        monkeypatch.setattr("circinus.cli.profile.elapsed_s", lambda elapsed_s=elapsed_s: elapsed_s)
        assert run_circinus("profile", "--budget", "5s", cwd=application).returncode == 1
    assert budgets_s == [4.0, 0.5]


def test_reading_imports_nothing_that_plans_or_serves(application: Path) -> None:
    """Speed itself is not asserted; what makes it slow is."""
    code = (
        "import sys\nfrom circinus.cli import main\nfor verb in ('explain', 'status'):\n    sys.argv[1:] = [verb]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        print('CODE', end.code)\n"
        "print('LOADED', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=application, capture_output=True, text=True, check=True)
    printed, _, modules = run.stdout.rpartition("LOADED")
    assert re.findall(r"CODE (\d)", printed) == ["0", "1"]
    parts = ("control", "profiling.profile", "estimation.estimator", "planning.ladder", "serving.local.daemon")
    assert not {"numpy", "sqlite3", "multiprocessing", *(f"circinus.{part}" for part in parts)} & set(modules.split())


def test_simulate_runs_the_plans_and_finds_what_was_promised(application: Path) -> None:
    found = answer(
        "simulate", "--duration", "30min", "--load-factor", "2x", "--seed", "7", cwd=application, kind="simulate"
    )
    assert [query["query"] for query in found["queries"]] == ["typing-aid", "archive"]
    assert all(query["satisfied"] for query in found["queries"])
    assert found["goodput"] == found["total_weight"] == 2
    assert (found["load_factor"], found["duration_s"], found["seed"]) == (2.0, 1800.0, 7)
    again = answer(
        "simulate", "--duration", "30min", "--load-factor", "2", "--seed", "7", cwd=application, kind="simulate"
    )
    assert again["queries"] == found["queries"]
    run = run_circinus("simulate", "--duration", "6min", cwd=application)
    assert run.returncode == 0, run.stderr
    assert "typing-aid" in run.stdout
    assert run_circinus("simulate", "--load-factor", "0x", cwd=application).returncode == 2


def test_an_impossible_query_is_told_what_would_be_served(application: Path, tmp_path: Path) -> None:
    text = (application / "queries.yaml").read_text(encoding="utf-8").replace("p95 <= 500ms", "p95 <= 50us")
    queries = application / "impossible.yaml"
    queries.write_text(text, encoding="utf-8")
    data = answer(
        "plan", "pipeline.yaml", "infrastructure.yaml", "impossible.yaml", "-o", str(tmp_path / "impossible.json"),
        cwd=application, kind="plan",
    )  # fmt: skip
    (rejection,) = data["plan_set"]["matching"]["rejections"]
    assert rejection["query"] == "archive"
    assert rejection["binding"][0] == "latency"
    explained = answer("explain", "impossible.json", "archive", cwd=tmp_path, kind="explain")
    assert "latency" in explained["queries"]["archive"]["relaxation"]["change"]


def test_a_plan_that_serves_nobody_ends_with_1_and_is_not_applied(application: Path, tmp_path: Path) -> None:
    text = (application / "queries.yaml").read_text(encoding="utf-8")
    lines = ["    - latency p95 <= 1us" if "latency" in line else line for line in text.splitlines()]
    queries = application / "hopeless.yaml"
    queries.write_text("\n".join(lines) + "\n", encoding="utf-8")
    plan_file = str(tmp_path / "hopeless.json")
    arguments = "plan", "pipeline.yaml", "infrastructure.yaml", "hopeless.yaml", "-o", plan_file
    data = answer(*arguments, cwd=application, kind="plan", code=1)
    assert not data["plan_set"]["matching"]["assignments"]
    run = run_circinus("apply", plan_file, "--run-dir", str(tmp_path / "engine"), cwd=application)
    assert run.returncode == 1
    assert "the plan serves no query" in in_one_line(run.stderr)
    assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["real", "replay"][: share_of(2)])
def test_apply_load_status_destroy(
    application: Path, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = str(tmp_path / "engine")
    lines: list[str] = []
    monkeypatch.setattr("circinus.cli.output.ElapsedTime.__call__", lambda _, task: lines.append(task))
    plan_file = "plan.json"
    tokens = tmp_path / "tokens"
    tokens.write_text("* " + "t" * 32, encoding="ascii")
    options = ("--mode", mode, "--run-dir", run_dir, "--http-tokens", str(tokens))
    refused = run_circinus("apply", plan_file, *options, cwd=application)
    assert refused.returncode == 1
    assert "chmod 600" in in_one_line(refused.stderr)
    tokens.chmod(0o600)
    lines.clear()
    applied = answer("apply", plan_file, *options, cwd=application, kind="apply")
    try:
        assert applied["healthy"]
        assert applied["mode"] == mode
        planned = sum(deployment["target_replicas"] for deployment in applied["deployments"])
        assert lines[0] == f"starting replicas: 0 of {planned}"
        with closing(sqlite3.connect(application / ".circinus" / "profiles.sqlite")) as store, store:
            store.execute("UPDATE run_times SET wait_s = elapsed_s")
            store.execute("DELETE FROM checksum")
        report = answer(
            "load", plan_file, "--duration", "1s", "--warm-up", "0.5s", "--run-dir", run_dir,
            cwd=application, kind="load",
        )  # fmt: skip
        assert report["mode"] == mode
        assert len(report["warnings"]) == (mode == "replay")
        assert all("clean" in warning and "correct" in warning for warning in report["warnings"])
        assert not report["observations_kept"]  # too few requests
        assert report["promises"] >= 1
        for query in report["queries"]:
            if query["served"]:
                assert query["requests"] > 0
                assert query["failures"] == query["unanswered"] == 0
                assert 0 < query["score"] <= 1
                assert query["latency_s"]["p50_s"] > 0
        served = next(query["query"] for query in report["queries"] if query["served"])
        _check_requests(served, plan_file, mode, run_dir, application)
        status = answer("status", "--run-dir", run_dir, cwd=application, kind="status")
        assert status["healthy"]
        assert status["http"].startswith("http://127.0.0.1:")
        with pytest.raises(HTTPError) as unauthorized:
            urlopen(Request(f"{status['http']}/till/{served}", b"1", method="POST"), timeout=HANG_LIMIT_S)
        assert unauthorized.value.code == 401
        assert all(deployment["startup_s"] > 0 for deployment in status["deployments"])
        assert sum(deployment["requests"] for deployment in status["deployments"]) > 0
        if mode == "replay":
            other = _another_plan(application, tmp_path)
            run = run_circinus("load", other, "--duration", "1s", "--run-dir", run_dir, cwd=application)
            assert run.returncode == 1
            assert "runs another plan" in in_one_line(run.stderr)
            assert "circinus apply" in in_one_line(run.stderr)
    finally:
        assert answer("destroy", "--run-dir", run_dir, cwd=application, kind="destroy")["ended"]
    assert not answer("destroy", "--run-dir", run_dir, cwd=application, kind="destroy")["ended"]
    run = run_circinus("status", "--run-dir", run_dir, cwd=application)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr


def _check_requests(query: str, plan_file: str, mode: str, run_dir: str, application: Path) -> None:
    command = "request", query, "--plan", plan_file, "--run-dir", run_dir
    sent = answer(*command, cwd=application, kind="request")
    assert list(sent["operators"]) == ["clean", "correct"]
    assert all(operator["pool"] for operator in sent["operators"].values())
    parts_s = [operator["service_s"] + operator["wait_s"] for operator in sent["operators"].values()]
    assert sum(parts_s) + sent["transfer_s"] >= sent["latency_s"] - 1e-9
    run = run_circinus(*command, "--item", sent["item"], cwd=application)
    assert (run.returncode, run.stdout) == (0, f"{sent['output']}\n")
    assert run.stderr.count("\n") == 2 + len(sent["operators"])
    (application / "input.txt").write_text("the quick fox\n", encoding="utf-8")
    run = run_circinus(*command, "input.txt", "--output", "output.txt", cwd=application)
    if mode == "real":
        assert (run.returncode, run.stdout) == (0, "")
        assert len((application / "output.txt").read_text(encoding="utf-8").split()) == 3
    else:
        assert run.returncode == 1
        assert "--item" in run.stderr
    for code, arguments in ((2, ("input.txt", "--item", "1")), (1, ("--item", "none")), (1, ("absent.txt",))):
        run = run_circinus(*command, *arguments, cwd=application)
        assert run.returncode == code, run.stderr
        assert "Traceback" not in run.stderr
    assert run_circinus("request", "nobody", *command[2:], cwd=application).returncode == 2


def _another_plan(application: Path, folder: Path) -> str:
    infrastructure = folder / "here.yaml"
    infrastructure.write_text(
        "apiVersion: circinus/v1\nkind: Infrastructure\nmetadata: {name: here}\nspec:\n  sites: [here]\n  pools:\n"
        "    - {name: here, site: here, tier: edge, cpus: 2, memory: 1GiB, hardware: {class: local}}\n",
        encoding="utf-8",
    )
    queries = folder / "queries.yaml"
    queries.write_text(
        "apiVersion: circinus/v1\nkind: Query\nmetadata: {name: typing-aid}\nspec:\n  pipeline: mend\n  source: here\n"
        "  rate: 5/s\n  slos: [latency p95 <= 5s, accuracy >= 0.5]\n",
        encoding="utf-8",
    )
    plan_file = folder / "here.json"
    store = application / ".circinus" / "profiles.sqlite"
    answer(
        "plan", "pipeline.yaml", str(infrastructure), str(queries), "-o", str(plan_file), "--store", str(store),
        cwd=application, kind="plan",
    )  # fmt: skip
    return str(plan_file)


def test_replay_without_the_profiles_is_refused(application: Path, tmp_path: Path) -> None:
    store = application / ".circinus" / "profiles.sqlite"
    store.unlink()
    run = run_circinus("apply", "plan.json", "--mode", "replay", "--run-dir", str(tmp_path / "e"), cwd=application)
    assert run.returncode == 3
    assert "profile store" in in_one_line(run.stderr)


def test_the_version_is_printed(tmp_path: Path) -> None:
    run = run_circinus("--version", cwd=tmp_path)
    assert run.returncode == 0
    assert run.stdout.strip() == __version__


def test_large_spaces_are_counted_not_listed(application: Path, tmp_path: Path) -> None:
    text = (application / "pipeline.yaml").read_text(encoding="utf-8")
    choices = ", ".join(str(number) for number in range(1, 1000))
    text = text.replace("[first-letter, all]", f"[{choices}]").replace("choices: [1, 2]", f"choices: [{choices}]")
    (tmp_path / "pipeline.yaml").write_text(text, encoding="utf-8")
    data = answer("validate", "--no-operators", str(tmp_path / "pipeline.yaml"), cwd=tmp_path, kind="validate")
    assert data["pipelines"]["mend"]["configurations"] == 999 * 999


def test_a_file_that_cannot_be_written_is_one_message(application: Path, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("", encoding="utf-8")
    run = run_circinus("plan", "-o", str(tmp_path / "afile" / "plan.json"), cwd=application)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "plan.json" in run.stderr
    assert run_circinus("init", str(tmp_path / "afile" / "x"), cwd=application).returncode == 1


def test_a_stale_plan_is_refused(application: Path, tmp_path: Path) -> None:
    queries = application / "queries.yaml"
    before = queries.read_text(encoding="utf-8")
    queries.write_text(before.replace("rate: 5/s", "rate: 6/s"), encoding="utf-8")
    run = run_circinus("apply", "plan.json", "--mode", "replay", "--run-dir", str(tmp_path / "e"), cwd=application)
    assert run.returncode == 3
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "e").exists()


def test_a_query_that_is_added_in_a_file_of_its_own_waits_for_a_plan(application: Path) -> None:
    first = (application / "queries.yaml").read_text(encoding="utf-8").split("---")[0]
    further = application / "further.yaml"
    further.write_text(first.replace("typing-aid", "another"), encoding="utf-8")
    run = run_circinus("explain", "archive", cwd=application)
    assert run.returncode == 0
    assert "circinus admit another" in in_one_line(run.stderr)


def test_faults_end_with_2_and_write_nothing(application: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "apiVersion: circinus/v1\nkind: Query\nmetadata: {name: q}\nspec:\n"
        "  pipelin: mend\n  source: moon\n  rate: 5\n",
        encoding="utf-8",
    )
    faults = answer(
        "plan", "pipeline.yaml", "infrastructure.yaml", str(tmp_path / "bad.yaml"), "-o", str(tmp_path / "p.json"),
        cwd=application, kind="error", code=2,
    )["diagnostics"]  # fmt: skip
    assert {fault["line"] for fault in faults} >= {5, 7}
    assert any("pipeline" in fault["hint"] for fault in faults)
    assert not (tmp_path / "p.json").exists()


def test_planning_without_profiles_says_what_to_do(tmp_path: Path) -> None:
    assert run_circinus("init", cwd=tmp_path).returncode == 0
    run = run_circinus("plan", cwd=tmp_path)
    assert run.returncode == 1
    assert "circinus profile" in in_one_line(run.stderr)
    assert not (tmp_path / "plan.json").exists()


def test_a_budget_plans_from_nothing_and_says_what_was_measured(starter: Starter, application: Path) -> None:
    data = starter.planned
    assert len(data["plan_set"]["matching"]["assignments"]) == 2
    found = data["searches"]["mend"]
    assert found["measured"] + found["unmeasured"] == 4
    assert found["certificate"]["conclusive"]
    run = run_circinus("plan", "--budget", "60s", cwd=application)
    assert f"pipeline mend: {found['measured']} of 4 configurations were measured" in in_one_line(run.stdout)


def test_the_schema_is_json(tmp_path: Path) -> None:
    run = run_circinus("schema", cwd=tmp_path)
    assert json.loads(run.stdout)["$schema"].startswith("https://json-schema.org/draft/2020-12")


@pytest.mark.slow
def test_a_real_process_prints_the_same_and_ends_with_the_same_code(application: Path) -> None:
    (application / "further").mkdir()
    (application / "further" / "bad.yaml").write_text("kind: Nonsense\n", encoding="utf-8")
    queries = application / "queries.yaml"
    queries.write_text(queries.read_text(encoding="utf-8").replace("rate: 5/s", "rate: 6/s"), encoding="utf-8")
    for code, arguments in (
        (0, ("validate", "--json")),
        (1, ("status",)),
        (2, ("validate", "further")),
        (2, ("validate", "--jsn")),
        (3, ("explain",)),
    ):
        real, here = run_process(*arguments, cwd=application), run_circinus(*arguments, cwd=application)
        assert real.returncode == here.returncode == code, real.stderr
        assert real.stdout == here.stdout
        # Usage begins with how the interpreter was started: by pytest here.
        assert real.stderr == re.sub(r"python -m pytest\S*", "python -m circinus", here.stderr)
