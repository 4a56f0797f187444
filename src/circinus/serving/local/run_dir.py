"""Run folder of a background engine: socket, lock, log and applied state."""

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
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_from_json, state_to_json

EXIT_TAKEN = 75
"""Exit code of an engine if another one runs in the folder, or is just starting."""
_MAX_SOCKET_PATH_BYTES = 100
"""Maximum length of a socket path; systems allow 104 to 108 bytes."""


@dataclass(frozen=True)
class RunDirectory:
    """Folder and paths of one background engine."""

    path: Path

    @property
    def address(self) -> Path:
        """Unix socket of the engine; a killed engine leaves it behind."""
        return self.path / "socket"

    @property
    def lock(self) -> Path:
        """Lock file with the process id of the engine, locked during its lifetime.

        It is the first file that an engine creates and the last one it removes: a folder without it belongs to other
        programs.
        """
        return self.path / "circinus-engine.lock"

    @property
    def load_lock(self) -> Path:
        """File with the process id of the load test that last began, locked while it runs."""
        return self.path / "load-test.lock"

    @property
    def log(self) -> Path:
        """Output of the engine, and of its replaying replicas."""
        return self.path / "log"

    @property
    def desired(self) -> Path:
        """Last applied state."""
        return self.path / "desired.json"

    @property
    def http(self) -> Path:
        """Address of the engine for HTTP requests."""
        return self.path / "http"

    def create(self) -> None:
        """Create the folder without access for other users, or check that the existing folder can be used.

        Raises:
            ServingError: the path is not a folder, the folder contains other files, or every user may write to it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True)
            return
        except FileExistsError:
            if not self.path.is_dir():
                raise ServingError(
                    "the path is a file, not a folder",
                    code="run_folder.not_a_folder",
                    location=str(self.path),
                    hint="Name another folder.",
                ) from None
        if self.path.stat().st_mode & stat.S_IWOTH:
            raise ServingError(
                "every user may write to the folder",
                code="run_folder.unsafe",
                location=str(self.path),
                hint="Name a new folder.",
            )
        # A load test that began while the engine ended may leave its lock.
        entries = sorted({entry.name for entry in self.path.iterdir()} - {self.load_lock.name})
        # `is_owned` is checked last, as another engine may just have taken the folder.
        if entries and self.lock.name not in entries and not self.is_owned():
            raise ServingError(
                f"the folder contains {entries[0]} and no {self.lock.name}, so it was not changed",
                code="run_folder.not_empty",
                location=str(self.path),
                hint="Name an empty folder, or the folder of an engine.",
            )

    def is_owned(self) -> bool:
        """Return whether the folder belongs to an engine, running or killed."""
        return self.lock.is_file()

    def try_lock(self) -> IO[str] | None:
        """Return the locked lock file, or None if another process holds the lock.

        The file must stay open as long as this process (or a fork of it) is the engine.
        """
        try:
            file = self.lock.open("a+", encoding="utf-8")
        except FileNotFoundError:
            return None  # the folder has just been removed
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), self.lock.stat()):
                return file
        file.close()  # another process holds the lock, or has just removed it
        return None

    @contextmanager
    def one_load_test(self) -> Iterator[None]:
        """Hold the lock of load tests, which ends with this process at the latest.

        Raises:
            ServingError: another load test runs, or the folder belongs to no engine.
        """
        try:
            file = self.load_lock.open("a+", encoding="utf-8")
        except FileNotFoundError:
            raise self.missing_reason() from None
        with file:
            if not self.is_owned():
                raise self.missing_reason()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self.load_lock.read_text(encoding="utf-8")
                raise ServingError(
                    f"another load test{holder and f' (process {holder})'} is running, and the requests of both would "
                    "add up",
                    code="load.already_running",
                    location=str(self.path),
                    hint=f"Wait for its end{holder and f', or end it with `kill -INT {holder}`'}.",
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def listen(self) -> socket.socket:
        """Return a listening socket. The caller must hold the lock, as a stale socket is removed."""
        with suppress(FileNotFoundError):
            self.address.unlink()
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # other users must never have access
        try:
            with _socket_path(self.address) as path:
                listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(64)
        return listener

    def connect(self) -> socket.socket | None:
        """Return a connection to the engine, or None if no engine listens or the folder belongs to other programs.

        Raises:
            ServingError: the socket cannot be connected for another reason.
        """
        if not self.is_owned():
            return None
        connection = socket.socket(socket.AF_UNIX)
        try:
            with _socket_path(self.address) as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise ServingError(
                f"cannot connect to the engine: {error}", code="engine.unreachable", location=str(self.path)
            ) from error
        return connection

    def save(self, desired: DesiredState) -> None:
        """Save the applied state atomically."""
        draft = self.path / "desired.json.new"
        draft.write_text(state_to_json(desired), encoding="utf-8")
        draft.replace(self.desired)

    def save_http_address(self, address: tuple[str, int] | None) -> None:
        """Save the address of the engine for HTTP requests; None: it has none."""
        if address is None:
            self.http.unlink(missing_ok=True)
        else:
            self.http.write_text("{}:{}".format(*address), encoding="utf-8")

    def http_address(self) -> tuple[str, int] | None:
        """Return the saved address for HTTP requests, or None."""
        try:
            host, _, port = self.http.read_text(encoding="utf-8").rpartition(":")
            return host, int(port)
        except (FileNotFoundError, ValueError):
            return None

    def process(self) -> int | None:
        """Return the process id of the engine that runs or was killed in the folder, or None."""
        try:
            return int(self.lock.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def log_end(self, lines: int = 12) -> str:
        """Return the last lines of the log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def clear(self) -> bool:
        """Remove the files of a killed engine, or wait until an ending one has. Return False if there is neither.

        Raises:
            ServingError: the engine is running, and does not end.
        """
        if not self.is_owned():
            return False
        deadline_s = time.monotonic() + SERVING.daemon_clear_timeout_s
        while (lock := self.try_lock()) is None:
            if not self.is_owned():
                return True
            if time.monotonic() > deadline_s:
                raise self.silence_reason()
            time.sleep(0.02)  # the engine is starting or about to end
        with lock:
            self.remove()
        return True

    def remove(self) -> None:
        """Remove all files of an engine, and the folder if it is empty. The caller must hold the lock."""
        draft = self.path / "desired.json.new"
        for file in (self.address, self.desired, self.http, draft, self.load_lock, self.log, self.lock):
            with suppress(FileNotFoundError):
                file.unlink()
        with suppress(OSError):
            self.path.rmdir()

    def silence_reason(self) -> ServingError:
        """Return the error to raise if the engine runs and does not answer in time."""
        process = self.process()
        return ServingError(
            f"the engine (process {process}) is running but does not respond",
            code="engine.silent",
            location=str(self.path),
            hint=f"Try again; `kill -9 {process}` ends it at once, with its replicas.",
        )

    def missing_reason(self) -> ServingError:
        """Return the error to raise if no engine listens."""
        process = self.process()
        if process is None:
            return ServingError(
                "no engine is running", code="engine.not_running", location=str(self.path), hint="Run `circinus apply`."
            )
        try:
            state = state_from_json(self.desired.read_text(encoding="utf-8"))
            queries = ", ".join(route.query for route in state.routes)
            deployed = f" (deployments: {len(state.deployments)}, queries: {queries})"
        except (FileNotFoundError, ServingError):
            deployed = ""
        return ServingError(
            f"the engine (process {process}) was killed, and its replicas with it{deployed}",
            code="engine.killed",
            location=str(self.path),
            hint="Run `circinus apply` to start a new engine, or `circinus destroy` to remove its files.",
        )


@contextmanager
def _socket_path(path: Path) -> Iterator[str]:
    """Yield `path` as a socket address: through a link in a temporary folder if it is too long."""
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) < _MAX_SOCKET_PATH_BYTES // 2:
            break
    with tempfile.TemporaryDirectory(prefix="circinus-", dir=parent) as folder:
        link = Path(folder) / "run"
        link.symlink_to(path.parent.resolve())
        yield str(link / path.name)
