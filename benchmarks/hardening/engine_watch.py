"""A real engine that serves the starter application, and the signs of its health under attack."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.hardening.bounded_worker import HANG_S, TRACEBACK, Ending
from benchmarks.hardening.starter import ENGINE, PLAN, QUERY, SITE, StarterApplication, children, require
from circinus.errors import CircinusError
from circinus.serving.local.client import LocalEngineClient
from circinus.serving.local.run_dir import RunDirectory

VALID_BODY = json.dumps("anser the quetion of the garden").encode()
_ATTEMPTS = 3
_ADDRESS_BYTES = 2 * 2**30
"""Address space of the engine beyond that at its start, which protects the machine and is no aim."""


@dataclass
class EngineWatch:
    """Engine of the application in real mode, started again if it ends."""

    application: StarterApplication
    process: int = 0
    ended: int = 0
    """Number of times that the engine ended without being asked to."""
    peak_bytes: int = 0
    """Maximum resident memory of the engine's own process."""
    _seen_bytes: int = field(default=0, repr=False)
    """Bytes of the log that were counted."""

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
        self.process, self._seen_bytes = self.directory.process() or 0, 0
        limit = psutil.Process(self.process).memory_info().vms + _ADDRESS_BYTES
        resource.prlimit(self.process, resource.RLIMIT_AS, (limit, limit))

    def revive(self) -> bool:
        """Start the engine again if it has ended; return whether it was alive."""
        with suppress(psutil.NoSuchProcess):
            watched = psutil.Process(self.process)
            self.peak_bytes = max(self.peak_bytes, watched.memory_info().rss)
            if watched.status() != psutil.STATUS_ZOMBIE:
                return True
        self.restart()
        return False

    def restart(self) -> None:
        """End the engine, however it is, and start it again."""
        self.ended += 1
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        self.application.run("destroy")
        self.start()

    def new_tracebacks(self) -> list[str]:
        """Return the last lines of the tracebacks that the log got since the last call."""
        with suppress(FileNotFoundError), self.directory.log.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._seen_bytes)
            text = log.read()
            self._seen_bytes = log.tell()
            blocks = text.split(TRACEBACK)[1:]
            return [
                (re.findall(r"^(\w[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*)$", b, re.M) or ["?"])[0] for b in blocks
            ]
        return []

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
    watch = EngineWatch(application)
    watch.start()
    started = [watch.process, *children(watch.process)]
    try:
        yield watch
    finally:
        application.run("destroy")
        for process in (watch.process, *started):
            if psutil.pid_exists(process) and str(application.folder) in " ".join(_words(process)):
                os.kill(process, 9)


def _words(process: int) -> list[str]:
    with suppress(psutil.Error):
        return psutil.Process(process).cmdline()
    return []
