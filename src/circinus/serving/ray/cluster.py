"""Ray Serve as this project uses it: everything that Ray does not promise to keep is called here and nowhere else.

Ray Serve's declarative path is public as `serve deploy` and over HTTP, which need Ray's dashboard; the same call of its
Python client does not. Nor does that say how long it waits for Ray Serve's controller, so that is asked itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from circinus.errors import ServingError
from circinus.serving.ray.ray_connection import connect, import_serve
from circinus.serving.ray.settings import NOT_IN_DRIVERS, POOL_LABEL, POOL_RESOURCE, REPLICA, ROUTER, RaySettings

NAMESPACE = "circinus"
_ANSWER_S = 10.0
"""How long Ray Serve's controller may take to say something."""
_ACCEPT_S = 30.0
"""How long it may take to accept what shall run."""
_REPLICA = "SERVE_REPLICA::"
_SERVING = frozenset({"RUNNING", "UPDATING", "RECOVERING", "PENDING_MIGRATION"})
"""States in which a replica answers: also while Serve's controller was started anew, or its node is about to go."""


@dataclass(frozen=True)
class PoolNodes:
    """The nodes of one pool that live."""

    count: int
    labelled: bool
    """Whether they say by a label of which pool they are, not by a resource."""
    cpus: float = 0.0
    """Of the one with most, as it says itself; so are `gpus`."""
    gpus: float = 0.0


@dataclass(frozen=True)
class AppSnapshot:
    """One application of this project as it is."""

    status: str
    """RUNNING, DEPLOYING, ..."""
    message: str
    config: Mapping[str, Any]
    """What it was deployed with."""
    ready: int
    """Replicas that serve."""
    restarts: int
    """Replicas that were started after the last deployment, because others had ended."""
    reachable: bool = True
    """Whether any replica can be called: it serves, or is told something else just now."""
    requested_at_s: Mapping[str, float] = field(default_factory=dict)
    """Replica -> when Ray Serve asked for it, in seconds since 1970."""

    @property
    def usable(self) -> bool:
        """Whether as many replicas as it was deployed with serve, or did, and Ray Serve replaces some by itself."""
        wanted = sum(deployment.get("num_replicas", 1) for deployment in self.config["deployments"])
        return self.status == "UNHEALTHY" or max(self.ready, int(self.reachable)) >= wanted


class Cluster:
    """A connection to Ray Serve on a cluster. All calls block, and raise a ServingError where Ray Serve is silent."""

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
        """Start Ray Serve where it does not run.

        Raises:
            ServingError: it runs, and listens elsewhere for HTTP than it shall.
        """
        from ray import serve

        wanted = self._settings.http
        told = None if wanted is None else {"host": wanted[0], "port": wanted[1]}
        serve.start(proxy_location="EveryNode", http_options=told)
        known = self._client().http_config
        found = known.host, known.port
        if wanted not in (None, found):
            raise ServingError(
                f"found Ray Serve listening on {_address(found)} for HTTP, expected {_address(wanted)}, "
                "and a running Ray Serve keeps its address",
                code="ray.other_http_address",
                hint="Omit --http, or end Ray Serve with all that it runs (`serve shutdown`).",
            )

    def pools(self) -> dict[str, PoolNodes]:
        """Pool -> its nodes that live, as they say themselves."""
        import ray

        found: dict[str, PoolNodes] = {}
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            names = [name.removeprefix(POOL_RESOURCE) for name in node["Resources"] if name.startswith(POOL_RESOURCE)]
            labels = [value for key, value in node.get("Labels", {}).items() if key == POOL_LABEL]
            for name in dict.fromkeys((*names, *labels)):
                before = found.get(name, PoolNodes(0, labelled=name not in names))
                cpus, gpus = (float(node["Resources"].get(kind, 0.0)) for kind in ("CPU", "GPU"))
                found[name] = PoolNodes(
                    before.count + 1, before.labelled, max(cpus, before.cpus), max(gpus, before.gpus)
                )
        return found

    def snapshot(self) -> dict[str, AppSnapshot]:
        """Every application of this project as it is; nothing where Ray Serve does not run."""
        client = self._client()
        if client is None:
            return {}
        return {
            name: _snapshot(found)
            for name, found in _applications(client).items()
            if _is_ours(found.get("deployed_app_config")) and _text(found["status"]) != "DELETING"
        }

    def has_residual_actors(self, applications: Collection[str]) -> bool:
        """Whether anything of some applications is still there, if only to end."""
        client = self._client()
        if client is None:
            return False
        # What was just told to go is no application any more, and lives on until Ray Serve comes to it.
        return any(name in applications for name in _applications(client)) or _live(applications)

    def deploy(self, schema: Mapping[str, Any]) -> None:
        """Have exactly the applications of a document run beside those of others; returns at once.

        Raises:
            ServingError: Ray Serve does not run, does not answer, or does not accept it.
        """
        from ray.serve.schema import ServeDeploySchema

        client = self._client()
        if client is None:
            raise ServingError(
                "Ray Serve does not run on the cluster any more",
                code="ray.serve_not_running",
                hint="Run `circinus apply`.",
            )
        with self._deploying:  # who undoes a deployment that is still under way comes after it
            configs = [found.get("deployed_app_config") for found in _applications(client).values()]
            others = [config for config in configs if config and not _is_ours(config)]
            try:
                told = ServeDeploySchema(**{**schema, "applications": [*schema["applications"], *others]})
                _answer(client._controller.apply_config.remote(told), _ACCEPT_S)
            except ServingError:
                raise
            except Exception as error:  # whatever Ray wraps the reason in
                raise ServingError(
                    f"Ray Serve refuses the deployments: {error}", code="ray.deployments_refused"
                ) from error

    def router(self, application: str) -> Any:
        """Handle to a site's router."""
        return self._handle(ROUTER, application)

    def replicas(self, application: str) -> Any:
        """Handle to an operator's replicas."""
        return self._handle(REPLICA, application)

    def _handle(self, deployment: str, application: str) -> Any:
        client = self._client()
        try:
            known = [] if client is None else _answer(client._controller.list_deployment_ids.remote(), _ANSWER_S)
            if any((one.name, one.app_name) == (deployment, application) for one in known):
                return client.get_handle(deployment, application, check_exists=False)
        except ServingError:
            raise
        except Exception as error:  # of several kinds
            raise ServingError(
                f"the application cannot be reached: {error}",
                code="ray.application_unreachable",
                location=f"application {application}",
            ) from error
        raise ServingError(
            "the application does not run", code="ray.application_not_running", location=f"application {application}"
        )

    @staticmethod
    def _client() -> Any:
        from ray.serve.context import _get_global_client

        return _get_global_client(raise_if_no_controller_running=False)


def _applications(client: Any) -> Mapping[str, Any]:
    """Name -> all that Ray Serve says of it."""
    found: Mapping[str, Any] = _answer(client._controller.get_serve_instance_details.remote(), _ANSWER_S)
    return found["applications"]  # type: ignore[no-any-return]


def _answer(asked: Any, patience_s: float) -> Any:
    """What Ray Serve's controller says."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError
    from ray.serve.context import _set_global_client

    try:
        return ray.get(asked, timeout=patience_s)
    except GetTimeoutError:
        raise ServingError(f"Ray Serve does not answer within {patience_s:g} s", code="ray.serve_silent") from None
    except RayActorError as error:
        _set_global_client(None)  # it would be asked for ever, also when another one runs
        raise ServingError(f"Ray Serve was ended, or its node was lost: {error}", code="ray.serve_ended") from error


def _snapshot(found: Mapping[str, Any]) -> AppSnapshot:
    words = [found.get("message") or ""]
    states: list[str] = []
    asked_s: dict[str, float] = {}
    replaced = 0
    for deployment in found.get("deployments", {}).values():
        words.append(deployment.get("message") or "")
        replicas = deployment.get("replicas", [])
        states += [_text(replica["state"]) for replica in replicas]
        asked_s |= {replica["replica_id"]: replica["start_time_s"] for replica in replicas}
        replaced += sum(replica["start_time_s"] > found["last_deployed_time_s"] for replica in replicas)
    return AppSnapshot(
        status=_text(found["status"]),
        message=" ".join(" ".join(word.split()) for word in dict.fromkeys(words) if word),
        config=found["deployed_app_config"],
        ready=states.count("RUNNING"),
        restarts=replaced,
        reachable=any(state in _SERVING for state in states),
        requested_at_s=asked_s,
    )


def _live(applications: Collection[str]) -> bool:
    """Whether an actor lives that Ray Serve named after one of them: `SERVE_REPLICA::application#deployment#id`."""
    from ray.util import list_named_actors

    names = (str(actor["name"]) for actor in list_named_actors(all_namespaces=True))
    replicas = (name.removeprefix(_REPLICA) for name in names if name.startswith(_REPLICA))
    return any(name.split("#")[0] in applications for name in replicas)


def _address(http: tuple[str | None, int]) -> str:
    return f"{http[0]}:{http[1]}"


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _is_ours(config: Mapping[str, Any] | None) -> bool:
    return str((config or {}).get("import_path", "")).startswith("circinus.serving.ray.")
