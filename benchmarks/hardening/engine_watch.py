"""A real engine that serves the starter application, and the signs of its health under attack."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil

from benchmarks.hardening.bounded_worker import HANG_S, PEAK_BYTES, Ending
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.process_watch import FaultLog, is_alive, kill_with, memory_bytes
from benchmarks.hardening.starter import ENGINE, PLAN, QUERY, SITE, StarterApplication, require
from benchmarks.harness.results import Figure
from circinus.errors import CircinusError
from circinus.serving.local.client import LocalEngineClient
from circinus.serving.local.run_dir import RunDirectory

VALID_BODY = json.dumps("anser the quetion of the garden").encode()
_ATTEMPTS = 3
_MARK = "CIRCINUS_ENGINE_UNDER_ATTACK"
"""Variable of all processes of an engine; its value is the folder."""
_ADDRESS_BYTES = 2 * 2**30
"""Address space of the engine beyond that at its start, which protects the machine and is no aim."""


@dataclass
class EngineWatch:
    """Engine of the application in real mode, started again if it ends."""

    application: StarterApplication
    process: int = 0
    peak_bytes: float = 0.0
    """Maximum resident memory of the engine's own process; infinity once it was found ended."""
    _checks: int = 0
    _unanswered: int = 0

    def __post_init__(self) -> None:
        self._log = FaultLog(self.directory.log)

    @property
    def folder(self) -> Path:
        """Run folder."""
        return self.application.folder / ENGINE

    @property
    def directory(self) -> RunDirectory:
        """Run folder as the engine sees it."""
        return RunDirectory(self.folder.absolute())

    @property
    def address(self) -> tuple[str, int]:
        """Address for HTTP requests."""
        address = self.directory.http_address()
        if address is None:
            raise RuntimeError("the engine takes no requests over HTTP")
        return address

    def start(self) -> None:
        """Deploy the plan, and note the process."""
        require(self.application.run("apply", PLAN))
        self.process = self.directory.process() or 0
        self._log.rewind()
        limit = psutil.Process(self.process).memory_info().vms + _ADDRESS_BYTES
        resource.prlimit(self.process, resource.RLIMIT_AS, (limit, limit))

    def check(self, findings: Findings, after: str, ask: Callable[[], tuple[bool, str]]) -> None:
        """Add how the engine stands after some inputs, and start it again if it has ended or does not answer."""
        self.peak_bytes = max(self.peak_bytes, memory_bytes(self.process))
        if not self.is_alive():
            findings.add("engine", Ending.CRASH, name=after, text="the engine ended", is_input=False)
            self.restart()
        for line in self._log.tracebacks():
            findings.add("log of the engine", Ending.TRACEBACK, name=after, text=line, is_input=False)
        answered, reason = ask()
        self._checks += 1
        if not answered:
            self._unanswered += 1
            findings.add("valid request", Ending.HANG, name=after, text=reason, is_input=False)
            self.restart()

    def figures(self, part: str, batch: int) -> list[Figure]:
        """Return figures of the valid requests after batches of a number of inputs, and of the memory."""
        return [
            Figure(f"{part}: valid requests that were not answered after a batch", float(self._unanswered), 0.0,
                   "lower", "requests", f"of {self._checks}, one after each {batch} hostile ones"),
            Figure(f"{part}: memory of the engine", self.peak_bytes / 2**20, PEAK_BYTES / 2**20, "lower", "MiB"),
        ]  # fmt: skip

    def is_alive(self) -> bool:
        """Return whether the engine that was started runs."""
        return is_alive(self.process)

    def restart(self) -> None:
        """End the engine, however it is, and start it again."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        self.application.run("destroy")
        self.start()

    def answers_request(self) -> tuple[bool, str]:
        """Return whether a valid request is answered over HTTP, and what came instead."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=HANG_S)) as connection:
                    headers = {"content-type": "application/json"}
                    connection.request("POST", f"/{SITE}/{QUERY}", VALID_BODY, headers)
                    answer = connection.getresponse()
                    text = answer.read().decode("utf-8", errors="replace")
            except (OSError, http.client.HTTPException) as error:
                return False, repr(error)
            if answer.status == 200:
                return True, ""
            reason = f"{answer.status} {text}"
            if answer.status not in (429, 503):
                break
            time.sleep(min(2.0, float(answer.headers.get("retry-after", "1"))))
        return False, reason

    def answers_status(self) -> tuple[Ending, str]:
        """Return whether a client gets the status over the control socket or a refusal, and what came instead."""
        try:
            self.connect().close()  # as clients wait without end for an engine that accepts nothing
        except OSError as error:
            return Ending.HANG, repr(error)

        async def ask() -> bool:
            client = LocalEngineClient(self.folder)
            try:
                async with asyncio.timeout(HANG_S):
                    return bool((await client.status()).deployments)
            finally:
                await client.disconnect()

        try:
            return (Ending.OK, "") if asyncio.run(ask()) else (Ending.VAGUE, "no deployments")
        except CircinusError as error:
            return Ending.MESSAGE if error.code != "engine.silent" else Ending.HANG, str(error)
        except (TimeoutError, OSError) as error:
            return Ending.HANG, repr(error)

    def connect(self) -> socket.socket:
        """Return a new connection to the control socket.

        Raises:
            OSError: the engine does not take it, or not in time.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(HANG_S)
        try:
            connection.connect(str(self.directory.address))
        except OSError:
            connection.close()
            raise
        return connection


@contextmanager
def served(application: StarterApplication) -> Iterator[EngineWatch]:
    """Serve the application for the duration of the block; afterwards nothing of the engine is left."""
    mark = str(application.folder)
    with mock.patch.dict(os.environ, {_MARK: mark}):
        watch = EngineWatch(application)
        try:
            watch.start()
            yield watch
        finally:
            application.run("destroy")
            kill_with(_MARK, mark)
