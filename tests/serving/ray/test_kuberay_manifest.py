"""Manifests against the schemas of KubeRay and Kubernetes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.kuberay_manifest import Manifest, as_yaml, manifests, network_policy, ray_service
from circinus.testing.desired_states import StageSpec, chain
from golden import check_message
from raised import raises_code

KUBERNETES = "1.34"
DESIRED = chain("q", StageSpec("start", "add", replicas=2), StageSpec("next", "add", after=("start",), pool="far"))

# Fields, their types and required fields from KubeRay's published definition of `ray.io/v1`
# (helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml of ray-project/kuberay at commit 02a80a6f), for the parts
# that a RayService with its own cluster uses here. Pods are checked against the schema of Kubernetes, below.
_POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {"spec": {"type": "object", "required": ["containers"]}},
    "additionalProperties": True,
}
_PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}},
        },
        "spec": {
            "type": "object",
            "required": ["rayClusterConfig"],
            "additionalProperties": False,
            "properties": {
                "serveConfigV2": {"type": "string"},
                "serviceUnhealthySecondThreshold": {"type": "integer"},
                "deploymentUnhealthySecondThreshold": {"type": "integer"},
                "excludeHeadPodFromServeSvc": {"type": "boolean"},
                "rayClusterConfig": {
                    "type": "object",
                    "required": ["headGroupSpec"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {"type": "object", "properties": {"mode": {"enum": ["disabled", "token"]}}},
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {"type": "object", "properties": {"securityContext": {"type": "object"}}},
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["template"],
                            "additionalProperties": False,
                            "properties": {
                                "serviceType": {"type": "string"},
                                "rayStartParams": _PARAMS,
                                "template": _POD,
                            },
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["groupName", "template", "maxReplicas", "minReplicas"],
                                "additionalProperties": False,
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer", "minimum": 0},
                                    "minReplicas": {"type": "integer", "minimum": 0},
                                    "maxReplicas": {"type": "integer", "minimum": 0},
                                    "rayStartParams": _PARAMS,
                                    "template": _POD,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def _rendered(desired: DesiredState = DESIRED, **options: Any) -> dict[str, Any]:
    documents = manifests(desired, Manifest("image:1", **options))
    contents: list[dict[str, Any]] = list(YAML(typ="safe").load_all(as_yaml(*documents)))
    assert contents == json.loads(json.dumps(documents))
    return contents[0]


def test_it_has_the_fields_of_the_api() -> None:
    import jsonschema

    jsonschema.validate(_rendered(), SCHEMA)
    jsonschema.validate(_rendered(name="mine", namespace="there", ray_version="2.60.0"), SCHEMA)


def test_its_pods_are_what_kubernetes_takes() -> None:
    import kubernetes_validate

    cluster = _rendered()["spec"]["rayClusterConfig"]
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for template in templates:
        kubernetes_validate.validate(_pod_template(template), KUBERNETES, strict=True)
        for container in template["spec"]["containers"]:
            for amounts in container["resources"].values():  # the schema accepts any text
                assert all(re.fullmatch(r"[0-9]+(m|[KMGT]i)?", amount) for amount in amounts.values())
    templates[0]["spec"]["containers"][0]["resources"]["limit"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="limit"):
        kubernetes_validate.validate(_pod_template(templates[0]), KUBERNETES, strict=True)


def test_its_pods_have_few_rights() -> None:
    cluster = _rendered()["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "readOnlyRootFilesystem": True,
            }


def test_the_policy_lets_pods_of_the_service_call_each_other_and_others_send_requests_only() -> None:
    import kubernetes_validate

    policy = network_policy(Manifest("image:1", "mine", "there"))
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    groups = _rendered(name="mine")["spec"]["rayClusterConfig"]
    for group in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"].items()
        assert labels >= policy["spec"]["podSelector"]["matchLabels"].items()
    open_to_others = [rule.get("ports") for rule in policy["spec"]["ingress"][1:]]
    assert open_to_others == [[{"port": 8265}, {"port": 8000}], [{"port": 8000}]]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def _pod_template(template: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}


@pytest.mark.parametrize("name", ["Mine", "9lives", "a_b", "a-", "", "a" * 48])
def test_a_name_that_kuberay_refuses_is_refused(name: str) -> None:
    with raises_code(ServingError, "kubernetes.invalid_name"):
        ray_service(DESIRED, Manifest("image:1", name))


def test_a_pool_whose_name_no_pod_can_have_is_refused() -> None:
    infrastructure = DESIRED.infrastructure
    pools = tuple(
        pool.model_copy(update={"name": "far_1"}) if pool.name == "far" else pool for pool in infrastructure.pools
    )
    desired = chain("q", StageSpec("start", "add"), StageSpec("next", "add", after=("start",), pool="far_1"))
    desired = replace(desired, infrastructure=infrastructure.model_copy(update={"pools": pools}))
    with raises_code(ServingError, "kubernetes.invalid_pool_name") as caught:
        ray_service(desired, Manifest("image:1"))
    check_message("serving/kubernetes_pool_name", str(caught.value))


def test_its_applications_are_those_that_ray_serve_takes() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    content = YAML(typ="safe").load(_rendered()["spec"]["serveConfigV2"])
    deployed = schema.ServeDeploySchema(**content)
    assert len(deployed.applications) == 4
    assert content["http_options"]["host"] == "0.0.0.0"


def test_every_pool_in_use_is_a_group_of_workers_that_says_which_it_is() -> None:
    groups = {g["groupName"]: g for g in _rendered()["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert set(groups) == {"near", "far"}
    for name, group in groups.items():
        resources = json.loads(group["rayStartParams"]["resources"].strip("'"))
        assert resources == {f"pool:{name}": 1000}
        assert group["template"]["spec"]["nodeSelector"] == {"circinus/pool": name}
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == {"cpu": "500m", "memory": "64Mi"}
        assert {"name": "RAY_SERVE_USE_GRPC_BY_DEFAULT", "value": "1"} in container["env"]


def test_the_autoscaler_gets_the_limits_of_elastic_pools() -> None:
    infrastructure = DESIRED.infrastructure
    pools = tuple(
        pool.model_copy(update={"nodes": 3, "min_nodes": 1}) if pool.name == "far" else pool
        for pool in infrastructure.pools
    )
    desired = replace(DESIRED, infrastructure=infrastructure.model_copy(update={"pools": pools}))
    cluster = _rendered(desired)["spec"]["rayClusterConfig"]
    limits = {g["groupName"]: (g["minReplicas"], g["maxReplicas"]) for g in cluster["workerGroupSpecs"]}
    assert cluster["enableInTreeAutoscaling"]
    assert limits == {"near": (1, 1), "far": (1, 3)}
    assert "enableInTreeAutoscaling" not in _rendered()["spec"]["rayClusterConfig"]


def test_the_routers_have_the_hashes_of_tokens_only() -> None:
    token = "t" * 32
    tokens = HttpTokens.parse(f"* {token}", "test")
    text = as_yaml(ray_service(DESIRED, Manifest("image:1", tokens=tokens)))
    assert text.count(tokens.hashes[0][1]) == len(DESIRED.infrastructure.sites)
    assert token not in text


@pytest.mark.parametrize("image", ["registry.example:5000/team/pipelines:1.2-RC", "a/b@sha256:0f", "circinus"])
def test_images_may_have_a_registry_a_tag_and_a_digest(image: str) -> None:
    assert image in as_yaml(ray_service(DESIRED, Manifest(image)))


@pytest.mark.parametrize("image", ["", "bad image", "Mine:1", "circinus:"])
def test_an_image_that_no_registry_has_is_refused(image: str) -> None:
    with raises_code(ServingError, "kubernetes.invalid_image"):
        ray_service(DESIRED, Manifest(image))


def test_a_replay_is_refused() -> None:
    with raises_code(ServingError, "kubernetes.invalid_mode"):
        ray_service(replace(DESIRED, mode=Mode.REPLAY, recordings=Path("store")), Manifest("image:1"))
