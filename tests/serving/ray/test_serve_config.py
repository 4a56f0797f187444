"""Ray Serve configuration against Ray's own schema."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from circinus.errors import ServingError
from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.recording_key import RecordingKey
from circinus.serving.ray.serve_config import build_router_configs, serve_schema
from circinus.serving.ray.settings import RaySettings
from circinus.serving.ray.site_router import config_from_dict, config_to_dict
from circinus.testing.desired_states import StageSpec, chain, split_route, state
from raised import raises_code

NEAR = StageSpec("start", "add", replicas=3, batch_size=4, batch_wait_s=0.5)
FAR = StageSpec("next", "add", after=("start",), pool="far", batch_wait_s=0.5)


def _schema(desired: DesiredState, labelled: tuple[str, ...] = ()) -> dict[str, dict[str, object]]:
    applications = build_applications(desired)
    schema = serve_schema(
        applications,
        build_router_configs(desired, applications),
        desired.infrastructure,
        RaySettings(),
        recordings=desired.recordings,
        labelled=labelled,
    )
    assert schema["http_options"] == {"host": "127.0.0.1", "port": 8000}
    return {app["name"]: app for app in schema["applications"]}


def test_the_document_is_one_that_ray_serve_takes() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    for labelled in ((), ("near", "far")):
        apps = _schema(chain("q", NEAR, FAR), labelled)
        deployed = schema.ServeDeploySchema(applications=list(apps.values()))
        assert {app.name for app in deployed.applications} == set(apps)


def test_tokens_stay_until_others_are_given() -> None:
    desired = chain("q", NEAR, FAR)
    applications = build_applications(desired)
    first, second = (HttpTokens.parse(f"* {letter * 32}", "test") for letter in "ab")
    open_to_all = build_router_configs(desired, applications).values()
    assert {config.tokens for config in open_to_all} == {""}
    assert all("tokens" not in config_to_dict(config) for config in open_to_all)
    closed = build_router_configs(desired, applications, [*open_to_all], first).values()
    assert {(config.tokens, config.number) for config in closed} == {(first.text, 2)}
    assert [config_from_dict(config_to_dict(config)) for config in closed] == [*closed]
    kept = build_router_configs(desired, applications, [*closed][:1]).values()  # the other router was lost
    assert {config.tokens for config in kept} == {first.text}
    changed = build_router_configs(desired, applications, [*closed], second).values()
    assert {(config.tokens, config.number) for config in changed} == {(second.text, 3)}


def test_replicas_are_as_many_as_large_and_where_the_plan_says() -> None:
    apps = _schema(chain("q", NEAR, FAR))
    (start,) = (app for name, app in apps.items() if name.startswith("start-near-"))
    (deployment,) = start["deployments"]  # type: ignore[misc]
    assert deployment["num_replicas"] == 3
    options = deployment["ray_actor_options"]
    assert options == {"num_cpus": 0.1, "num_gpus": 0.0, "memory": 2**20, "resources": {"pool:near": 0.001}}
    labelled = _schema(chain("q", NEAR, FAR), ("near",))
    (deployment,) = labelled[start["name"]]["deployments"]  # type: ignore[index, misc]
    assert deployment["ray_actor_options"]["label_selector"] == {"circinus/pool": "near"}


def test_every_site_has_a_router_that_knows_its_own_deployments_and_sources() -> None:
    desired = chain("q", NEAR, FAR)
    configs = build_router_configs(desired, build_applications(desired))
    assert {site: [d.deployment.operator for d in config.deployments.values()] for site, config in configs.items()} == {
        "home": ["start"],
        "center": ["next"],
    }
    assert {site: [route.query for route in config.routes] for site, config in configs.items()} == {
        "home": ["q"],
        "center": [],
    }
    assert [d.batch_wait_s for config in configs.values() for d in config.deployments.values()] == [0.5, 0.5]
    assert all(config_from_dict(config_to_dict(config)) == config for config in configs.values())


def test_changed_configurations_get_larger_numbers_and_others_stay() -> None:
    desired = chain("q", NEAR, FAR)
    applications = build_applications(desired)
    first = build_router_configs(desired, applications)
    deployed = [config_from_dict(config_to_dict(config)) for config in first.values()]
    assert build_router_configs(desired, applications, deployed) == first
    larger = chain("q", replace(NEAR, replicas=4), FAR)
    second = build_router_configs(larger, build_applications(larger), deployed)
    assert {config.number for config in second.values()} == {1 + max(config.number for config in deployed)}


def test_replays_need_no_cpus_and_name_what_they_answer_from() -> None:
    other = replace(NEAR, pool="far")
    split = split_route("q", (0.7, [NEAR, FAR]), (0.3, [other, FAR]))
    desired = replace(state([split], [NEAR, other, FAR], Mode.REPLAY), recordings=Path("/store.sqlite"))
    applications = build_applications(desired)
    (deployment,) = _schema(desired)[applications[0].name]["deployments"]  # type: ignore[misc]
    assert deployment["ray_actor_options"]["num_cpus"] == 0
    route, part = build_router_configs(desired, applications)["home"].routes
    assert (part.part, part.share) == (1, 0.3)
    assert RecordingKey.read(str(part.stages["start"].recording)).stage.deployment == other.deployment
    names = [RecordingKey.read(str(stage.recording)) for stage in route.stages.values()]
    assert [(name.pipeline, name.stage.operator, name.is_sink) for name in names] == [
        ("conformance", "start", False),
        ("conformance", "next", True),
    ]
    assert names[1].stage == desired.routes[0].stages[1]


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from circinus.serving.ray.cluster import Cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with raises_code(ServingError, "ray.not_installed") as caught:
        Cluster(RaySettings())
    assert "circinus-planner[ray]" in caught.value.hint
