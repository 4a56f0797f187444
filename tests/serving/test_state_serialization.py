"""Desired states as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.state_serialization import state_fingerprint, state_from_json, state_to_json, validate_state
from circinus.specification.base_model import Scalar
from circinus.testing.desired_states import StageSpec, chain, route, split_route
from circinus.testing.desired_states import state as state_of
from raised import raises_code

SCALARS = st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), SCALARS, max_size=3),
    st.integers(1, 9),
    st.sampled_from(Mode),
    st.none() | st.just(Path("/a/store.sqlite")),
)
def test_states_come_back_equal(knobs: dict[str, Scalar], replicas: int, mode: Mode, recordings: Path | None) -> None:
    first = StageSpec("first", "add", knobs=tuple(sorted(knobs.items())), replicas=replicas, batch_wait_s=replicas / 10)
    state = replace(
        chain("q", first, StageSpec("second", "pair", after=("first", "first"), pool="far")),
        mode=mode,
        recordings=recordings,
        module_paths=(Path("/x"), Path("/y z")),
    )
    back = state_from_json(state_to_json(state))
    assert back == state
    # 1, 1.0 and True are equal in Python, and three different knob values.
    assert repr(back.deployments) == repr(state.deployments)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, '{"schema_version": 2, "state": {}}', '{"schema_version": 99}'),
        *(f'{{"schema_version": 2, "state": {{"routes": [{route}]}}}}' for route in ('"admitted_per_s"', "1", "null")),
    ],
)
def test_damaged_documents_are_refused(text: str) -> None:
    with pytest.raises(ServingError) as caught:
        state_from_json(text)
    assert caught.value.code == ("engine.other_schema" if "99" in text else "engine.unreadable_state")


def test_document_names_its_schema_version() -> None:
    document = json.loads(state_to_json(GIVEN))
    assert document["schema_version"] == 4
    assert "others" not in document["state"]["routes"][0]
    assert json.loads(state_to_json(SPLIT))["schema_version"] == 5  # an older engine would serve one part only
    paused = replace(SPLIT, routes=tuple(route.paused() for route in SPLIT.routes))
    assert json.loads(state_to_json(paused))["schema_version"] == 7
    assert state_from_json(state_to_json(paused)) == paused
    assert state_from_json(state_to_json(SPLIT)) == SPLIT


def test_every_part_of_a_split_route_needs_its_deployments_and_a_share() -> None:
    validate_state(SPLIT)
    with raises_code(ServingError, "route.missing_deployment"):
        validate_state(replace(SPLIT, deployments=SPLIT.deployments[:1]))
    for share in (0.0, 1.0):
        others = replace(SPLIT.routes[0].others[0], share=share)
        with raises_code(ServingError, "route.invalid_shares"):
            validate_state(replace(SPLIT, routes=(replace(SPLIT.routes[0], others=(others,)),)))


def test_a_document_of_the_version_before_is_read_with_what_is_new_by_default() -> None:
    state = chain("q", StageSpec("first", "add"))
    document = json.loads(state_to_json(state))
    document["schema_version"] = 2
    for route_document in document["state"]["routes"]:
        del route_document["audit_rate"]
    assert state_from_json(json.dumps(document)) == state


def test_routes_of_version_3_are_renamed() -> None:
    state = replace(chain("q", StageSpec("first", "add")))
    state = replace(state, routes=tuple(replace(r, audit_rate=0.25, rate_limit_per_s=7.0) for r in state.routes))
    document = json.loads(state_to_json(state))
    document["schema_version"] = 3
    for route_document in document["state"]["routes"]:
        route_document["audited_share"] = route_document.pop("audit_rate")
        route_document["admitted_per_s"] = route_document.pop("rate_limit_per_s")
    assert state_from_json(json.dumps(document)) == state


FIRST, OTHER = StageSpec("first", "add", knobs=(("amount", 1),)), StageSpec("other", "add")
ROUTES = [route("a", FIRST), route("b", OTHER)]
GIVEN = state_of(ROUTES, [FIRST, OTHER])
FAR = replace(FIRST, pool="far")
SPLIT = state_of([split_route("a", (0.7, [FIRST]), (0.3, [FAR]))], [FIRST, FAR])


@pytest.mark.parametrize(
    "same",
    [
        state_of(ROUTES[::-1], [OTHER, FIRST]),
        state_from_json(state_to_json(GIVEN)),
        replace(GIVEN, module_paths=(Path("elsewhere"),), recordings=Path("store.sqlite")),
        replace(GIVEN, deployments=tuple(replace(d, cpus=int(d.cpus) or d.cpus) for d in GIVEN.deployments)),
    ],
)
def test_fingerprint_is_that_of_what_runs(same: DesiredState) -> None:
    assert state_fingerprint(same) == state_fingerprint(GIVEN)


@pytest.mark.parametrize(
    "different",
    [
        replace(GIVEN, mode=Mode.REPLAY),
        replace(GIVEN, routes=GIVEN.routes[:1]),
        replace(GIVEN, routes=tuple(replace(route, audit_rate=0.1) for route in GIVEN.routes)),
        replace(GIVEN, infrastructure=GIVEN.infrastructure.model_copy(update={"links": ()})),
        replace(GIVEN, deployments=tuple(replace(d, replicas=d.replicas + 1) for d in GIVEN.deployments)),
        replace(GIVEN, deployments=tuple(replace(d, operator_version="new") for d in GIVEN.deployments)),
        replace(GIVEN, deployments=tuple(replace(d, batch_wait_s=0.02) for d in GIVEN.deployments)),
        state_of(ROUTES, [replace(FIRST, knobs=(("amount", True),)), OTHER]),
        state_of([split_route("a", (0.5, [FIRST]), (0.5, [OTHER])), ROUTES[1]], [FIRST, OTHER]),
    ],
)
def test_fingerprint_tells_states_apart(different: DesiredState) -> None:
    assert state_fingerprint(different) != state_fingerprint(GIVEN)
