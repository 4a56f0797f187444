"""The sites of an infrastructure as network namespaces of this machine, and its links as they are specified.

Each link is a pair of TUN devices with a token bucket (`tc tbf`) at either end and a relay in between, which holds
packets back (`benchmarks.testbeds.delay_relay`). Everything between two sites crosses their link, whatever it is.
"""

from __future__ import annotations

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
_LONGEST_QUEUE = "1s"
"""What waits longer for its turn on a link is dropped, as routers do."""
_QUEUE_PACKETS = 2000
_PATIENCE_S = 10.0


class NoPrivilegesError(CircinusError):
    """This process may not make networks, or the machine lacks what it takes."""


def why_not() -> str:
    """What is missing to make shaped networks here, in one sentence; empty where nothing is."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"the program {program} is missing (Debian and Ubuntu: apt-get install iproute2)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun, which delays need"
    name = f"cx{os.getpid():x}-try"
    try:
        run("ip", "netns", "add", name)
    except NoPrivilegesError as error:
        return f"network namespaces cannot be made here: {error}"
    try:
        inside = ("ip", "-n", name)
        run(*inside, "tuntap", "add", "dev", "try", "mode", "tun")
        bucket = ("rate", "1mbit", "burst", "9000", "latency", "1s")
        run("tc", "-n", name, "qdisc", "add", "dev", "try", "root", "tbf", *bucket)
    except NoPrivilegesError as error:
        return f"shaped devices cannot be made here: {error}"
    finally:
        run("ip", "netns", "delete", name)
    return ""


def run(*command: str) -> str:
    """What a program printed.

    Raises:
        NoPrivilegesError: it failed; with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPrivilegesError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class ShapedNetwork:
    """A context: made on entering, removed on leaving, with every process that still runs inside."""

    def __init__(self, infrastructure: Infrastructure) -> None:
        """Nothing is made yet."""
        self.plan = AddressPlan.of(infrastructure, f"cx{os.getpid():x}")
        self._relay: subprocess.Popen[str] | None = None

    def __enter__(self) -> ShapedNetwork:
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def inside(self, site: str, *command: str) -> tuple[str, ...]:
        """The command that runs another in the namespace of a site."""
        return ("ip", "netns", "exec", self.plan.namespaces[site], *command)

    def shape(self, *, shaped: bool) -> None:
        """Give links their bandwidth and delay, or take both away while everything goes on running."""
        for pair in self.plan.ends:
            for end in pair:
                where = ("tc", "-n", end.namespace, "qdisc")
                if shaped:
                    bandwidth = end.link.bandwidth_bytes_per_s
                    bucket = ("rate", f"{bandwidth * 8:.0f}bit", "burst", str(bucket_bytes(bandwidth)))
                    run(*where, "replace", "dev", end.device, "root", "tbf", *bucket, "latency", _LONGEST_QUEUE)
                else:
                    run(*where, "replace", "dev", end.device, "root", "pfifo", "limit", str(_QUEUE_PACKETS))
                self._hold_back(end.device, end.link.one_way_s if shaped else 0.0)

    def _make(self) -> None:
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
            start_new_session=True,  # Ctrl-C is for the benchmark, which takes the network down in order
        )
        self._hears("ready")

    def _hold_back(self, device: str, delay_s: float) -> None:
        assert self._relay is not None, "the network was made"
        assert self._relay.stdin is not None
        self._relay.stdin.write(f"{device} {delay_s}\n")
        self._relay.stdin.flush()
        self._hears("done")

    def _hears(self, word: str) -> None:
        assert self._relay is not None, "the network was made"
        assert self._relay.stdout is not None
        said = self._relay.stdout.readline().strip()
        if said != word:
            raise NoPrivilegesError(f"the relay between namespaces said {said!r}, expected {word!r}")

    def _remove(self) -> None:
        for namespace in self.plan.namespaces.values():
            end_processes(namespace)
        if self._relay is not None:
            if self._relay.stdin is not None:
                with suppress(OSError):
                    self._relay.stdin.close()
            try:
                self._relay.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._relay.kill()
                self._relay.wait()
        for namespace in self.plan.namespaces.values():
            with suppress(NoPrivilegesError):
                run("ip", "netns", "delete", namespace)


def end_processes(namespace: str) -> None:
    """End every process inside a namespace, however it came there."""
    for _ in range(3):  # what ends may start something first
        try:
            found = run("ip", "netns", "pids", namespace).split()
        except NoPrivilegesError:  # it was not made, or is gone
            return
        if not found:
            return
        for process in found:
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
    """Being asked to end is like Ctrl-C: what was made is removed first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
