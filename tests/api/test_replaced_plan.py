"""Load test of a real engine whose plan another process replaces."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

import circinus as c
from circinus.serving import DesiredState, Mode
from circinus.serving.loadtest.load_test import LoadProgress
from circinus.serving.state_serialization import state_fingerprint
from cli_runner import as_a_new_process
from prepared import prepared_starter


@pytest.mark.thorough
def test_a_replaced_plan_is_named_and_teaches_nothing(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = prepared_starter(tmp_path_factory).copy(tmp_path / "application")
    with as_a_new_process((), folder):
        workspace = c.Workspace(".")
        plan = workspace.load_plan()
        with workspace.deploy(plan, mode="replay") as deployment:
            tested = deployment._opened.desired_state(Mode.REPLAY)
            other = replace(tested, routes=tuple(replace(route, audit_rate=0.5) for route in tested.routes))
            replacing = threading.Thread(target=_apply, args=(workspace, other))

            def begin(_: LoadProgress) -> None:
                if replacing.ident is None:
                    replacing.start()

            report = deployment.load_test(duration="4s", warm_up="0s", on_progress=begin)
            replacing.join()
    document = report.to_dict()
    (replacement,) = document["replacements"]
    assert (replacement["previous_state"], replacement["state"]) == tuple(map(state_fingerprint, (tested, other)))
    # A busy machine adds warnings of its own.
    (warning,) = (warning for warning in document["warnings"] if "plan.json (state" in warning)
    assert f"plan.json (state {replacement['previous_state'][:8]})" in warning
    assert f"to state {replacement['state'][:8]}" in warning
    assert document["totals"]["requests"] == sum(row["requests"] for row in report.rows())
    assert not document["observations_kept"]


def _apply(workspace: c.Workspace, state: DesiredState) -> None:
    from circinus.api.synchronous import run

    async def apply() -> None:
        async with workspace.engine.connected() as engine:
            await engine.apply(state)

    run(apply)
