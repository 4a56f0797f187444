"""Configuration and status of site routers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from circinus.serving.engine import DeploymentStatus, DesiredDeployment, QueryStatus
from circinus.serving.router.compiled_route import CompiledRoute


@dataclass(frozen=True)
class RouterConfig:
    """Configuration of the router of one site."""

    site: str
    mode: str
    state: str
    """`state_fingerprint` of the state in force."""
    deployments: Mapping[str, DesiredDeployment]
    """Deployments of the site by application."""
    routes: tuple[CompiledRoute, ...]
    """Routes of the queries whose source is this site."""
    peers: tuple[str, ...] = ()
    """Other sites that receive outputs of this one."""


@dataclass(frozen=True)
class RouterStatus:
    """Status of one router."""

    config: RouterConfig | None
    deployments: Mapping[str, DeploymentStatus]
    """Statuses by application, without what only Ray Serve knows: ready replicas and start-up times."""
    under_way: Mapping[str, int]
    """Application -> number of unanswered requests that entered here and may need it."""
    queries: tuple[QueryStatus, ...]
    """Counters of the queries whose requests enter here."""


_CONFIG = TypeAdapter(RouterConfig)


def config_to_dict(config: RouterConfig) -> dict[str, Any]:
    """Encode a configuration for Ray Serve."""
    content: dict[str, Any] = _CONFIG.dump_python(config, mode="json")
    return content


def config_from_dict(content: Mapping[str, Any]) -> RouterConfig:
    """Decode a configuration; inverse of `config_to_dict`."""
    return _CONFIG.validate_python(content, strict=False)
