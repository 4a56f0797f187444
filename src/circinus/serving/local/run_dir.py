"""Run folder of a background engine: socket, lock, log and applied state."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from circinus.errors import ServingError
from circinus.private_files import make_private_folder, open_private, require_private
from circinus.serving.engine import ENGINE_SILENT, DesiredState
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.local.peer import Peer
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_from_json, state_to_json

EXIT_TAKEN = 75
"""Exit code of an engine if another one runs in the folder, or is just starting."""
_MAX_SOCKET_PATH_BYTES = 100
"""Maximum length of a socket path; systems allow 104 to 108 bytes."""
_BACKLOG = 256
"""Number of clients that may wait for a busy engine to accept them."""
_LOG_END_BYTES = 65536
_OWN_FOLDER = "Work in a folder of your own."
_require_private = partial(require_private, area="run_folder", error=ServingError)
_open_private = partial(open_private, area="run_folder", error=ServingError)


@dataclass(frozen=True)
class RunDirectory:
    """Folder and paths of one background engine.

    Nothing in the folder is read, changed or connected to before folder and entries are known to belong to this user,
    with no other user who may write to them. All methods raise a ServingError with the code `run_folder.foreign` or
    `run_folder.unsafe` otherwise.
    """

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

    @property
    def tokens(self) -> Path:
        """Hashes of the tokens of requests over HTTP."""
        return self.path / "http-tokens"

    @property
    def _files(self) -> tuple[Path, ...]:
        """All files of an engine, the lock last."""
        saved = self.desired, self.http, self.tokens
        return (*saved, *map(_draft, saved), self.load_lock, self.log, self.lock)

    def create(self) -> None:
        """Create the folder without access for other users, or check that the existing folder can be used.

        Raises:
            ServingError: the path is not a folder, the folder contains other files, or other users may write to it.
        """
        self._require_own_links()
        make_private_folder(self.path.parent)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            return
        with self._entered() as folder:
            if folder is None:
                problem = "the path is a file, not a folder"
                raise self._fault(problem, code="run_folder.not_a_folder", hint="Name another folder.")
            # A load test that began while the engine ended may leave its lock.
            entries = sorted(set(os.listdir(folder)) - {self.load_lock.name})
        # `is_owned` is checked last, as another engine may just have taken the folder.
        if entries and self.lock.name not in entries and not self.is_owned():
            problem = f"the folder contains {entries[0]} and no {self.lock.name}, so it was not changed"
            hint = "Name an empty folder, or the folder of an engine."
            raise self._fault(problem, code="run_folder.not_empty", hint=hint)

    def is_owned(self) -> bool:
        """Return whether the folder belongs to an engine, running or killed."""
        with self._entered() as folder:
            return folder is not None and self.lock.name in os.listdir(folder)

    def try_lock(self) -> IO[str] | None:
        """Return the locked lock file, or None if another process holds the lock.

        The file must stay open as long as this process (or a fork of it) is the engine.
        """
        with self._entered() as folder:
            if folder is None:
                return None
            try:
                file = self._open(folder, self.lock, os.O_RDWR | os.O_CREAT | os.O_APPEND, "a+")
            except FileNotFoundError:
                return None  # the folder has just been removed
            with suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.lock.name, dir_fd=folder)):
                    return file
            file.close()  # another process holds the lock, or has just removed it
            return None

    @contextmanager
    def one_load_test(self) -> Iterator[None]:
        """Hold the lock of load tests, which ends with this process at the latest.

        Raises:
            ServingError: another load test runs, the folder belongs to no engine, or its disk is full or read-only.
        """
        with self._entered() as folder:
            if folder is None or not self.is_owned():
                raise self.missing_reason()
            with self._writing(self.load_lock):
                file = self._open(folder, self.load_lock, os.O_RDWR | os.O_CREAT | os.O_APPEND, "a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._read(self.load_lock)
                running = f"another load test{holder and f' (process {holder})'} is running"
                hint = f"Wait for its end{holder and f', or end it with `kill -INT {holder}`'}."
                raise self._fault(
                    f"{running}, and the requests of both would add up", code="load.already_running", hint=hint
                ) from None
            with self._writing(self.load_lock):
                file.truncate(0)
                os.write(file.fileno(), b"%d" % os.getpid())  # a buffer would fail again when it is closed
            yield

    def open_log(self) -> int:
        """Return the descriptor of the emptied log, to append to."""
        with self._entered() as folder:
            log = _open_private(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, folder=self._existing(folder))
        os.ftruncate(log, 0)
        return log

    def listen(self) -> socket.socket:
        """Return a listening socket. The caller must hold the lock, as a stale socket is removed."""
        with self._entered() as folder, suppress(FileNotFoundError):
            os.unlink(self.address.name, dir_fd=self._existing(folder))
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)  # other users must never have access
        try:
            with _socket_path(self.address) as path:
                listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        return listener

    def connect(self) -> socket.socket | None:
        """Return a connection to the engine, or None if no engine listens or the folder belongs to other programs.

        Raises:
            BlockingIOError: an engine listens, and has not accepted the clients that wait already.
            ServingError: the socket cannot be connected for another reason, or another user listens.
        """
        if not self.is_owned():
            return None
        with ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)  # a suspended engine accepts none, and connecting would wait for it
            try:
                with _socket_path(self.address) as path:
                    connection.connect(path)
                peer = Peer.of(connection)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except BlockingIOError:
                raise
            except OSError as error:
                raise self._fault(f"cannot connect to the engine: {error}", code="engine.unreachable") from error
            if peer.is_foreign:
                problem = f"the engine runs as another user (user id {peer.user}), so nothing was sent to it"
                raise self._fault(problem, code="run_folder.foreign", hint=_OWN_FOLDER)
            stack.pop_all()
        return connection

    def is_reachable(self) -> bool:
        """Return whether an engine listens, even if clients wait to be accepted; see `connect` for what is raised."""
        try:
            connection = self.connect()
        except BlockingIOError:
            return True
        if connection is not None:
            connection.close()
        return connection is not None

    def save(self, desired: DesiredState) -> None:
        """Save the applied state atomically."""
        self._save(self.desired, state_to_json(desired))

    def save_http_address(self, address: tuple[str, int] | None) -> None:
        """Save the address of the engine for HTTP requests; None: it has none."""
        if address is not None:
            self._save(self.http, "{}:{}".format(*address))
            return
        with self._writing(self.http), self._entered() as folder, suppress(FileNotFoundError):
            os.unlink(self.http.name, dir_fd=self._existing(folder))

    def http_address(self) -> tuple[str, int] | None:
        """Return the saved address for HTTP requests, or None."""
        host, _, port = self._read(self.http).rpartition(":")
        try:
            return host, int(port)
        except ValueError:
            return None

    def save_http_tokens(self, tokens: HttpTokens) -> None:
        """Save the hashes of tokens atomically, without access for other users."""
        self._save(self.tokens, tokens.text)

    def http_tokens(self) -> HttpTokens:
        """Return the saved tokens.

        Raises:
            ServingError: they cannot be read, or other users may have changed them.
        """
        if not os.path.lexists(self.tokens):
            return HttpTokens()
        return HttpTokens.parse(self._read(self.tokens), str(self.tokens))

    def process(self) -> int | None:
        """Return the process id of the engine that runs or was killed in the folder, or None."""
        try:
            return int(self._read(self.lock))
        except ValueError:
            return None

    def log_end(self, lines: int = 12) -> str:
        """Return the last lines of the log."""
        return "\n".join(self._read(self.log, _LOG_END_BYTES).splitlines()[-lines:])

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
        with self._entered() as folder:
            for file in () if folder is None else (self.address, *self._files):
                with suppress(FileNotFoundError):
                    os.unlink(file.name, dir_fd=folder)
        with suppress(OSError):
            self.path.rmdir()

    def silence_reason(self) -> ServingError:
        """Return the error to raise if the engine runs and does not answer in time."""
        process = self.process()
        problem = f"the engine (process {process}) is running but does not respond"
        suspended = f"Try again, or continue it with `kill -CONT {process}` if it was suspended"
        hint = f"{suspended}; `circinus destroy` ends it with its replicas."
        return self._fault(problem, code=ENGINE_SILENT, hint=hint)

    def missing_reason(self) -> ServingError:
        """Return the error to raise if no engine listens."""
        process = self.process()
        if process is None:
            return self._fault("no engine is running", code="engine.not_running", hint="Run `circinus apply`.")
        try:
            state = state_from_json(self._read(self.desired))
            queries = ", ".join(route.query for route in state.routes)
            deployed = f" (deployments: {len(state.deployments)}, queries: {queries})"
        except ServingError:
            deployed = ""
        problem = f"the engine (process {process}) was killed, and its replicas with it{deployed}"
        hint = "Run `circinus apply` to start a new engine, or `circinus destroy` to remove its files."
        return self._fault(problem, code="engine.killed", hint=hint)

    def _fault(self, problem: str, *, code: str, hint: str = "") -> ServingError:
        return ServingError(problem, code=code, location=str(self.path), hint=hint)

    @contextmanager
    def _entered(self) -> Iterator[int | None]:
        """Yield a descriptor of the checked folder, or None if there is none.

        What is opened through the descriptor is in the checked folder, even if another one takes its place.
        """
        self._require_own_links()
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except PermissionError as error:
            problem = "this user may not enter the folder"
            raise self._fault(problem, code="run_folder.foreign", hint=_OWN_FOLDER) from error
        try:
            _require_private(os.fstat(folder), self.path, stat.S_IFDIR)
            for entry in (self.address, *self._files):
                with suppress(FileNotFoundError):
                    status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                    _require_private(status, entry, stat.S_IFSOCK if entry == self.address else stat.S_IFREG)
            yield folder
        finally:
            os.close(folder)

    def _require_own_links(self) -> None:
        for path in (self.path, *self.path.parents):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode) and status.st_uid:  # links of root are part of the system
                    _require_private(status, path, stat.S_IFLNK)

    def _existing(self, folder: int | None) -> int:
        if folder is None:
            hint = "Run `circinus apply` to start a new engine."
            raise self._fault("the folder of the running engine was removed", code="run_folder.removed", hint=hint)
        return folder

    def _open(self, folder: int, file: Path, flags: int, mode: str) -> IO[str]:
        descriptor = _open_private(file, flags, folder=folder)
        return os.fdopen(descriptor, mode, encoding="utf-8", errors="replace")

    def _read(self, file: Path, last_bytes: int | None = None) -> str:
        """Return the text of a file, or "" if there is none."""
        with self._entered() as folder:
            if folder is None:
                return ""
            with suppress(FileNotFoundError), self._open(folder, file, os.O_RDONLY, "r") as opened:
                if last_bytes is not None:
                    opened.seek(max(os.fstat(opened.fileno()).st_size - last_bytes, 0))
                return opened.read()
            return ""

    def _save(self, file: Path, text: str) -> None:
        draft = _draft(file)
        with self._writing(file), self._entered() as entered:
            folder = self._existing(entered)
            with suppress(FileNotFoundError):
                os.unlink(draft.name, dir_fd=folder)  # of a killed engine
            with self._open(folder, draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "w") as opened:
                opened.write(text)
            os.replace(draft.name, file.name, src_dir_fd=folder, dst_dir_fd=folder)

    @contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        """Give errors of the system in the block the code of a file that cannot be written."""
        try:
            yield
        except OSError as error:
            problem = f"cannot write {file.name}: {error.strerror or error}"
            hint = "Make room on the disk, or make it writable, and try again."
            raise self._fault(problem, code="run_folder.unwritable", hint=hint) from error


def _draft(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


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
