"""Bounded run of a program in a forked process: limits of time and memory, and how the run ended.

Forking a process that has imported everything costs milliseconds, so that thousands of inputs fit in minutes; and each
input starts from the state of a fresh command. Modules of users are never imported in the parent.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import select
import signal
import site
import sys
import sysconfig
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import psutil

import circinus
from benchmarks.hardening.process_watch import UNCAUGHT, memory_bytes

HANG_S = 10.0
"""Seconds, without those in which it waited for a processor, after which a run is killed and counts as hung."""
PEAK_BYTES = 500 * 2**20
"""Maximum resident memory of a run."""
_ADDRESS_BYTES = 3 * 2**30
"""Address space of a run beyond that of its parent: protects the machine, and is no aim."""
_MAX_OUTPUT_BYTES = 2**25
_LISTING = "LOADED MODULES"

Program = Callable[[], None]
_Key = TypeVar("_Key")


class Ending(StrEnum):
    """End of a run."""

    OK = "ok"
    MESSAGE = "message with code and place"
    VAGUE = "message without code or place"
    TRACEBACK = "traceback"
    HANG = "hang"
    MEMORY = "memory"
    CRASH = "crash"

    @property
    def is_good(self) -> bool:
        """Return whether a program may end so, whatever its input."""
        return self in (Ending.OK, Ending.MESSAGE)


@dataclass(frozen=True)
class BoundedRun:
    """A run that has ended, or was killed at a limit."""

    code: int
    """Exit code; negative: number of the signal that ended the process."""
    stdout: str
    stderr: str
    wall_s: float
    peak_bytes: int
    """Maximum resident memory, with what it inherits of modules, without what else the parent holds."""
    is_hung: bool = False

    @property
    def ending(self) -> Ending:
        """End of the run."""
        text = self.stdout + self.stderr
        if self.is_hung:
            return Ending.HANG
        if self.peak_bytes > PEAK_BYTES or "MemoryError" in text:
            return Ending.MEMORY
        if self.code < 0:
            return Ending.CRASH
        if any(sign in text for sign in UNCAUGHT):
            return Ending.TRACEBACK
        if self.code == 0:
            return Ending.OK
        return self._ending_of_failure()

    @property
    def documents(self) -> list[Any] | None:
        """Return the JSON documents that it printed, or None if it printed something else."""
        decoder, found, text = json.JSONDecoder(), [], self.stdout.strip()
        while text:
            try:
                document, end = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                return None
            found.append(document)
            text = text[end:].lstrip()
        return found

    def _ending_of_failure(self) -> Ending:
        """Return whether the JSON that a failed command printed has the code and the place of the fault."""
        with suppress(LookupError, TypeError):
            document = (self.documents or [None])[-1]
            if document["kind"] != "error":  # a result such as that of `status`, whose exit code has a meaning
                return Ending.OK
            error = document["data"]
            has_code = error["code"] not in ("", "unspecified")
            # The place of a usage error is an option, which its message names.
            has_place = bool(error["location"]) or error["code"].startswith("usage.")
            return Ending.MESSAGE if has_code and has_place else Ending.VAGUE
        return Ending.VAGUE

    @property
    def last_line(self) -> str:
        """Return the last printed line that is not empty, for tables."""
        lines = [line for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else ""


def command(folder: Path, *arguments: str) -> Program:
    """Return the program `python -m circinus ARGUMENTS` in a folder."""

    def program() -> None:
        os.chdir(folder)
        sys.argv = ["circinus", *arguments]
        sys.path.insert(0, str(folder))
        runpy.run_module("circinus", run_name="__main__", alter_sys=True)

    return program


def bounded(
    programs: Iterable[tuple[_Key, Program]], *, at_once: int | None = None, hang_s: float = HANG_S
) -> Iterator[tuple[_Key, BoundedRun]]:
    """Run programs in forked processes, and yield their keys and runs as they end."""
    at_once = at_once or os.cpu_count() or 1
    pending: deque[tuple[_Key, _Child]] = deque()
    try:
        for key, program in programs:
            if len(pending) >= at_once:
                ended, child = pending.popleft()
                yield ended, child.wait(hang_s)
            pending.append((key, _Child(program)))
        while pending:
            ended, child = pending.popleft()
            yield ended, child.wait(hang_s)
    finally:
        for _, child in pending:
            child.wait(0.0)


class _Child:
    """Forked process that runs a program with its output in files."""

    def __init__(self, program: Program) -> None:
        self._start_s = time.monotonic()
        self._foreign_bytes = memory_bytes(os.getpid(), "RssAnon") - _imported_bytes()
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  (closed by `wait`)
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        if self._process == 0:
            _run(program, self._files)
        self._descriptor = os.pidfd_open(self._process)

    def wait(self, hang_s: float) -> BoundedRun:
        """Wait for the end, and kill the process and those that it started at the limit."""
        has_ended: Sequence[int] = ()
        try:
            left_s = hang_s
            while left_s > 0 and not has_ended:
                left_s = max(0.0, hang_s - self._spent_s())
                has_ended, *_ = select.select([self._descriptor], [], [], left_s)
        finally:  # also when this process is interrupted
            with suppress(ProcessLookupError):  # the process is not reaped yet, so that its group is its own
                os.killpg(self._process, signal.SIGKILL)
        _, status, usage = os.wait4(self._process, 0)
        os.close(self._descriptor)
        texts = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read(_MAX_OUTPUT_BYTES).decode("utf-8", errors="replace"))
        return BoundedRun(
            code=os.waitstatus_to_exitcode(status),
            stdout=texts[0],
            stderr=texts[1],
            wall_s=time.monotonic() - self._start_s,
            peak_bytes=usage.ru_maxrss * 1024 - int(max(0, self._foreign_bytes)),
            is_hung=not has_ended,
        )

    def _spent_s(self) -> float:
        """Return the seconds since the start without those in which a busy machine let the process wait."""
        waited_ns = 0
        with suppress(OSError):  # not every kernel counts it
            waited_ns = int(Path(f"/proc/{self._process}/schedstat").read_text(encoding="ascii").split()[1])
        return time.monotonic() - self._start_s - waited_ns / 1e9


@cache
def _imported_bytes() -> float:
    """Return the memory of the parent after its imports: a fork begins with all that its parent has by then."""
    return memory_bytes(os.getpid(), "RssAnon")


def _run(program: Program, files: Sequence[IO[bytes]]) -> None:
    """Run a program in the child, and end the process."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *(file.fileno() for file in files))):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = map(_stream, range(3), "rww")
        limit = psutil.Process().memory_info().vms + _ADDRESS_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _stream(number: int, mode: str) -> Any:
    return open(number, mode, encoding="utf-8", closefd=False)


def preload(*programs: Program) -> None:
    """Import the installed modules that programs import, so that each fork has them; none of a user's folder."""

    def listing(program: Program) -> Program:
        def listed() -> None:
            try:
                program()
            finally:
                sys.stdout.write(f"\n{_LISTING} {' '.join(sys.modules)}\n")

        return listed

    installed = *map(Path, (*site.getsitepackages(), sysconfig.get_path("stdlib"))), Path(circinus.__file__).parent
    for _, run in bounded(((None, listing(program)) for program in programs), hang_s=120.0):
        for name in run.stdout.rpartition(_LISTING)[2].split():
            with suppress(Exception):  # modules with conditions of their own
                found = _file_of(name)
                if found is not None and any(folder in found.parents for folder in installed):
                    importlib.import_module(name)
    _imported_bytes.cache_clear()


def _file_of(name: str) -> Path | None:
    spec: Any = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin)
