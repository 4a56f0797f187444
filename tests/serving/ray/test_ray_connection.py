"""Connection to a cluster, what it must not change in the process, and who else may connect."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from circinus.errors import ServingError
from circinus.serving.ray import ray_connection as driver
from circinus.serving.ray.ray_connection import connect, preserve_sigterm, require_reachable_head
from raised import raises_code
from ray_cluster_lock import exclusive_ray_cluster

pytest.importorskip("ray")


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_without_a_head_is_told_soon(listens: bool) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:  # and says nothing: no head of a cluster
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with raises_code(ServingError, "ray.no_cluster") as caught:
            require_reachable_head(address, 0.2)
        assert caught.value.location.startswith(f"address {address}")
        assert "within 0.2 s" in caught.value.message


def test_an_address_that_is_none_is_told() -> None:
    with raises_code(ServingError, "ray.no_cluster"):
        require_reachable_head("head", 0.2)


def test_the_address_of_a_client_is_left_to_ray() -> None:
    require_reachable_head("ray://127.0.0.1:1", 0.2)


def _take_below_python(number: int) -> None:
    """Set a handler as native code does, without Python's `signal`."""
    set_below = ctypes.pythonapi.PyOS_setsig
    set_below.argtypes, set_below.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    set_below(number, 1)  # ignored


def test_a_process_keeps_what_it_does_on_sigterm() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

    def connect() -> None:
        with preserve_sigterm():
            _take_below_python(signal.SIGTERM)

    try:
        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_every_connection_is_made_in_the_same_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    threads: list[int] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: threads.append(threading.get_ident()))
    for _ in range(2):
        one = threading.Thread(target=connect, args=("ray://127.0.0.1:1", "any"))
        one.start()
        one.join()
    connect("ray://127.0.0.1:1", "any")
    assert len(threads) == 3
    assert len(set(threads)) == 1


@pytest.mark.parametrize("kind", ["RuntimeError", "AuthenticationError"])
def test_a_cluster_that_this_process_cannot_join_is_told_in_one_line(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**_: object) -> None:
        error = {"RuntimeError": RuntimeError, "AuthenticationError": ray.exceptions.AuthenticationError}[kind]
        raise error("Version mismatch: The cluster was started with:\n    Ray: 1.0\n")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with raises_code(ServingError, "ray.cannot_join") as caught:
        connect("ray://127.0.0.1:1", "any")
    assert caught.value.location == "address ray://127.0.0.1:1"
    assert "Version mismatch: The cluster was started with: Ray: 1.0" in caught.value.message


@dataclass
class _Head:
    """The part of Ray's client of a head that is used."""

    address: str

    @property
    def cluster_id(self) -> str:
        return {"10.0.0.1:6379": "one", "head:6379": "one", "10.0.0.2:6379": "two"}[self.address]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.0.0.1:6379", ""),
        ("head:6379", ""),
        ("auto", ""),
        ("ray://10.0.0.2:10001", ""),
        ("10.0.0.2:6379", "ray.other_cluster"),
    ],
)
def test_a_process_that_is_connected_stays_so_and_is_told_where_another_cluster_is_meant(
    address: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray._private import worker

    connected = SimpleNamespace(connected=True, gcs_client=_Head("10.0.0.1:6379"))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(worker, "global_worker", connected)
    monkeypatch.setattr(driver, "require_reachable_head", lambda address: None)
    with raises_code(ServingError, code) if code else nullcontext():
        connect(address, "any")


def test_what_nodes_report_is_not_printed_between_what_a_verb_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import ray
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # which is put back afterwards
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    connect("ray://127.0.0.1:1", "any")
    with caplog.at_level("DEBUG"):
        worker.print_to_stdstream({"lines": ["a node was lost"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert "raylet: a node was lost" in caplog.text
    assert capsys.readouterr().out == ""


_HEAD = """
from ray.cluster_utils import Cluster
from circinus.serving.ray.ray_connection import answers_strangers

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
try:
    print(answers_strangers(cluster.address))
finally:
    cluster.shutdown()
"""


@pytest.mark.slow
def test_a_cluster_with_tokens_answers_nobody_without() -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    with exclusive_ray_cluster():
        ran = subprocess.run([sys.executable, "-c", _HEAD], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False"
