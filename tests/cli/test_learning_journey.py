"""Plans corrected by traffic on a real engine. A replay sleeps computed times, so the machine's speed is irrelevant."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from circinus.profiling import ServiceTimeObservation, load_observations, save_observations
from cli_runner import answer, run_circinus

PROMISED, EMULATED = 0.4, 0.5
"""Relative speeds of one hardware class: the lower bound that guarantees use, and the emulated one."""


@pytest.fixture
def application(application: Path) -> Path:
    """Return the profiled starter application, all in one pool that is faster than its guaranteed speed."""
    (application / "infrastructure.yaml").write_text(
        "apiVersion: circinus/v1\nkind: Infrastructure\nmetadata: {name: shop}\nspec:\n  sites: [shop]\n  pools:\n"
        "    - name: shop\n      site: shop\n      tier: edge\n      nodes: 2\n      cpus: 8\n      memory: 32GiB\n"
        f"      hardware: {{class: server, relative_speed: {EMULATED}, relative_speed_bounds: [{PROMISED}, 0.6]}}\n"
        "      price: $0.40/h\n",
        encoding="utf-8",
    )
    queries = application / "queries.yaml"
    text = queries.read_text(encoding="utf-8").replace("source: till", "source: shop")
    text = text.replace("source: backroom", "source: shop").replace("rate: 5/s", "rate: 40/s")
    queries.write_text("\n".join(line for line in text.splitlines() if "cost" not in line) + "\n", encoding="utf-8")
    run = run_circinus("profile", cwd=application)  # goes on for the other objectives
    assert run.returncode == 0, run.stderr
    return application


def replayed(application: Path, *options: str) -> Any:
    """Return the load report of the plan in a replay by a new engine."""
    run_circinus("destroy", cwd=application)
    answer("apply", "--mode", "replay", cwd=application, kind="apply")
    return answer("load", "--duration", "2.5s", "--warm-up", "0.5s", *options, cwd=application, kind="load")


def plan(application: Path, *options: str) -> Any:
    return answer("plan", "--from-scratch", *options, cwd=application, kind="plan")["plan_set"]


def means_s(plan_set: Any) -> dict[tuple[str, str], float]:
    """Return (query, operator) -> estimated mean service time."""
    return {
        (a["query"], stage["operator"]): stage["service_s"]
        for a in plan_set["matching"]["assignments"]
        for stage in a["chosen"]["estimate"]["stages"]
    }


@pytest.mark.thorough
def test_traffic_corrects_later_plans_and_corrections_do_not_compound(application: Path) -> None:
    store = application / ".circinus" / "profiles.sqlite"
    plain = plan(application)
    assert plain["corrections"] == {"entries": []}
    first = replayed(application)
    if not first["lateness"]["late"]:  # a busy machine is refused, whatever it would show
        assert not first["observations_kept"]
        assert first["learning"]["refused"] == []
        for seen in first["learning"]["observations"]:
            # Batches at the ends of the test have items outside it, if the machine is busy enough to form them.
            assert math.exp(seen["log_ratio"]) == pytest.approx(PROMISED / EMULATED, rel=0.02)
            assert seen["mode"] == "replay"
        assert first["learning"]["observations"]
        assert load_observations(store) == ()
    assert plan(application)["corrections"] == {"entries": []}  # a replay says nothing of the hardware

    uses = {"clean": "starter.operators:clean", "correct": "starter.operators:Correct"}
    versions = plain["code_versions"]
    (profile,) = answer("profile", "--show", cwd=application, kind="profile")
    seen_really = [
        ServiceTimeObservation(
            at=datetime.now(UTC).isoformat(),
            mode="real",
            plan="",
            pipeline="mend",
            operator=operator,
            uses=uses[operator],
            version=versions[uses[operator]],
            knobs=next(iter(_knobs(plain, operator))),
            hardware_class="server",
            speed=PROMISED,
            profiled_on=_machine(profile),
            cpus=1.0,
            batch_size=1,
            log_ratio=math.log(1.5),
            standard_error=0.01,
            requests=500,
            items=16,
        )
        for operator in uses
    ]
    save_observations(store, seen_really)
    corrected = plan(application)
    factors = {(e["uses"], str(e["knobs"])): e["factor"]["value"] for e in corrected["corrections"]["entries"]}
    assert len(factors) == 4
    assert all(1.1 < factor < 1.5 for factor in factors.values())
    without = plan(application, "--no-corrections", "-o", "without.json")
    assert without["corrections"] == {"entries": []}
    assert means_s(without) == means_s(plain)
    same = means_s(plain).keys() & means_s(corrected).keys()
    assert same
    if [a["chosen"]["plan"] for a in plain["matching"]["assignments"]] == [
        a["chosen"]["plan"] for a in corrected["matching"]["assignments"]
    ]:
        for key in same:
            # Slower replicas also form larger batches; twice the correction would be more than 2.
            assert 1.1 < means_s(corrected)[key] / means_s(plain)[key] < 2.0

    text = " ".join(run_circinus("plan", "--from-scratch", cwd=application).stdout.split())
    assert "corrections: service times of 2 operators on server" in text
    shown = run_circinus("explain", cwd=application).stdout
    assert "Corrections: observed relative to profiled service times" in " ".join(shown.split())
    for decision in answer("explain", cwd=application, kind="explain")["queries"].values():
        assert len(decision["corrections"]) == 4

    # The plan is not stale by what is observed later, and what it shows is still held against the profile alone.
    save_observations(store, [replace(one, log_ratio=0.0) for one in seen_really])
    second = replayed(application, "--no-keep-observations")
    assert not second["observations_kept"]
    for seen in second["learning"]["observations"]:
        assert math.exp(seen["log_ratio"]) == pytest.approx(PROMISED / EMULATED, rel=0.02)
    assert load_observations(store) == (*seen_really, *(replace(one, log_ratio=0.0) for one in seen_really))
    (profile,) = answer("profile", "--show", cwd=application, kind="profile")
    assert len(profile["observations"]) == len(load_observations(store))

    listed = answer("forget", cwd=application, kind="forget")
    assert not listed["taken_back"]
    assert {(row["operator"], row["runs"]) for row in listed["operators"]} == {("clean", 2), ("correct", 2)}
    taken = answer("forget", "--operator", "clean", "--pipeline", "mend", cwd=application, kind="forget")
    assert taken["taken_back"]
    assert {seen["operator"] for seen in taken["observations"]} == {"clean"}
    assert {entry["uses"] for entry in plan(application)["corrections"]["entries"]} == {uses["correct"]}
    assert answer("forget", "--operator", "clean", cwd=application, kind="error", code=1)["code"] == "forget.no_match"
    answer("forget", "--all", cwd=application, kind="forget")
    assert plan(application)["corrections"] == {"entries": []}


def _machine(profile: Any) -> Any:
    from circinus.profiling import Machine

    return Machine(**profile["machine"])


def _knobs(plan_set: Any, operator: str) -> set[Any]:
    from circinus.specification import KnobValues

    return {
        KnobValues(tuple((name, value) for name, value in values["values"]))
        for a in plan_set["matching"]["assignments"]
        for name, values in a["chosen"]["plan"]["configuration"]["operators"]
        if name == operator
    }
