"""Profiling on a Ray cluster with nodes of several hardware classes, in a process of its own.

All nodes are on this machine; they differ by environment variables that make operators sleep longer.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budget import HANG_LIMIT_S
from circinus.profiling import current_machine
from circinus.profiling.hardware.class_times import class_machines
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Pool
from circinus.specification.yaml.writer import to_yaml
from cli_runner import answer, answered, in_one_line, run_circinus, run_process, start_process
from hardware_test_app import ITEMS, NAP_S, SLOWNESS, hardware, pool, pool_specification
from ray_cluster_lock import exclusive_ray_cluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SPEED_TOLERANCE = 0.6
"""Sleeps end late on a busy machine; the remaining speeds are still far from the declared speed of 1."""
HERE, FAR = pool("here", hardware("local"), price=1.0), pool("far", hardware("slow", 1.0))


class Nodes:
    """A head, which is the pool `here`, and nodes that are added and lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        from circinus.serving.ray.settings import HEAD_SETTINGS

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "resources": {"pool:here": 1000},
                "env_vars": {"POOL_NODE": "here"},
                "object_store_memory": 100 * 2**20,
                "include_dashboard": False,
                "_system_config": dict(HEAD_SETTINGS),
            },
        )
        self.nodes: dict[str, Any] = {}

    def add(self, name: str, environment: dict[str, str], **how: Any) -> None:
        self.nodes[name] = self.cluster.add_node(
            num_cpus=2, object_store_memory=100 * 2**20, env_vars={"POOL_NODE": name, **environment}, **how
        )

    def lose(self, name: str) -> None:
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    @property
    def options(self) -> tuple[str, ...]:
        return "--engine", "ray", "--address", self.cluster.address


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with exclusive_ray_cluster():
        started = Nodes()
        yield started
        started.cluster.shutdown()


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    """Remove the nodes that a test added."""
    yield cluster
    for name in list(cluster.nodes):
        cluster.lose(name)


def _far(**environment: str) -> dict[str, Any]:
    return {"environment": {"POOL_SLOWNESS": "1", **environment}, "labels": {"circinus/pool": "far"}}


def _written(folder: Path, *pools: Pool) -> Path:
    specification = pool_specification(folder, *pools, limit_s=60.0)
    assert specification.infrastructure is not None
    models = [specification.pipelines["naps"], specification.infrastructure, *specification.queries]
    (folder / "all.yaml").write_text(to_yaml(models), encoding="utf-8")
    return folder


def _profiled(folder: Path, *options: str) -> Any:
    """Return the profiles measured by a separate process, which is a driver of the cluster."""
    return answered(run_process("profile", *options, "--json", cwd=folder), "profile")


def _speeds(profile: Any) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {}
    for configuration in profile["configurations"]:
        for name, operator in configuration["operators"].items():
            speeds.setdefault(name, []).append(operator["speeds"]["slow"]["speed"]["value"])
    return speeds


def _start_measuring(folder: Path, nodes: Nodes, gate: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a verb that measures on a node of the pool `far`; return it and the node's name."""
    run = start_process("profile", "--exhaustive", *nodes.options, cwd=folder)
    reached = gate.with_suffix(".reached")
    while not reached.exists() or not reached.read_text():
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    return run, reached.read_text()


@pytest.mark.thorough
def test_plans_are_made_with_the_times_of_the_real_hardware(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add("far", **_far())
    folder = _written(tmp_path, HERE, FAR)
    (profile,) = _profiled(folder, "--exhaustive", *nodes.options)
    (report,) = profile["classes"]
    assert (report["class"], report["missing"], report["failed"]) == ("slow", 0, [])
    assert report["machine"]["cores"] == current_machine().cores
    for name, speeds in _speeds(profile).items():
        assert speeds == pytest.approx([1 / SLOWNESS[name]] * len(speeds), rel=SPEED_TOLERANCE)
    assert {configuration["items"] for configuration in profile["configurations"]} == {ITEMS}
    with ProfileStore(folder / ".circinus" / "profiles.sqlite") as store:
        assert class_machines(store) == {"slow": (current_machine(),)}
    plan = answer("plan", cwd=folder, kind="plan")["plan_set"]
    (assignment,) = plan["matching"]["assignments"]
    for stage in assignment["chosen"]["estimate"]["stages"]:
        # On the pool without cost, at the measured speed instead of the declared one.
        assert stage["pool"] == "far"
        assert stage["service_s"] >= 0.7 * SLOWNESS[stage["operator"]] * NAP_S
    for deployment in plan["matching"]["deployments"]:
        operator = deployment["deployment"]["operator"]
        assert deployment["relative_speed"] == pytest.approx(1 / SLOWNESS[operator], rel=SPEED_TOLERANCE)
    assert "Speed on other hardware" in run_circinus("profile", "--show", "--all", cwd=folder).stdout


@pytest.mark.thorough
def test_a_class_without_a_node_is_told_unless_its_declared_speed_may_stand(nodes: Nodes, tmp_path: Path) -> None:
    folder = _written(tmp_path, HERE, FAR)
    run = run_process("profile", *nodes.options, cwd=folder)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "hardware class slow (pools far): the Ray cluster at" in in_one_line(run.stderr)
    assert "no live node" in in_one_line(run.stderr)
    assert "nodes by pool: here 1" in in_one_line(run.stderr)
    assert "pool:far or the label circinus/pool=far" in in_one_line(run.stderr)
    (profile,) = _profiled(folder, *nodes.options, "--declared-speeds")
    assert profile["classes"] == [{"class": "slow", "machine": None, "ran_s": 0.0, "missing": 0, "failed": []}]
    assert profile["configurations"]


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    folder = _written(tmp_path, HERE, FAR)
    for arguments, words in (
        (("--engine", "ray", "--calibrate"), "Invalid value: --calibrate"),
        (("--declared-speeds",), "Invalid value: --declared-speeds"),
    ):
        run = run_circinus("profile", *arguments, cwd=folder)
        assert run.returncode == 2
        assert words in " ".join(run.stderr.replace("│", " ").split())


@pytest.mark.thorough
def test_a_lost_node_is_told_and_the_next_run_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    gate, folder = tmp_path / "gate", _written(tmp_path, FAR)
    nodes.add("far", **_far(POOL_GATE=str(gate)))
    run, node = _start_measuring(folder, nodes, gate)
    nodes.lose(node)
    _, errors = run.communicate(timeout=HANG_LIMIT_S)
    assert run.returncode == 1, errors
    assert "Traceback" not in errors
    assert "hardware class slow (pools far): the Ray cluster at" in in_one_line(errors)
    assert "no live node" in in_one_line(errors)
    nodes.add("far", **_far())
    (profile,) = _profiled(folder, "--exhaustive", *nodes.options)
    assert profile["classes"][0]["missing"] == 0
    assert set(_speeds(profile)) == set(SLOWNESS)
    (repeated,) = _profiled(folder, "--exhaustive", *nodes.options)
    assert repeated["classes"][0]["ran_s"] == 0.0
    assert repeated["profiled_s"] == profile["profiled_s"]


@pytest.mark.thorough
def test_another_node_of_the_class_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    gate, folder = tmp_path / "gate", _written(tmp_path, FAR)
    nodes.add("one", **_far(POOL_GATE=str(gate)))
    nodes.add("other", **_far(POOL_GATE=str(gate)))
    run, node = _start_measuring(folder, nodes, gate)
    nodes.lose(node)
    gate.touch()
    _, errors = run.communicate(timeout=HANG_LIMIT_S)
    assert run.returncode == 0, errors
    (profile,) = answer("profile", "--show", cwd=folder, kind="profile")
    assert set(_speeds(profile)) == set(SLOWNESS)
