"""Network of namespaces on this machine for the sites of an infrastructure, with links as specified.

Each link is a pair of TUN devices with a token bucket (`tc tbf`) at either end and a relay in between that delays
packets (`benchmarks.testbeds.delay_relay`). All traffic between two sites crosses their link.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.testbeds.shaped_addresses import MTU_BYTES, AddressPlan, bucket_bytes
from circinus.errors import CircinusError
from circinus.specification import Infrastructure

ROOT = Path(__file__).parent.parent.parent
_MAX_QUEUE = "1s"
"""Packets that would wait longer on a link are dropped, as by routers."""
_QUEUE_PACKETS = 2000
_RELAY_TIMEOUT_S = 10.0


class NoPrivilegesError(CircinusError):
    """Missing privilege or program for creating networks."""


def why_not() -> str:
    """Return why shaped networks cannot be created on this machine, in one sentence, or "" if they can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "creating network namespaces needs root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"the program {program} is missing (Debian and Ubuntu: apt-get install iproute2)"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun, which delays need, does not exist"
    name = f"cx{os.getpid():x}-try"
    try:
        run("ip", "netns", "add", name)
    except NoPrivilegesError as error:
        return f"cannot create network namespaces: {error}"
    try:
        inside = ("ip", "-n", name)
        run(*inside, "tuntap", "add", "dev", "try", "mode", "tun")
        bucket = ("rate", "1mbit", "burst", "9000", "latency", "1s")
        run("tc", "-n", name, "qdisc", "add", "dev", "try", "root", "tbf", *bucket)
    except NoPrivilegesError as error:
        return f"cannot create shaped devices: {error}"
    finally:
        run("ip", "netns", "delete", name)
    return ""


def run(*command: str) -> str:
    """Run a program and return its output.

    Raises:
        NoPrivilegesError: the program failed, with its error output.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPrivilegesError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class ShapedNetwork:
    """Context manager that creates the network, and removes it with all processes inside."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        """Plan the network, which is created on entering."""
        self.plan = AddressPlan.of(infrastructure, f"cx{os.getpid():x}")
        self._relay: subprocess.Popen[str] | None = None

    def __enter__(self) -> ShapedNetwork:
        remove_leftovers()
        try:
            self._create()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def inside(self, site: str, *command: str) -> tuple[str, ...]:
        """Return the command that runs another in the namespace of a site."""
        return ("ip", "netns", "exec", self.plan.namespaces[site], *command)

    def shape(self, *, shaped: bool) -> None:
        """Turn bandwidth and delay of the links on or off while everything keeps running."""
        for pair in self.plan.ends:
            for end in pair:
                command = ("tc", "-n", end.namespace, "qdisc")
                if shaped:
                    bandwidth = end.link.bandwidth_bytes_per_s
                    bucket = ("rate", f"{bandwidth * 8:.0f}bit", "burst", str(bucket_bytes(bandwidth)))
                    run(*command, "replace", "dev", end.device, "root", "tbf", *bucket, "latency", _MAX_QUEUE)
                else:
                    run(*command, "replace", "dev", end.device, "root", "pfifo", "limit", str(_QUEUE_PACKETS))
                self._set_delay(end.device, end.link.one_way_s if shaped else 0.0)

    def partition(self) -> None:
        """Lose all packets on all links, without a word to their senders, until `shape` is called."""
        for pair in self.plan.ends:
            for end in pair:
                self._set_delay(end.device, math.inf)

    def _create(self) -> None:
        for site, namespace in self.plan.namespaces.items():
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", namespace, "address", "add", f"{self.plan.addresses[site]}/32", "dev", "lo")
            run("ip", "netns", "exec", namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._start_relay([end.device for pair in self.plan.ends for end in pair])
        for pair in self.plan.ends:
            for end in pair:
                run("ip", "link", "set", end.device, "netns", end.namespace)
                run("ip", "-n", end.namespace, "link", "set", end.device, "mtu", str(MTU_BYTES), "txqueuelen",
                    str(_QUEUE_PACKETS), "up")  # fmt: skip
        addresses = {self.plan.namespaces[site]: address for site, address in self.plan.addresses.items()}
        for route in self.plan.routes:
            run("ip", "-n", route.namespace, "route", "add", route.to_address, "dev", route.device, "src",
                addresses[route.namespace])  # fmt: skip
        self.shape(shaped=True)

    def _start_relay(self, devices: Sequence[str]) -> None:
        self._relay = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.testbeds.delay_relay", *devices],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must reach only the benchmark, which removes the network in order
        )
        self._expect("ready")

    def _set_delay(self, device: str, delay_s: float) -> None:
        assert self._relay is not None, "the network exists"
        assert self._relay.stdin is not None
        self._relay.stdin.write(f"{device} {delay_s}\n")
        self._relay.stdin.flush()
        self._expect("done")

    def _expect(self, word: str) -> None:
        assert self._relay is not None, "the network exists"
        assert self._relay.stdout is not None
        line = self._relay.stdout.readline().strip()
        if line != word:
            raise NoPrivilegesError(f"the relay between namespaces printed {line!r}, expected {word!r}")

    def _remove(self) -> None:
        for namespace in self.plan.namespaces.values():
            end_processes(namespace)
        if self._relay is not None:
            if self._relay.stdin is not None:
                with suppress(OSError):
                    self._relay.stdin.close()
            try:
                self._relay.wait(_RELAY_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._relay.kill()
                self._relay.wait()
        for namespace in self.plan.namespaces.values():
            with suppress(NoPrivilegesError):
                run("ip", "netns", "delete", namespace)


def end_processes(namespace: str) -> None:
    """End all processes in a namespace."""
    for _ in range(3):  # ending processes may start others
        try:
            processes = run("ip", "netns", "pids", namespace).split()
        except NoPrivilegesError:  # the namespace does not exist
            return
        if not processes:
            return
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)


def remove_leftovers() -> None:
    """Remove the namespaces of benchmarks that were killed."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0] if line.split() else ""
        made = re.fullmatch(r"cx([0-9a-f]+)-.+", name)
        if made and not Path(f"/proc/{int(made[1], 16)}").exists():
            end_processes(name)
            with suppress(NoPrivilegesError):
                run("ip", "netns", "delete", name)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that the network is removed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
