"""Adapter of Ray Serve: the only module that calls interfaces for which Ray guarantees no stability.

Ray Serve's declarative interface is public as `serve deploy` and over HTTP, both of which need Ray's dashboard; the
equivalent call of its Python client does not. The client has no timeout for Ray Serve's controller, so the controller
actor is called directly.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from circinus.errors import ServingError
from circinus.serving.http_answers import address_text
from circinus.serving.ray.ray_connection import connect, import_serve
from circinus.serving.ray.settings import NOT_IN_DRIVERS, POOL_LABEL, POOL_RESOURCE, REPLICA, ROUTER, RaySettings
from circinus.serving.settings import SERVING

NAMESPACE = "circinus"
_REPLICA = "SERVE_REPLICA::"
_SERVING = frozenset({"RUNNING", "UPDATING", "RECOVERING", "PENDING_MIGRATION"})
"""Replica states that serve requests, including the recovery of Serve's controller and the migration off a node."""


@dataclass(frozen=True)
class PoolNodes:
    """Live nodes of one pool."""

    count: int
    labelled: bool
    """True if nodes declare their pool by a label instead of a resource."""
    cpus: float = 0.0
    """CPUs that the largest node declares; likewise `gpus`."""
    gpus: float = 0.0


@dataclass(frozen=True)
class AppSnapshot:
    """State of one application of this project."""

    status: str
    """RUNNING, DEPLOYING, ..."""
    message: str
    config: Mapping[str, Any]
    """Configuration of its last deployment."""
    ready: int
    """Number of running replicas."""
    restarts: int
    """Replicas started after the last deployment, to replace others that ended."""
    reachable: bool = True
    """True if at least one replica accepts calls, possibly while it is being updated."""
    requested_at_s: Mapping[str, float] = field(default_factory=dict)
    """Replica -> when Ray Serve requested it, in seconds since 1970."""

    @property
    def usable(self) -> bool:
        """True if all configured replicas serve, or Ray Serve is already replacing failed ones."""
        desired = sum(deployment.get("num_replicas", 1) for deployment in self.config["deployments"])
        return self.status == "UNHEALTHY" or max(self.ready, int(self.reachable)) >= desired


class Cluster:
    """Blocking connection to Ray Serve on a cluster. Calls raise a ServingError if Ray Serve does not respond."""

    def __init__(self, settings: RaySettings) -> None:
        """Connect to the cluster.

        Raises:
            ServingError: Ray is not installed, or there is no such cluster.
        """
        for name in NOT_IN_DRIVERS:
            os.environ.pop(name, None)
        try:
            import_serve()
        except ImportError as error:
            raise ServingError(
                f"the engine ray needs Ray ({error})",
                code="ray.not_installed",
                hint="Run `pip install 'circinus-planner[ray]'`.",
            ) from error
        connect(settings.address, NAMESPACE)
        self._settings = settings
        self._deploying = threading.Lock()

    def start(self) -> None:
        """Start Ray Serve unless it is running.

        Raises:
            ServingError: Ray Serve is running with another HTTP address than requested.
        """
        from ray import serve

        address = self._settings.http
        options = None if address is None else {"host": address[0], "port": address[1]}
        serve.start(proxy_location="EveryNode", http_options=options)
        http = self._client().http_config
        current = http.host, http.port
        if address not in (None, current):
            raise ServingError(
                f"Ray Serve is already running with HTTP address {address_text(*current)}, got "
                f"{address_text(*address)}; a running Ray Serve keeps its address",
                code="ray.other_http_address",
                hint="Omit --http, or shut down Ray Serve with everything it runs (`serve shutdown`).",
            )

    def http_address(self) -> tuple[str, int] | None:
        """Return the address (host, port) of Ray Serve for requests over HTTP; None if it is not running."""
        client = self._client()
        return None if client is None else (client.http_config.host, client.http_config.port)

    def pools(self) -> dict[str, PoolNodes]:
        """Return the live nodes of each pool, by the pools that nodes declare."""
        import ray

        pools: dict[str, PoolNodes] = {}
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            names = [name.removeprefix(POOL_RESOURCE) for name in node["Resources"] if name.startswith(POOL_RESOURCE)]
            labels = [value for key, value in node.get("Labels", {}).items() if key == POOL_LABEL]
            for name in dict.fromkeys((*names, *labels)):
                previous = pools.get(name, PoolNodes(0, labelled=name not in names))
                cpus, gpus = (float(node["Resources"].get(kind, 0.0)) for kind in ("CPU", "GPU"))
                pools[name] = PoolNodes(
                    previous.count + 1, previous.labelled, max(cpus, previous.cpus), max(gpus, previous.gpus)
                )
        return pools

    def snapshot(self) -> dict[str, AppSnapshot]:
        """Return the applications of this project by name; empty if Ray Serve is not running."""
        client = self._client()
        if client is None:
            return {}
        return {
            name: _snapshot(details)
            for name, details in _applications(client).items()
            if _is_ours(details.get("deployed_app_config")) and _text(details["status"]) != "DELETING"
        }

    def has_residual_actors(self, applications: Collection[str]) -> bool:
        """Return whether any part of some applications still exists, including actors that are shutting down."""
        client = self._client()
        if client is None:
            return False
        # A deleted application is no longer listed, but its actors live until Ray Serve stops them.
        return any(name in applications for name in _applications(client)) or _live(applications)

    def deploy(self, schema: Mapping[str, Any]) -> None:
        """Deploy exactly the applications of a document, next to those of other projects; return without waiting.

        Raises:
            ServingError: Ray Serve is not running, does not respond, or rejects the document.
        """
        from ray.serve.schema import ServeDeploySchema

        client = self._client()
        if client is None:
            raise ServingError(
                "Ray Serve is no longer running on the cluster",
                code="ray.serve_not_running",
                hint="Run `circinus apply`.",
            )
        with self._deploying:  # the rollback of a pending deployment must be sent after it
            configs = [details.get("deployed_app_config") for details in _applications(client).values()]
            foreign = [config for config in configs if config and not _is_ours(config)]
            try:
                document = ServeDeploySchema(**{**schema, "applications": [*schema["applications"], *foreign]})
                _answer(client._controller.apply_config.remote(document), SERVING.accept_timeout_s)
            except ServingError:
                raise
            except Exception as error:  # Ray wraps the reason in various types
                raise ServingError(
                    f"Ray Serve rejects the deployments: {error}", code="ray.deployments_refused"
                ) from error

    def router(self, application: str) -> Any:
        """Return a handle to a site's router."""
        return self._handle(ROUTER, application)

    def replicas(self, application: str) -> Any:
        """Return a handle to an operator's replicas."""
        return self._handle(REPLICA, application)

    def _handle(self, deployment: str, application: str) -> Any:
        client = self._client()
        try:
            ids = (
                []
                if client is None
                else _answer(client._controller.list_deployment_ids.remote(), SERVING.answer_timeout_s)
            )
            if any((key.name, key.app_name) == (deployment, application) for key in ids):
                return client.get_handle(deployment, application, check_exists=False)
        except ServingError:
            raise
        except Exception as error:  # Ray, Serve and gRPC errors share no base class
            raise ServingError(
                f"cannot reach the application: {error}",
                code="ray.application_unreachable",
                location=f"application {application}",
            ) from error
        raise ServingError(
            "the application is not running", code="ray.application_not_running", location=f"application {application}"
        )

    @staticmethod
    def _client() -> Any:
        from ray.serve.context import _get_global_client

        return _get_global_client(raise_if_no_controller_running=False)


def _applications(client: Any) -> Mapping[str, Any]:
    """Return the details of all applications by name."""
    details: Mapping[str, Any] = _answer(
        client._controller.get_serve_instance_details.remote(), SERVING.answer_timeout_s
    )
    return details["applications"]  # type: ignore[no-any-return]


def _answer(call: Any, timeout_s: float) -> Any:
    """Return the result of a call of Ray Serve's controller."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError
    from ray.serve.context import _set_global_client

    try:
        return ray.get(call, timeout=timeout_s)
    except GetTimeoutError:
        raise ServingError(f"Ray Serve did not respond within {timeout_s:g} s", code="ray.serve_silent") from None
    except RayActorError as error:
        _set_global_client(None)  # Ray caches the client, even after Serve was restarted
        raise ServingError(f"Ray Serve was shut down, or its node was lost: {error}", code="ray.serve_ended") from error


def _snapshot(details: Mapping[str, Any]) -> AppSnapshot:
    messages = [details.get("message") or ""]
    states: list[str] = []
    requested_at_s: dict[str, float] = {}
    replaced = 0
    for deployment in details.get("deployments", {}).values():
        messages.append(deployment.get("message") or "")
        replicas = deployment.get("replicas", [])
        states += [_text(replica["state"]) for replica in replicas]
        requested_at_s |= {replica["replica_id"]: replica["start_time_s"] for replica in replicas}
        replaced += sum(replica["start_time_s"] > details["last_deployed_time_s"] for replica in replicas)
    return AppSnapshot(
        status=_text(details["status"]),
        message=" ".join(" ".join(message.split()) for message in dict.fromkeys(messages) if message),
        config=details["deployed_app_config"],
        ready=states.count("RUNNING"),
        restarts=replaced,
        reachable=any(state in _SERVING for state in states),
        requested_at_s=requested_at_s,
    )


def _live(applications: Collection[str]) -> bool:
    """Return whether an actor named after one of the applications lives: `SERVE_REPLICA::application#deployment#id`."""
    from ray.util import list_named_actors

    names = (str(actor["name"]) for actor in list_named_actors(all_namespaces=True))
    replicas = (name.removeprefix(_REPLICA) for name in names if name.startswith(_REPLICA))
    return any(name.split("#")[0] in applications for name in replicas)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _is_ours(config: Mapping[str, Any] | None) -> bool:
    return str((config or {}).get("import_path", "")).startswith("circinus.serving.ray.")
