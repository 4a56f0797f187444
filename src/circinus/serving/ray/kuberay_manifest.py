"""KubeRay manifests (API `ray.io/v1`) of a desired state, for clusters on Kubernetes.

Ray runs what it is sent, so that pods take calls from each other alone, with a token, and run with few rights.

Sources: KubeRay's API reference, its guides to the configuration, authentication and network policies of a RayCluster,
the published schema of its resources, the validation of its operator
(`ray-operator/controllers/ray/utils/validation.go`), and Kubernetes' restricted pod security standard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from circinus.errors import ServingError
from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.serve_config import build_router_configs, router_pool, serve_schema
from circinus.serving.ray.settings import (
    HEAD_SETTINGS,
    POOL_LABEL,
    POOL_RESOURCE,
    SERVE_ENVIRONMENT,
    RaySettings,
)
from circinus.serving.state_serialization import validate_state
from circinus.specification import Pool

_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}
_HEAD_CPUS, _HEAD_MEMORY_GIB = 1, 4
_SERVICE_LABEL = "circinus/service"
"""Label of the pods of a RayService, whose value is its name."""
_OPERATOR_LABELS = {"app.kubernetes.io/name": "kuberay-operator"}
"""Labels of the operator's pod in KubeRay's Helm chart."""
_USER_ID = 1000
"""User of the pods, that of Ray's images."""
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": _USER_ID,
}
_MIB = 2**20
_MAX_NAME_LENGTH = 47
"""KubeRay appends suffixes to the name, and services are named after the result."""
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*[a-z0-9]+(:[\w.-]+)?(@[\w:]+)?")
"""Approximate syntax of image names."""


@dataclass(frozen=True)
class Manifest:
    """Settings of a manifest that are not part of the plan."""

    image: str
    """Image with Circinus, Ray and the operators' code."""
    name: str = "circinus"
    namespace: str = "default"
    ray_version: str = ""
    """Ray version of the image; empty: not checked by KubeRay."""
    tokens: HttpTokens | None = None
    """Tokens that requests over HTTP need, of which the manifest has the hashes; None: they need none."""


def manifests(desired: DesiredState, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the RayService that runs `desired`, and the NetworkPolicy of its pods.

    Raises:
        ServingError: see `ray_service`.
    """
    return [ray_service(desired, manifest), network_policy(manifest)]


def network_policy(manifest: Manifest) -> dict[str, Any]:
    """Return the policy by which pods take calls from each other, from KubeRay, and requests from their namespace."""
    own = {"matchLabels": {_SERVICE_LABEL: manifest.name}}
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": _OPERATOR_LABELS}}
    requests = {"port": _PORTS["serve"]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": manifest.name, "namespace": manifest.namespace},
        "spec": {
            "podSelector": own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": own}]},
                {"from": [operator], "ports": [{"port": _PORTS["dashboard"]}, requests]},
                {"from": [{"podSelector": {}}], "ports": [requests]},
            ],
        },
    }


def ray_service(desired: DesiredState, manifest: Manifest) -> dict[str, Any]:
    """Return the RayService that runs `desired`, with a worker group for each used pool and a head without work.

    Raises:
        ServingError: the state is inconsistent or a replay, or a name is not valid on Kubernetes.
    """
    validate_state(desired)
    _check_name(manifest.name)
    if not _IMAGE.fullmatch(manifest.image):
        raise ServingError(
            f"image name {manifest.image!r} is invalid",
            code="kubernetes.invalid_image",
            hint="Pass a name such as registry.example/pipelines:1.",
        )
    if desired.mode is not Mode.REAL:
        raise ServingError(
            f"mode must be real because the cluster has no recordings, got {desired.mode}",
            code="kubernetes.invalid_mode",
        )
    settings = RaySettings(http=("0.0.0.0", _PORTS["serve"]))
    applications = build_applications(desired, emulate_speeds=False)
    # Number 0 is always in force, also after changes by engines, which count.
    routers = build_router_configs(desired, applications, tokens=manifest.tokens)
    configs = {site: replace(config, number=0) for site, config in routers.items()}
    serve = serve_schema(applications, configs, desired.infrastructure, settings, recordings=None)
    used = {deployment.deployment.pool for deployment in desired.deployments}
    used |= {pool for config in configs.values() if (pool := router_pool(config, desired.infrastructure)) is not None}
    pools = [pool for pool in desired.infrastructure.pools if pool.name in used]
    for group in pools:
        _check_pool(group.name)
    elastic = {"enableInTreeAutoscaling": True, "autoscalerOptions": {"securityContext": _CONTAINER_SECURITY}}
    cluster = {
        **({"rayVersion": manifest.ray_version} if manifest.ray_version else {}),
        "authOptions": {"mode": "token"},
        **(elastic if any(pool.is_elastic for pool in pools) else {}),
        "headGroupSpec": {
            "rayStartParams": {
                "dashboard-host": "0.0.0.0",
                "num-cpus": "0",
                "system-config": _quoted(HEAD_SETTINGS),
            },
            "template": _pod(
                "ray-head", manifest, {"cpu": str(_HEAD_CPUS), "memory": f"{_HEAD_MEMORY_GIB}Gi"}, ports=_PORTS
            ),
        },
        "workerGroupSpecs": [_workers(pool, manifest) for pool in pools],
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": manifest.name, "namespace": manifest.namespace},
        "spec": {"serveConfigV2": as_yaml(serve), "rayClusterConfig": cluster},
    }


def as_yaml(*documents: Mapping[str, Any]) -> str:
    """Return the documents as YAML, in their order."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import walk_tree

    yaml = YAML()
    yaml.width = 4096
    content = json.loads(json.dumps(documents))
    walk_tree(content)  # keeps line breaks of multi-line strings
    stream = StringIO()
    yaml.dump_all(content, stream)
    return stream.getvalue()


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME_LENGTH or re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) is None:
        raise ServingError(
            f"RayService name {name!r} is invalid",
            code="kubernetes.invalid_name",
            hint=f"Use at most {_MAX_NAME_LENGTH} lowercase letters, digits and `-`, with a letter first and a letter "
            "or digit last.",
        )


def _check_pool(name: str) -> None:
    """Check a pool's name, which becomes the name of pods and a label of nodes."""
    if re.fullmatch("[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?", name) is None:
        raise ServingError(
            "the name is not valid for pods",
            code="kubernetes.invalid_pool_name",
            location=f"pool {name}",
            hint="Rename the pool, using letters, digits and `-`, with a letter or digit at both ends.",
        )


def _workers(pool: Pool, manifest: Manifest) -> dict[str, Any]:
    resources = {"cpu": _cpus(pool.cpus), "memory": f"{int(pool.memory_bytes / _MIB)}Mi"}
    if pool.gpus:
        resources["nvidia.com/gpu"] = str(pool.gpus)
    return {
        "groupName": pool.name,
        "replicas": pool.base_nodes,  # Ray's autoscaler starts those that pending replicas need
        "minReplicas": pool.base_nodes,
        "maxReplicas": pool.nodes,
        "rayStartParams": {"resources": _quoted({f"{POOL_RESOURCE}{pool.name}": 1000})},
        "template": _pod("ray-worker", manifest, resources, selector={POOL_LABEL: pool.name}),
    }


def _pod(
    name: str,
    manifest: Manifest,
    resources: Mapping[str, str],
    *,
    ports: Mapping[str, int] | None = None,
    selector: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    container = {
        "name": name,
        "image": manifest.image,
        # Ray, models and caches write below the home folder and /tmp only.
        "env": [{"name": key, "value": value} for key, value in {**SERVE_ENVIRONMENT, "HOME": "/tmp"}.items()],
        "resources": {"limits": dict(resources), "requests": dict(resources)},
        "securityContext": {**_CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if ports:
        container["ports"] = [{"containerPort": port, "name": key} for key, port in ports.items()]
    return {
        "metadata": {"labels": {_SERVICE_LABEL: manifest.name}},
        "spec": {
            **({"nodeSelector": dict(selector)} if selector else {}),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def _quoted(content: Mapping[str, Any]) -> str:
    """Quote an argument of `ray start`, which KubeRay passes through a shell."""
    return "'" + json.dumps(dict(content)) + "'"


def _cpus(cpus: float) -> str:
    return f"{cpus:g}" if cpus == int(cpus) else f"{round(cpus * 1000)}m"
