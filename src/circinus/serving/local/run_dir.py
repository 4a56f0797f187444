"""The folder in which a background engine can be found."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState
from circinus.serving.state_serialization import state_from_json, state_to_json

_LONGEST_SOCKET_PATH = 100
"""Bytes; systems allow 104 to 108."""


_END_S = 10.0
"""How long an engine that answers no more may take to end."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one background engine, and what can be told from them."""

    path: Path

    @property
    def address(self) -> Path:
        """Unix socket that the engine listens on; left behind by one that was killed."""
        return self.path / "socket"

    @property
    def lock(self) -> Path:
        """Holds the engine's process id, and is locked as long as it lives.

        The first file of an engine to come and the last to go: a folder without it is somebody else's.
        """
        return self.path / "circinus-engine.lock"

    @property
    def log(self) -> Path:
        """What the engine and its replicas print."""
        return self.path / "log"

    @property
    def desired(self) -> Path:
        """What was last applied."""
        return self.path / "desired.json"

    def create(self) -> None:
        """Make the folder, closed to other users, or make sure that the one there can be taken as it is.

        Raises:
            ServingError: other things are in it, it is no folder, or every user may change what is in it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True)
            return
        except FileExistsError:
            if not self.path.is_dir():
                raise ServingError(
                    "found a file, expected a folder for an engine",
                    code="run_folder.not_a_folder",
                    location=str(self.path),
                    hint="Name another folder.",
                ) from None
        if self.path.stat().st_mode & stat.S_IWOTH:
            raise ServingError(
                "every user may write to the folder, expected a folder of your own",
                code="run_folder.unsafe",
                location=str(self.path),
                hint="Name a new folder.",
            )
        found = sorted(entry.name for entry in self.path.iterdir())
        if found and self.lock.name not in found and not self.is_owned():  # asked last: it may just have been taken
            raise ServingError(
                f"found {found[0]} and no {self.lock.name}, "
                "expected an empty folder or the folder of an engine; nothing was changed",
                code="run_folder.not_empty",
                location=str(self.path),
                hint="Name another folder.",
            )

    def is_owned(self) -> bool:
        """Whether an engine has the folder, or left something there."""
        return self.lock.is_file()

    def try_lock(self) -> IO[str] | None:
        """The lock, to be kept open as long as this process (or a fork of it) is the engine; None when it is taken."""
        try:
            file = self.lock.open("a+", encoding="utf-8")
        except FileNotFoundError:
            return None  # the folder was removed just now
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), self.lock.stat()):
                return file
        file.close()  # held by another, or removed by the one who held it just now
        return None

    def listen(self) -> socket.socket:
        """A socket that clients can connect to. The caller must hold the lock: a stale socket is removed."""
        with suppress(FileNotFoundError):
            self.address.unlink()
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # not a moment open to others
        try:
            with _short(self.address) as path:
                listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(64)
        return listener

    def connect(self) -> socket.socket | None:
        """A connection to the engine; None when none listens, or the folder is somebody else's.

        Raises:
            ServingError: the folder is not one, or belongs to somebody else.
        """
        if not self.is_owned():
            return None
        connection = socket.socket(socket.AF_UNIX)
        try:
            with _short(self.address) as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise ServingError(
                f"the engine cannot be reached: {error}", code="engine.unreachable", location=str(self.path)
            ) from error
        return connection

    def save(self, desired: DesiredState) -> None:
        """Keep what was applied; a reader sees the old or the new one, whole."""
        draft = self.path / "desired.json.new"
        draft.write_text(state_to_json(desired), encoding="utf-8")
        draft.replace(self.desired)

    def process(self) -> int | None:
        """The process id of the engine that runs or was killed here."""
        try:
            return int(self.lock.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def log_end(self, lines: int = 12) -> str:
        """The last lines of the log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def clear(self) -> bool:
        """Remove what an engine that was killed left; False, and nothing is touched, when none left anything.

        Raises:
            ServingError: an engine lives here after all.
        """
        if not self.is_owned():
            return False
        deadline_s = time.monotonic() + _END_S
        while (lock := self.try_lock()) is None:
            if not self.is_owned():
                return False
            if time.monotonic() > deadline_s:
                raise ServingError(
                    f"the engine (process {self.process()}) lives and does not answer",
                    code="engine.silent",
                    location=str(self.path),
                )
            time.sleep(0.02)  # it is starting or about to end
        with lock:
            self.remove()
        return True

    def remove(self) -> None:
        """Remove what an engine puts here, and the folder when nothing else is in it; for whoever has the lock."""
        for file in (self.address, self.desired, self.path / "desired.json.new", self.log, self.lock):
            with suppress(FileNotFoundError):
                file.unlink()
        with suppress(OSError):
            self.path.rmdir()

    def missing_reason(self) -> ServingError:
        """Why there is no engine to speak to; to be raised."""
        process = self.process()
        if process is None:
            return ServingError(
                "no engine runs here", code="engine.not_running", location=str(self.path), hint="Run `circinus apply`."
            )
        try:
            state = state_from_json(self.desired.read_text(encoding="utf-8"))
            queries = ", ".join(route.query for route in state.routes)
            served = f"; it was running {len(state.deployments)} deployments for the queries {queries}"
        except (FileNotFoundError, ServingError):
            served = ""
        return ServingError(
            f"the engine (process {process}) was killed, and its replicas ended with it{served}",
            code="engine.killed",
            location=str(self.path),
            hint="Run `circinus apply` to start a new engine, or `circinus destroy` to remove the rest.",
        )


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """`path` as a socket address: through a link in a temporary folder when it is too long to be one."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield str(path)
        return
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) < _LONGEST_SOCKET_PATH // 2:
            break
    with tempfile.TemporaryDirectory(prefix="circinus-", dir=parent) as folder:
        link = Path(folder) / "run"
        link.symlink_to(path.parent.resolve())
        yield str(link / path.name)
