"""Faults of processes, clocks, disks and descriptors: how each strikes and how it is healed."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENGINE, REPLICA, FORK_SERVER, CONTROLLER, ALL = "engine", "replica", "fork server", "controller", "all processes"
_HOUR_S, _PULSE_S = 3600.0, 0.2
_SHIFTED_CLOCK = '''"""Wall clock that jumps, as after a correction, beside a monotonic clock that does not."""

import mmap
import struct
import time

with open({path!r}, "r+b") as file:
    _shift = mmap.mmap(file.fileno(), 8)
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + struct.unpack("d", _shift[:8])[0]
time.time_ns = lambda: _time_ns() + int(struct.unpack("d", _shift[:8])[0] * 1e9)
'''


class ShiftedClock:
    """Offset of the wall clock of all Python processes that have a folder in their search path."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        """Folder for `PYTHONPATH`."""
        self._file = folder / "shift"
        self.shift_s = 0.0
        (folder / "sitecustomize.py").write_text(_SHIFTED_CLOCK.format(path=str(self._file)), encoding="utf-8")

    @property
    def shift_s(self) -> float:
        """Seconds by which the clock is ahead."""
        return float(struct.unpack("d", self._file.read_bytes())[0])

    @shift_s.setter
    def shift_s(self, seconds: float) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))


@dataclass(frozen=True)
class SmallDisk:
    """Small ext4 file system at a folder, over a file in memory, in the mount namespace of this process."""

    folder: Path

    def create(self) -> None:
        """Create the folder with its file system."""
        self.folder.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "none", self.folder)
        _run("mke2fs", "-t", "ext4", "-m", "0", self.folder / "disk", "32m")
        self._mount()

    def fail(self) -> None:
        """Let the disk become read-only as after an error of its device: also for files that are open."""
        device = self.folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1", encoding="utf-8")

    def repair(self) -> None:
        """Check the disk, which no process may use, and mount it again."""
        _run("umount", self.folder, tries=100)  # processes that were killed may not have ended yet
        _run("e2fsck", "-fy", self.folder / "disk", codes=(0, 1))  # 1: errors were corrected
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", self.folder / "disk", self.folder)


def _run(*command: str | Path, codes: Sequence[int] = (0,), tries: int = 1) -> None:
    for _ in range(tries):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode in codes:
            return
        time.sleep(0.1)
    raise OSError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@dataclass(frozen=True)
class Struck:
    """Target of a fault."""

    processes: Sequence[int]
    clock: ShiftedClock
    disk: SmallDisk | None
    """Disk of engine and controller, if they have one of their own."""
    end: Callable[[], object] = lambda: None
    """End controller and engine."""


Healing = Callable[[], None]


def _kill(struck: Struck) -> Healing:
    signal_all(struck.processes, signal.SIGKILL)
    return lambda: None


def _stop(struck: Struck) -> Healing:
    signal_all(struck.processes, signal.SIGSTOP)
    return lambda: signal_all(struck.processes, signal.SIGCONT)


def _slow(struck: Struck) -> Healing:
    """Let the processes run a tenth of the time, as on a node that has far too much to do."""
    is_healed = threading.Event()

    def pulse() -> None:
        while not is_healed.wait(_PULSE_S / 10):
            signal_all(struck.processes, signal.SIGSTOP)
            is_healed.wait(_PULSE_S)
            signal_all(struck.processes, signal.SIGCONT)

    thread = threading.Thread(target=pulse, daemon=True)
    thread.start()

    def heal() -> None:
        is_healed.set()
        thread.join()

    return heal


def _sleep(struck: Struck) -> Healing:
    """Stop processes for an hour of the wall clock, which the monotonic clock does not count, as of a suspended laptop.

    The clock stays ahead.
    """
    heal = _stop(struck)
    struck.clock.shift_s += _HOUR_S
    return heal


def signal_all(processes: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to those of some processes that exist."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _forward(struck: Struck) -> Healing:
    return _shifted(struck.clock, _HOUR_S)


def _backward(struck: Struck) -> Healing:
    return _shifted(struck.clock, -_HOUR_S)


def _shifted(clock: ShiftedClock, seconds: float) -> Healing:
    clock.shift_s += seconds

    def heal() -> None:
        clock.shift_s -= seconds

    return heal


def _no_descriptors(struck: Struck) -> Healing:
    """Leave no process a descriptor beyond those that it has."""
    return _limited(struck.processes, resource.RLIMIT_NOFILE, lambda process: len(os.listdir(f"/proc/{process}/fd")))


def _no_writes(struck: Struck) -> Healing:
    """Let every write to a file fail, as of a disk with an error (EFBIG)."""
    return _limited(struck.processes, resource.RLIMIT_FSIZE, lambda process: 0)


def _limited(processes: Sequence[int], kind: int, limit: Callable[[int], int]) -> Healing:
    before = {}
    for process in processes:
        with suppress(ProcessLookupError, FileNotFoundError):
            before[process] = resource.prlimit(process, kind)
            resource.prlimit(process, kind, (limit(process), before[process][1]))

    def heal() -> None:
        for process, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(process, kind, limits)

    return heal


def _full_disk(struck: Struck) -> Healing:
    """Fill the disk that the engine and the controller write to."""
    assert struck.disk is not None, "only chosen where there is a disk"
    file = struck.disk.folder / "fill"
    with suppress(OSError), file.open("wb", buffering=0) as filled:
        while True:
            filled.write(bytes(4096))
    return lambda: file.unlink(missing_ok=True)


def _read_only_disk(struck: Struck) -> Healing:
    """Let the disk become read-only, until everything is ended and the disk is repaired."""
    disk = struck.disk
    assert disk is not None, "only chosen where there is a disk"
    disk.fail()

    def heal() -> None:
        struck.end()
        disk.repair()

    return heal


def _kill_on_read_only_disk(struck: Struck) -> Healing:
    heal = _read_only_disk(struck)
    _kill(struck)
    return heal


@dataclass(frozen=True)
class FaultKind:
    """Kind of fault, and the processes that it strikes."""

    name: str
    targets: tuple[str, ...]
    strike: Callable[[Struck], Healing]
    lasts: float
    """Duration relative to that of the longest ones; 0: it strikes once."""
    ends_processes: bool = False
    """Whether the processes that it strikes may end, or be ended by others as they are silent."""
    needs_disk: bool = False


_SHORT = 1 / 6
KINDS = (
    FaultKind("killed", (ENGINE, REPLICA, FORK_SERVER, CONTROLLER), _kill, 0.0, ends_processes=True),
    FaultKind("suspended", (ENGINE, REPLICA, FORK_SERVER, CONTROLLER, ALL), _stop, 1.0, ends_processes=True),
    FaultKind("slowed tenfold", (ENGINE, CONTROLLER, ALL), _slow, _SHORT, ends_processes=True),
    FaultKind("asleep for an hour", (CONTROLLER, ALL), _sleep, _SHORT, ends_processes=True),
    FaultKind("clock an hour ahead", (ALL,), _forward, _SHORT),
    FaultKind("clock an hour behind", (ALL,), _backward, _SHORT),
    FaultKind("no descriptors", (ENGINE, FORK_SERVER, CONTROLLER), _no_descriptors, _SHORT),
    FaultKind("writes fail", (ENGINE, CONTROLLER), _no_writes, _SHORT),
    FaultKind("disk full", (ALL,), _full_disk, _SHORT, needs_disk=True),
    FaultKind("disk read-only", (ALL,), _read_only_disk, _SHORT, needs_disk=True),
    FaultKind(
        "killed as the disk is read-only",
        (ENGINE, REPLICA),
        _kill_on_read_only_disk,
        _SHORT,
        ends_processes=True,
        needs_disk=True,
    ),
)
CASES = tuple((kind, target) for kind in KINDS for target in kind.targets)
"""(kind, target) in a fixed order."""
